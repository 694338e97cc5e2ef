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
)
