"""The reference: what a DropPath computes, line by line against SPEC.md.

Plain NumPy, for reading and for checking others. Any floating dtype, also one that a library adds
to NumPy (ml_dtypes' bfloat16). Not here: drawing a mask (masks.py), speed, autograd.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from droppath.arguments import (
    ScaleAt,
    check_axis,
    check_drop_prob,
    check_keep,
    check_scale_at,
)

Array = NDArray[Any]


def drop_path(
    x: Array,
    keep: NDArray[np.bool_],
    drop_prob: float,
    *,
    training: bool = True,
    scale_by_keep: bool = True,
    scale_at: ScaleAt = "train",
    axis: int = 0,
) -> Array:
    """Return x with the samples that are not kept set to zero, the others times 1/(1 - drop_prob).

    y[i] = x[i] * s if keep[i] else +0

    Args:
      x: floating [..., B, ...].
      keep: bool [B], True where the path is kept; plays no part unless training.
      drop_prob: probability in [0, 1] that a path is dropped.
      training: False gives x, times 1 - drop_prob if scale_at is "eval".
      scale_by_keep: whether there is a factor s at all, else s = 1.
      scale_at: "train": s = 1/(1 - drop_prob) in training; "eval": the factor is 1 - drop_prob,
        in evaluation (Huang et al. 2016).
      axis: index of the batch axis.

    Returns: array of x's shape and dtype.
    Raises: ValueError for arguments outside these ranges.

    >>> drop_path(np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([True, False]), 0.5)
    array([[2., 4.],
           [0., 0.]])
    """
    at = _batch_axis(x, keep, scale_at, axis)
    mask, s = _mask_and_scale(keep, drop_prob, training, scale_by_keep, scale_at)
    compute = _compute_type(x)
    # inf is the rounded product; dropped rows are multiplied too, and may hold anything
    with np.errstate(over="ignore", invalid="ignore"):
        kept = (x.astype(compute) * compute(s)).astype(x.dtype)  # SCALE-1, TYPE-1
    column = mask.reshape([-1 if i == at else 1 for i in range(x.ndim)])  # MASK-1
    return np.where(column, kept, np.zeros((), x.dtype))  # DROP-1: select, since inf * 0 is NaN


def drop_path_vjp(dy: Array, keep: NDArray[np.bool_], drop_prob: float, **options: Any) -> Array:
    """Return dx for the gradient dy of `drop_path`'s result: the same map, since it is linear.

    dx[i] = dy[i] * s if keep[i] else +0 (GRAD-1). Arguments, result and errors as in `drop_path`.

    >>> drop_path_vjp(np.ones(2), np.array([True, False]), 0.5)
    array([2., 0.])
    """
    return drop_path(dy, keep, drop_prob, **options)


def drop_path_residual(
    x: Array,
    branch: Callable[[Array], Array],
    keep: NDArray[np.bool_],
    drop_prob: float,
    *,
    training: bool = True,
    scale_by_keep: bool = True,
    scale_at: ScaleAt = "train",
    axis: int = 0,
) -> Array:
    """Return x + s * branch(x) on kept samples, x bit for bit on the others.

    branch: maps floating [..., n, ...] to the same shape, each sample by itself; it is called with
    the kept samples only, and not at all if there are none. Other arguments and errors as in
    `drop_path`. Returns an array of x's shape and dtype, whatever dtype the branch returns.

    >>> drop_path_residual(np.array([1.0, 3.0]), np.negative, np.array([True, False]), 0.5)
    array([-1.,  3.])
    """
    at = _batch_axis(x, keep, scale_at, axis)
    mask, s = _mask_and_scale(keep, drop_prob, training, scale_by_keep, scale_at)
    rows = (slice(None),) * at + (mask,)
    y = x.copy()  # RES-2
    if mask.any():
        f = branch(x[rows])
        compute = _compute_type(x)
        y[rows] = x[rows].astype(compute) + compute(s) * f.astype(compute)  # RES-1, RES-3
    return y


def _mask_and_scale(
    keep: NDArray[np.bool_],
    drop_prob: float,
    training: bool,
    scale_by_keep: bool,
    scale_at: ScaleAt,
) -> tuple[NDArray[np.bool_], float]:
    """Return the samples whose branch counts, and its factor s, in float64."""
    p = check_drop_prob(drop_prob)
    here = scale_by_keep and (scale_at == "train") == bool(training)  # SCALE-2, SCALE-3
    if training:
        s = 1.0 / (1.0 - p) if here and p < 1 else 1.0  # SCALE-1
        return keep & (p < 1), s  # DROP-2: at p = 1 nothing is kept
    s = 1.0 - p if here else 1.0
    return np.full_like(keep, s > 0), s  # EVAL-1


def _batch_axis(x: Array, keep: NDArray[np.bool_], scale_at: ScaleAt, axis: int) -> int:
    check_scale_at(scale_at)
    at = check_axis(axis, x.shape, x.dtype.name)
    check_keep(keep.shape, keep.dtype.name, x.shape[at])
    return at


def _compute_type(x: Array) -> type[np.floating[Any]]:
    return np.float64 if x.dtype == np.float64 else np.float32
