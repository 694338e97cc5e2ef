"""The reference: what a DropPath computes, line by line against SPEC.md.

Plain NumPy, for reading and for checking others. Any floating dtype, also one that a library adds
to NumPy (ml_dtypes' bfloat16). Not here: what is drawn and which rows run (decisions.py), the bits
of a mask (masks.py), speed, autograd.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from droppath.arguments import (
    ScaleAt,
    check_axis,
    check_branch,
    check_callable,
    check_drop_prob,
    check_flags,
    check_keep,
    check_per_sample,
    check_scale_at,
)
from droppath.scaling import inverse_keep_prob, scales

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
    return _drop_path("x", x, keep, drop_prob, training, scale_by_keep, scale_at, axis)


def drop_path_vjp(
    dy: Array,
    keep: NDArray[np.bool_],
    drop_prob: float,
    *,
    training: bool = True,
    scale_by_keep: bool = True,
    scale_at: ScaleAt = "train",
    axis: int = 0,
) -> Array:
    """Return dx for the gradient dy of `drop_path`'s result: the same map, since it is linear.

    dx[i] = dy[i] * s if keep[i] else +0 (GRAD-1). Arguments, result and errors as in `drop_path`.

    >>> drop_path_vjp(np.ones(2), np.array([True, False]), 0.5)
    array([2., 0.])
    """
    # GRAD-1, GRAD-2, GRAD-3: one map, one mask
    return _drop_path("dy", dy, keep, drop_prob, training, scale_by_keep, scale_at, axis)


def _drop_path(
    name: str,
    x: Array,
    keep: NDArray[np.bool_],
    drop_prob: float,
    training: bool,
    scale_by_keep: bool,
    scale_at: ScaleAt,
    axis: int,
) -> Array:
    at = _batch_axis(name, x, keep, scale_at, axis)
    mask, s = _mask_and_scale(keep, drop_prob, training, scale_by_keep, scale_at)
    compute = _compute_type(x)
    # inf is the rounded product; dropped rows are multiplied too, and may hold anything
    with np.errstate(over="ignore", invalid="ignore"):
        kept = (x.astype(compute) * compute(s)).astype(x.dtype)  # SCALE-1, TYPE-1, PURE-1
    zero = np.zeros((), x.dtype)
    # DROP-1: select, since inf * 0 is NaN; MASK-2, TYPE-2: of any rank, and of x's shape
    return np.where(_column(mask, x.ndim, at), kept, zero)


def drop_path_residual(
    x: Array,
    branch: Callable[..., Array],
    keep: NDArray[np.bool_],
    drop_prob: float,
    *per_sample: Array,
    run: NDArray[np.bool_] | None = None,
    training: bool = True,
    scale_by_keep: bool = True,
    scale_at: ScaleAt = "train",
    axis: int = 0,
) -> Array:
    """Return x + s * branch(x, *per_sample) on kept samples, x bit for bit on the others.

    branch: maps floating [..., n, ...] to the same shape, each sample by itself; it is called with
    the kept samples and those of `run`, bool [B], and not at all if there are none. per_sample:
    [B, ...] each, whose rows follow those of x. Other arguments and errors as in `drop_path`.
    Returns an array of x's shape and dtype, whatever dtype the branch returns.

    >>> drop_path_residual(np.array([1.0, 3.0]), np.negative, np.array([True, False]), 0.5)
    array([-1.,  3.])
    """
    options = training, scale_by_keep, scale_at, axis
    return _residual("x", x, "branch", branch, keep, drop_prob, per_sample, run, *options)


def drop_path_residual_vjp(
    dy: Array,
    branch_vjp: Callable[..., Array],
    keep: NDArray[np.bool_],
    drop_prob: float,
    *per_sample: Array,
    run: NDArray[np.bool_] | None = None,
    training: bool = True,
    scale_by_keep: bool = True,
    scale_at: ScaleAt = "train",
    axis: int = 0,
) -> Array:
    """Return dx for the gradient dy of `drop_path_residual`'s result: the same map of dy.

    dx[i] = dy[i] + s * branch_vjp(dy, *per_sample)[i] if keep[i] else dy[i] (RES-7). branch_vjp:
    returns J^T dy for rows of dy, J the derivative of the branch; where J depends on x, x is one of
    per_sample. Other arguments, result and errors as in `drop_path_residual`.

    >>> drop_path_residual_vjp(np.ones(2), np.negative, np.array([True, False]), 0.5)
    array([-1.,  1.])
    """
    options = training, scale_by_keep, scale_at, axis
    return _residual("dy", dy, "branch_vjp", branch_vjp, keep, drop_prob, per_sample, run, *options)


def _residual(
    name: str,
    x: Array,
    branch_name: str,
    branch: Callable[..., Array],
    keep: NDArray[np.bool_],
    drop_prob: float,
    per_sample: tuple[Array, ...],
    run: NDArray[np.bool_] | None,
    training: bool,
    scale_by_keep: bool,
    scale_at: ScaleAt,
    axis: int,
) -> Array:
    at = _batch_axis(name, x, keep, scale_at, axis)
    check_callable(branch, branch_name)
    _check_keep(keep if run is None else run, x.shape[at], "run")
    check_per_sample([_array("per_sample", a).shape for a in per_sample], x.shape[at])
    mask, s = _mask_and_scale(keep, drop_prob, training, scale_by_keep, scale_at)
    ran = mask if run is None else mask | run
    rows = (slice(None),) * at + (ran,)
    y = x.copy()  # RES-2
    if ran.any():  # RES-4
        taken = x[rows]
        f = _array(branch_name, branch(taken, *(argument[ran] for argument in per_sample)))  # RES-6
        check_branch(f.shape, f.dtype.name, taken.shape, branch_name)
        compute = _compute_type(x)
        with np.errstate(over="ignore", invalid="ignore"):
            kept = taken.astype(compute) + compute(s) * f.astype(compute)  # RES-1
            # RES-3: of x's dtype; RES-4, RES-5: what a spare row gives is not used
            y[rows] = np.where(_column(mask[ran], x.ndim, at), kept, taken)
    return y


def _mask_and_scale(
    keep: NDArray[np.bool_],
    drop_prob: float,
    training: bool,
    scale_by_keep: bool,
    scale_at: ScaleAt,
) -> tuple[NDArray[np.bool_], float]:
    """Return the samples whose branch counts, and its factor s, in float64."""
    p = check_drop_prob(drop_prob)  # ARG-1
    check_flags(training=training, scale_by_keep=scale_by_keep)
    scaled = scales(training, scale_by_keep, scale_at)
    if training:
        return keep & (p < 1), inverse_keep_prob(p) if scaled else 1.0  # DROP-2: none at p = 1
    s = 1.0 - p if scaled else 1.0  # SCALE-3
    return np.full_like(keep, s > 0), s  # EVAL-1


def _batch_axis(name: str, x: Array, keep: NDArray[np.bool_], scale_at: ScaleAt, axis: int) -> int:
    check_scale_at(scale_at)
    at = check_axis(axis, _array(name, x).shape, x.dtype.name, name)  # ARG-2
    _check_keep(keep, x.shape[at], "keep")
    return at


def _check_keep(keep: object, batch: int, name: str) -> None:
    mask = keep if isinstance(keep, np.ndarray) else np.asarray(None)
    text = mask.dtype.name if mask is keep else type(keep).__name__
    check_keep(mask.shape, text, batch, name)  # ARG-4


def _array(name: str, x: object) -> Array:
    if not isinstance(x, np.ndarray):
        verb = "return" if name.startswith("branch") else "be"
        raise ValueError(f"{name} must {verb} a NumPy array, got {type(x).__name__}")
    return x


def _column(mask: NDArray[np.bool_], ndim: int, axis: int) -> NDArray[np.bool_]:
    return mask.reshape([-1 if i == axis else 1 for i in range(ndim)])  # MASK-1


def _compute_type(x: Array) -> type[np.floating[Any]]:
    return np.float64 if x.dtype == np.float64 else np.float32
