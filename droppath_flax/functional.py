"""drop_path for JAX arrays: a pure function of (x, drop_prob, key).

Works in jit, grad, vmap, scan and remat, under Auto and Explicit meshes: the mask is a function
of the key and of global row indices alone, so a sharded batch gets the mask of the unsharded one.
"""

from typing import SupportsIndex

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from droppath.arguments import (
    Mode,
    ScaleAt,
    check_axis,
    check_keep,
    check_mode,
    check_one_source,
    check_scale_at,
)
from droppath_flax.masks import Key, Offset, Rate, check_rate, keep_mask
from droppath_flax.rows import column, compute_type


def drop_path(
    x: ArrayLike,
    drop_prob: Rate,
    *,
    key: Key | None = None,
    keep: ArrayLike | None = None,
    deterministic: bool = False,
    mode: Mode = "row",
    scale_by_keep: bool = True,
    scale_at: ScaleAt = "train",
    axis: int = 0,
    groups: SupportsIndex = 1,
    offset: Offset = 0,
) -> jax.Array:
    """Return x with randomly chosen samples set to zero, the others divided by 1 - drop_prob.

    y[i] = x[i] / (1 - drop_prob) if keep[i] else 0

    Args:
      x: floating [..., B, ...].
      drop_prob: probability in [0, 1] that a sample is dropped; may be a traced scalar, which is
        not checked, and whose scale is formed in x's compute type.
      key: a JAX key, or uint32 [2] as droppath.key makes it.
      keep: bool [B], the mask itself in place of a key.
      deterministic: True at evaluation: x is returned, nothing is drawn, no key is needed.
      mode: "row", "balanced" or "batch", as in `droppath.keep_mask`.
      scale_by_keep: False leaves kept samples as they are.
      scale_at: "eval" applies the factor 1 - drop_prob at evaluation instead (Huang et al. 2016).
      axis: index of the batch axis.
      groups, offset: as in `keep_mask`.

    Returns: array of x's shape and dtype.
    Raises: ValueError for arguments outside these ranges, and for a missing key.

    >>> drop_path(jnp.ones(4), 0.5, key=jax.random.key(0))
    Array([2., 2., 0., 0.], dtype=float32)

    Source: Huang et al. 2016, arXiv 1603.09382; droppath/SPEC.md.
    """
    x, at, p, keep = checked(x, drop_prob, key, keep, mode, scale_at, axis)
    here = scale_by_keep and (scale_at == "train") != bool(deterministic)  # SCALE-2, SCALE-3
    if deterministic:  # EVAL-1
        return _eval_scaled(x, p, at) if here else x
    if keep is None and not isinstance(p, jax.Array) and p == 0:  # EVAL-2
        return x
    if keep is None:
        keep = draw(key, p, x.shape[at], mode, groups, offset)
    return _select(x, keep & (p < 1), inverse(p, x) if here else None, at)  # DROP-2


def checked(
    x: ArrayLike,
    drop_prob: Rate,
    key: Key | None,
    keep: ArrayLike | None,
    mode: Mode,
    scale_at: ScaleAt,
    axis: int,
) -> tuple[jax.Array, int, Rate, jax.Array | None]:
    """Return x, its batch axis, the rate and the given mask, checked."""
    x = jnp.asarray(x)
    at = check_axis(axis, x.shape, x.dtype.name)
    p = check_rate(drop_prob)
    check_scale_at(scale_at)
    check_mode(mode)
    check_one_source(key, keep)
    if keep is None:
        return x, at, p, None
    keep = jnp.asarray(keep)
    check_keep(keep.shape, keep.dtype.name, x.shape[at])
    return x, at, p, keep


def inverse(p: Rate, x: jax.Array) -> Rate:
    """SCALE-1: 1/(1-p) in float64, or in x's compute type if p is traced; 1 at p = 1."""
    if not isinstance(p, jax.Array):
        return 1 / (1 - p) if p < 1 else 1.0
    keep_prob = 1 - p.astype(compute_type(x))
    return 1 / jnp.where(keep_prob > 0, keep_prob, 1)


def _eval_scaled(x: jax.Array, p: Rate, axis: int) -> jax.Array:
    """SCALE-3: x * (1 - p), and +0 where that is 0."""
    keep_prob = 1 - (p.astype(compute_type(x)) if isinstance(p, jax.Array) else p)
    return _select(x, jnp.full(x.shape[axis], keep_prob > 0), keep_prob, axis)


def _select(x: jax.Array, keep: jax.Array, s: Rate | None, axis: int) -> jax.Array:
    """Return x * s where keep, +0 elsewhere; one rounding to x's dtype (SCALE-1, DROP-1)."""
    compute = compute_type(x)
    y = x if s is None else (x.astype(compute) * jnp.asarray(s, compute)).astype(x.dtype)
    return jnp.where(column(keep, x.ndim, axis), y, jnp.zeros((), x.dtype))  # MASK-1


def draw(
    key: Key | None, p: Rate, batch: int, mode: Mode, groups: SupportsIndex, offset: Offset
) -> jax.Array:
    if key is None:
        raise ValueError("key must be given to drop in training, or keep, got key=None")
    return keep_mask(key, p, batch, mode=mode, groups=groups, offset=offset)
