"""What the checks of GRAD must reject."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from conformance.mutant import REFERENCE, Part, answering, mutant, nan_at_1
from conformance.protocol import Array, Call


def fresh_mask(call: Call, dy: Array, keep: Array) -> Array:
    """Return the gradient under a mask of another key."""
    return REFERENCE.backward(call, dy, np.roll(keep, 1))


def backward_with(wrong: Callable[[Call], bool], **options: Any) -> Part:
    """Return a `backward` of drop_path with other options where a call is so."""

    def backward(call: Call, dy: Array, keep: Array) -> Array:
        if call.op == "drop_path" and wrong(call):
            call = replace(call, options={**call.options, **options})
        return REFERENCE.backward(call, dy, keep)

    return backward


def identity_at_0(call: Call, dy: Array, keep: Array) -> Array:
    """Return the gradient, and dy where p is 0, also if a mask is given."""
    return REFERENCE.backward(call, dy, keep) if call.drop_prob else dy


def another_mask_of_a_key(call: Call, dy: Array, keep: Array) -> Array:
    """Return the gradient, under another mask where a key is given."""
    return REFERENCE.backward(call, dy, keep if call.key is None else np.roll(keep, 1))


def zero_at_1(call: Call, dy: Array, keep: Array) -> Array:
    """Return the gradient, and 0 at p = 1, of blocks too."""
    dx = REFERENCE.backward(call, dy, keep)
    return dx * 0 if call.drop_prob == 1 and call.op == "residual" and call.training else dx


def inherited_nan(call: Call, dy: Array, keep: Array) -> Array:
    """Return the gradient, and dy * 0 at p = 1."""
    if not (call.drop_prob == 1 and call.op == "drop_path" and call.training):
        return REFERENCE.backward(call, dy, keep)
    with np.errstate(invalid="ignore"):
        return dy * np.zeros((), dy.dtype)


MUTANTS = (
    mutant(
        "a gradient of balanced masks without the factor",
        "GRAD-1",
        backward=backward_with(lambda c: c.options.get("mode") == "balanced", scale_by_keep=False),
    ),
    mutant(
        "a gradient along another axis without the factor",
        "GRAD-1",
        backward=backward_with(lambda c: bool(c.options.get("axis")), scale_by_keep=False),
    ),
    mutant(
        "a gradient not scaled in evaluation",
        "GRAD-1",
        backward=backward_with(lambda c: not c.training, scale_by_keep=False),
    ),
    mutant(
        "a gradient that is scaled all the same",
        "GRAD-1",
        backward=backward_with(lambda c: True, scale_by_keep=True),
    ),
    mutant("a gradient that is dy at p = 0", "GRAD-1", backward=identity_at_0),
    mutant("another mask backward with a key", "GRAD-2", backward=another_mask_of_a_key),
    mutant("no gradient of a block at p = 1", "GRAD-3", backward=zero_at_1),
    mutant("0 * inf in the gradient at p = 1", "GRAD-3", backward=inherited_nan),
    mutant("NaN gradient at p = 1", "GRAD-3", run=answering(dx=lambda c, o: nan_at_1(c, o.dx))),
    mutant("another mask backward", "GRAD-1 GRAD-2", backward=fresh_mask),
    mutant(
        "a balanced mask along another axis, one row off backward",
        "GRAD-2",
        backward=lambda c, dy, keep: REFERENCE.backward(
            c, dy, np.roll(keep, c.options.get("mode") == "balanced" and "axis" in c.options)
        ),
    ),
)
