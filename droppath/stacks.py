"""A stack of residual layers under a depth plan, in NumPy (SPEC.md, area STACK).

Not here: the plan itself (plans.py), and the layer, which is a residual block that keeps all of its
batch (reference.py).
"""

from collections.abc import Callable, Iterable
from functools import partial

import numpy as np
from numpy.typing import NDArray

from droppath.arguments import ScaleAt, check_branches, check_flags
from droppath.plans import Rates, check_plan, check_stack
from droppath.reference import Array, drop_path_residual


def drop_path_stack(
    x: Array,
    branches: Iterable[Callable[[Array], Array]],
    plan: NDArray[np.bool_],
    rates: Rates,
    *,
    training: bool = True,
    scale_by_keep: bool = True,
    scale_at: ScaleAt = "train",
) -> Array:
    """Return x after a stack of layers, x = x + branch(x) / (1 - rate) for each that the plan runs.

    A layer that the plan drops is not called. In evaluation all layers run, whatever the plan.

    Args:
      x: floating [B, ...].
      branches: L callables, each [B, ...] to the same shape: what the layer adds.
      plan: bool [L], as `layer_plan` draws it.
      rates: the drop_prob of each layer, L numbers in [0, 1].
      training, scale_by_keep, scale_at: as in `drop_path`, for each layer.

    Returns: array of x's shape and dtype.
    Raises: ValueError for arguments outside these ranges.

    For linear branches the gradient is the same map of dy, with all three lists reversed.

    >>> plan = np.array([True, False, True])
    >>> drop_path_stack(np.zeros(1), [np.ones_like] * 3, plan, [0.0, 0.5, 0.5])
    array([3.])

    Source: Huang et al. 2016, arXiv 1603.09382.
    """
    check_flags(training=training)
    called = check_branches(branches)
    check_stack(rates, len(called), None, plan, training)
    check_plan(np.shape(plan), np.asarray(plan).dtype.name, len(called))
    layer = partial(
        drop_path_residual, training=training, scale_by_keep=scale_by_keep, scale_at=scale_at
    )
    every = np.full(np.shape(x)[:1], True)
    for branch, p, runs in zip(called, rates, plan, strict=True):
        if runs or not training:  # STACK-2, STACK-3: no other is called
            x = layer(x, branch, every, p)  # STACK-1
    return x
