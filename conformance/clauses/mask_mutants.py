"""What the checks of MASK must reject."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

import droppath
from conformance.clauses.mask_black_boxes import BLACK_BOXES
from conformance.mutant import (
    REFERENCE,
    Part,
    answering,
    calling,
    drawing,
    drops,
    mutant,
    overlooking,
    overriding,
    words,
)
from conformance.numerics import round_to
from conformance.protocol import Array, Call, Outcome


def in_dtype(call: Call, batch: int) -> Array:
    """Return floor(1 - p + u) with u on the grid of x's dtype."""
    bits = {"bfloat16": 7, "float16": 10}.get(call.dtype, 23)
    u = (droppath.random_bits(words(call), batch) >> (32 - bits)) / 2.0**bits
    keep: Array = np.floor(round_to(1 - call.drop_prob + u, call.dtype)) == 1
    return keep


def no_floor(call: Call, outcome: Outcome) -> Array:
    """Return x * (keep_prob + u) / keep_prob: a mask that is none."""
    if not drops(call):
        return outcome.y
    u = droppath.random_bits(words(call), len(call.x)) / 2.0**32
    column = (1 - call.drop_prob + u).reshape(-1, *[1] * (call.x.ndim - 1))
    with np.errstate(over="ignore"):
        return call.x * column / (1 - call.drop_prob)


def model(masks: Callable[[Call, list[float]], list[Array]]) -> Part:
    """Return a `compute` whose models draw like this in a forward that calls each layer once."""
    return lambda c: (
        masks(c, c.drop_prob)
        if c.op == "model" and "calls" not in c.options
        else REFERENCE.compute(c)
    )


MUTANTS = (
    *BLACK_BOXES,
    mutant(
        "balanced mode masks the first axis",
        "MASK-1",
        run=overlooking("axis", where=lambda c: c.options.get("mode") == "balanced"),
    ),
    mutant(
        "blocks mask the last axis",
        "MASK-1",
        run=overriding(lambda c: c.op == "residual", axis=-1),
    ),
    mutant(
        "no batch of more than 256 rows",
        "MASK-2",
        run=answering(y=lambda c, o: o.y[:256] if drops(c) and "axis" not in c.options else o.y),
    ),
    mutant(
        "a mask that depends on the other axes",
        "MASK-3",
        run=calling(seed=lambda c: None if c.seed is None else c.seed + c.x.size),
    ),
    mutant(
        "a mask that depends on NaN",
        "MASK-3",
        run=calling(seed=lambda c: None if c.seed is None else c.seed + int(np.isnan(c.x).any())),
    ),
    mutant(
        "each layer's rows are those of the layer before, one row later",
        "MASK-6",
        compute=model(
            lambda c, rates: [
                droppath.keep_mask(words(c), p, len(c.x), offset=i) for i, p in enumerate(rates)
            ]
        ),
    ),
    mutant(
        "layers take the rate of the layer after",
        "MASK-6",
        compute=model(
            lambda c, rates: [
                droppath.keep_mask(droppath.fold_in(words(c), i), p, len(c.x))
                for i, p in enumerate([*rates[1:], rates[0]])
            ]
        ),
    ),
    mutant(
        "with a key, one for all layers",
        "MASK-6",
        compute=model(
            lambda c, rates: [
                droppath.keep_mask(
                    words(c) if c.key is not None else droppath.fold_in(words(c), i), p, len(c.x)
                )
                for i, p in enumerate(rates)
            ]
        ),
    ),
    mutant(
        "seed s + 1 is seed s, one layer later",
        "MASK-6",
        compute=model(
            lambda c, rates: [
                droppath.keep_mask(droppath.key(int(words(c)[1] % 1000) + i), p, len(c.x))
                for i, p in enumerate(rates)
            ]
        ),
    ),
    mutant(
        "a layer called twice draws once",
        "MASK-6",
        compute=lambda c: (
            [REFERENCE.compute(c)[0]] * c.options["calls"]
            if c.op == "model" and "calls" in c.options
            else REFERENCE.compute(c)
        ),
    ),
    mutant(
        "masks the last axis",
        "MASK-1",
        run=calling(options=lambda c: {**c.options, "axis": -1}),
    ),
    mutant(
        "draws for each element",
        "MASK-1",
        run=answering(
            y=lambda c, o: (
                REFERENCE.run(replace(c, x=c.x.reshape(-1))).y.reshape(c.x.shape)
                if drops(c) and "axis" not in c.options
                else o.y
            )
        ),
    ),
    mutant(
        "masks of rank 4",
        "MASK-2 TYPE-2",
        run=answering(y=lambda c, o: o.y * np.ones((1, 1, 1, 1)) if drops(c) else o.y),
    ),
    mutant("draws in x's dtype", "MASK-3 MASK-4", draw=drawing(in_dtype)),
    mutant(
        "a mask that depends on x",
        "MASK-3",
        draw=lambda c, x: REFERENCE.draw(
            replace(c, seed=int(abs(np.nan_to_num(c.x, posinf=0, neginf=0).sum()) % 99)), x
        ),
    ),
    mutant(
        "keep and drop swapped", "MASK-4 KEY-2", draw=drawing(lambda c, n: ~REFERENCE.draw(c, c.x))
    ),
    mutant(
        "drops nothing at small p",
        "MASK-4",
        draw=drawing(lambda c, n: REFERENCE.draw(c, c.x) | (c.drop_prob < 0.005)),
    ),
    mutant(
        "the first row is always kept",
        "MASK-4",
        draw=drawing(lambda c, n: REFERENCE.draw(c, c.x) | (np.arange(n) == 0)),
    ),
    mutant(
        "the second half repeats the first",
        "MASK-5",
        draw=drawing(lambda c, n: np.resize(REFERENCE.draw(c, c.x)[: (n + 1) // 2], n)),
    ),
    mutant(
        "a block of no rows runs on one, and returns it",
        "MASK-2",
        run=answering(
            y=lambda c, o: (
                np.zeros((1, *o.y.shape[1:])) if c.op == "residual" and not len(o.y) else o.y
            )
        ),
    ),
    mutant("no floor", "MASK-4 SCALE-1 DROP-1", run=answering(y=no_floor)),
    mutant("one mask for every seed", "MASK-5", run=calling(seed=0)),
    mutant(
        "one seed for all layers",
        "MASK-6",
        compute=lambda c: (
            [droppath.keep_mask(words(c), p, len(c.x)) for p in c.drop_prob]
            if c.op == "model"
            else REFERENCE.compute(c)
        ),
    ),
    mutant(
        "batch mode draws for each row",
        "MASK-5 KEY-3",
        run=overlooking("mode", where=lambda c: c.options.get("mode") == "batch"),
    ),
)
