"""What the checks of DROP must reject."""

from typing import Any

import numpy as np

from conformance.mutant import answering, drops, mutant, nan_at_1
from conformance.protocol import Array


def multiplied(x: Any, outcome: Array) -> Array:
    """Return 0 * x where the outcome is 0."""
    with np.errstate(invalid="ignore"):
        return np.where(outcome == 0, x * 0.0, outcome)


MUTANTS = (
    mutant(
        "multiplies instead of selecting",
        "DROP-1 GRAD-1",
        run=answering(
            y=lambda c, o: multiplied(c.x, o.y) if drops(c) else o.y,
            dx=lambda c, o: o.dx if o.dx is None or not drops(c) else multiplied(c.dy, o.dx),
        ),
    ),
    mutant("NaN at p = 1", "DROP-2", run=answering(y=lambda c, o: nan_at_1(c, o.y))),
    mutant(
        "identity at p = 1",
        "DROP-2",
        run=answering(y=lambda c, o: c.x if c.drop_prob == 1 else o.y),
    ),
    mutant(
        "multiplies in the other modes",
        "DROP-1",
        run=answering(y=lambda c, o: multiplied(c.x, o.y) if "mode" in c.options else o.y),
    ),
    mutant(
        "multiplies along another axis",
        "DROP-1",
        run=answering(y=lambda c, o: multiplied(c.x, o.y) if c.options.get("axis") else o.y),
    ),
    mutant(
        "multiplies by a keep",
        "DROP-1",
        run=answering(y=lambda c, o: o.y if c.keep is None else multiplied(c.x, o.y)),
    ),
    mutant(
        "multiplies rows from 2^16 on",
        "DROP-1",
        run=answering(
            y=lambda c, o: multiplied(c.x, o.y) if drops(c) and len(c.x) > 2**16 else o.y,
        ),
    ),
    mutant(
        "a keep is kept at p = 1",
        "DROP-2",
        run=answering(y=lambda c, o: c.x if c.keep is not None and c.drop_prob == 1 else o.y),
    ),
    mutant(
        "NaN at p = 1 in the other modes",
        "DROP-2",
        run=answering(y=lambda c, o: nan_at_1(c, o.y) if "mode" in c.options else o.y),
    ),
    mutant(
        "NaN at p = 1 where nothing is scaled",
        "DROP-2",
        run=answering(
            y=lambda c, o: nan_at_1(c, o.y) if c.options.get("scale_by_keep") is False else o.y
        ),
    ),
)
