"""What the checks of GRAD must reject."""

import numpy as np

from conformance.mutant import REFERENCE, answering, mutant, nan_at_1
from conformance.protocol import Array, Call


def fresh_mask(call: Call, dy: Array, keep: Array) -> Array:
    """Return the gradient under a mask of another key."""
    return REFERENCE.backward(call, dy, np.roll(keep, 1))


MUTANTS = (
    mutant("NaN gradient at p = 1", "GRAD-3", run=answering(dx=lambda c, o: nan_at_1(c, o.dx))),
    mutant("another mask backward", "GRAD-1 GRAD-2", backward=fresh_mask),
)
