"""What the checks of BAL must reject."""

import math
from collections.abc import Callable
from fractions import Fraction

import numpy as np

import droppath
from conformance.calls import threshold
from conformance.mutant import (
    TWO_23,
    Part,
    count,
    drawing_balanced,
    mutant,
    op,
    overlooking,
    ranks,
    words,
)
from conformance.protocol import Array, Call


def neighbours(call: Call, group_size: int, groups: int) -> Array:
    """Return a mask in which two neighbouring groups round alike."""
    dropped = np.repeat(count(call, group_size, groups)[::2], 2, 0)[:groups]
    return ranks(call, group_size, groups) < group_size - dropped


def one_stream(call: Call, group_size: int, groups: int) -> Array:
    """Return a mask that rounds by the words that rank the rows."""
    whole, rest = divmod(group_size * threshold(call.drop_prob), TWO_23)
    up = droppath.random_bits(droppath.fold_in(words(call), 0), groups) >> 9 < rest
    return ranks(call, group_size, groups) < (group_size - whole - up)[:, None]


def rounding(change: Callable[[Array, float, int], Array]) -> Part:
    """Return a `draw` with other numbers of dropped rows: of those, p and the group's size."""
    return drawing_balanced(
        lambda c, b, g: ranks(c, b, g) < b - change(count(c, b, g), c.drop_prob, b)
    )


MUTANTS = (
    mutant(
        "rounds to nearest",
        "BAL-1 BAL-2",
        draw=rounding(lambda dropped, p, b: np.full_like(dropped, round(b * p))),
    ),
    mutant(
        "drops all at rates next to 1",
        "BAL-1",
        draw=rounding(lambda dropped, p, b: dropped if p < 0.99 else np.full_like(dropped, b)),
    ),
    mutant(
        "drops none at rates below 1/1000",
        "BAL-1 BAL-2",
        draw=rounding(lambda dropped, p, b: dropped * (p > 0.001)),
    ),
    mutant(
        "blocks take all groups for one",
        "BAL-1",
        run=overlooking("groups", where=lambda c: c.op == "residual"),
    ),
    mutant(
        "one group at an axis other than 0",
        "BAL-1 KEY-4",
        run=overlooking("groups", where=lambda c: bool(c.options.get("axis"))),
    ),
    mutant(
        "never drops the last of many rows",
        "BAL-2",
        draw=drawing_balanced(
            lambda c, b, g: (
                ranks(c, b, g) + b * (np.arange(b) < b - 1) * (b > 7)
                < b * (b > 7) + b - count(c, b, g)
            )
        ),
    ),
    mutant("neighbouring groups round alike", "BAL-3", draw=drawing_balanced(neighbours)),
    mutant("rounds by the words of the ranks", "BAL-3", draw=drawing_balanced(one_stream)),
    mutant(
        "neighbouring groups drop the same rows",
        "BAL-3",
        draw=drawing_balanced(
            lambda c, b, g: np.repeat(ranks(c, b, g)[::2], 2, 0)[:g] < b - count(c, b, g)
        ),
    ),
    mutant(
        "large groups keep a run of rows",
        "BAL-3",
        draw=drawing_balanced(
            lambda c, b, g: (
                ((np.arange(b) + ranks(c, b, g)[:, :1]) % b if b > 10 else ranks(c, b, g))
                < b - count(c, b, g)
            )
        ),
    ),
    mutant(
        "capacity from p, not from T",
        "BAL-4",
        compute=op(
            "kept_capacity",
            lambda drop_prob, batch, groups=1: (
                batch - groups * math.floor(Fraction(drop_prob) * batch / groups)
            ),
        ),
    ),
    mutant(
        "capacity of at least one row at p = 1",
        "BAL-4",
        compute=op(
            "kept_capacity",
            lambda batch, groups=1, **o: max(
                droppath.kept_capacity(batch=batch, groups=groups, **o), groups
            ),
        ),
    ),
    mutant(
        "keeps max(int(b (1 - p)), 1)",
        "BAL-1 BAL-2 MASK-4",
        draw=drawing_balanced(lambda c, b, g: ranks(c, b, g) < max(int(b * (1 - c.drop_prob)), 1)),
    ),
    mutant(
        "never drops at b = 1",
        "BAL-2",
        draw=drawing_balanced(lambda c, b, g: ranks(c, b, g) < np.maximum(b - count(c, b, g), 1)),
    ),
    mutant(
        "keeps a run of rows",
        "BAL-3",
        draw=drawing_balanced(
            lambda c, b, g: (np.arange(b) + ranks(c, b, g)[:, :1]) % b < b - count(c, b, g)
        ),
    ),
    mutant(
        "capacity rounded to nearest",
        "BAL-4",
        compute=op(
            "kept_capacity", lambda drop_prob, batch, groups=1: round(batch * (1 - drop_prob))
        ),
    ),
)
