"""drop_path for JAX arrays: a pure function of (x, drop_prob, key).

Works in jit, grad, vmap, scan and remat, under Auto and Explicit meshes: the mask is a function
of the key and of global row indices alone, so a sharded batch gets the mask of the unsharded one.
"""

from typing import Any, SupportsIndex, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from droppath.arguments import (
    Mode,
    ScaleAt,
    check_axis,
    check_flags,
    check_groups,
    check_keep,
    check_mode,
    check_one_source,
    check_scale_at,
    check_source,
)
from droppath.scaling import inverse_keep_prob, scales
from droppath_flax.masks import Draw, Key, Offset, Rate, check_first_row, check_rate, keep_mask
from droppath_flax.rows import compute_type, select


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
      drop_prob: probability in [0, 1] that a sample is dropped; may be a JAX scalar, which is
        not checked, and whose scale is formed in x's compute type.
      key: a JAX key, uint32 [2] as droppath.key makes it, or an nnx.RngStream, which gives its
        next key only where a mask is drawn.
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
    check_flags(deterministic=deterministic, scale_by_keep=scale_by_keep)
    x, mask = as_array(x, "x must be"), None if keep is None else as_mask(keep, "keep must be")
    draw = Draw(key, mask, mode, groups, offset)
    at, p = check_call(x, drop_prob, draw, scale_at, axis)
    scaled = scales(not deterministic, scale_by_keep, scale_at)  # SCALE-2, SCALE-3
    if deterministic:  # EVAL-1
        return _scaled_in_evaluation(x, p, at) if scaled else x
    if draws_nothing(p, draw):  # EVAL-2
        return x
    return select(x, draw_keep(draw, p, x.shape[at]), scale(p, x) if scaled else 1.0, at)


def check_call(
    x: jax.Array, drop_prob: Rate, draw: Draw, scale_at: ScaleAt, axis: int
) -> tuple[int, Rate]:
    """Return x's batch axis and the rate, once all is checked that needs no draw (area ARG)."""
    at = check_axis(axis, x.shape, x.dtype.name)
    p = check_rate(drop_prob)
    check_scale_at(scale_at)
    check_mode(draw.mode)
    check_groups(draw.groups, 0)  # whether it divides the batch is seen when a mask is drawn
    check_first_row(draw.offset, 0, 1)
    check_one_source(draw.key, draw.keep)
    if draw.keep is not None:
        check_keep(draw.keep.shape, draw.keep.dtype.name, x.shape[at])
    return at, p


def draws_nothing(p: Rate, draw: Draw) -> bool:
    """Return whether a call in training is the identity: a rate of 0, no mask given (EVAL-2)."""
    return draw.keep is None and is_zero(p)


def is_zero(p: Rate) -> bool:
    """Return whether a rate is known to be 0; one in a JAX array is not read."""
    return not isinstance(p, jax.Array) and p == 0


def draw_keep(draw: Draw, p: Rate, batch: int) -> jax.Array:
    """Return the mask of a call in training, none kept at p = 1 (DROP-2): bool [B]."""
    keep, mode, groups, offset = draw.keep, draw.mode, draw.groups, draw.offset
    if keep is None:
        check_source(draw.key)
        keep = keep_mask(cast(Key, draw.key), p, batch, mode=mode, groups=groups, offset=offset)
    return keep & (p < 1) if isinstance(p, jax.Array) or p == 1 else keep


def scale(p: Rate, x: jax.Array) -> Rate:
    """SCALE-1: 1/(1-p) in float64, or in x's compute type if p is traced; 1 at p = 1."""
    if not isinstance(p, jax.Array):
        return inverse_keep_prob(p)
    q = keep_prob(p, x)
    return 1 / jnp.where(q > 0, q, 1)


def keep_prob(p: Rate, x: jax.Array) -> Rate:
    """SCALE-3: q = 1 - p in float64, or in x's compute type if p is a JAX array."""
    return 1 - (p.astype(compute_type(x)) if isinstance(p, jax.Array) else p)


def _scaled_in_evaluation(x: jax.Array, p: Rate, axis: int) -> jax.Array:
    """SCALE-3: x * (1 - p), and +0 where that is 0."""
    q = keep_prob(p, x)
    return select(x, jnp.full(x.shape[axis], q > 0), q, axis)


def as_array(value: Any, must: str) -> jax.Array:
    """Return value as a JAX array, or refuse it by `must`, such as "x must be"."""
    try:
        return jnp.asarray(value)
    except (TypeError, ValueError, OverflowError) as error:
        given = f" of {value.dtype}" if isinstance(value, np.ndarray) else ""
        kind = f"{type(value).__name__}{given}"
        raise ValueError(f"{must} an array of numbers, got {kind}") from error


def as_mask(value: Any, must: str) -> jax.Array:
    """Return `as_array` of a mask or a plan: no tracer, within `jax.jit` too, if the host knows it.

    So it can be read there, and what it says is refused or heeded as in an eager call.
    """
    if isinstance(value, jax.core.Tracer):
        return value
    with jax.ensure_compile_time_eval():
        return as_array(value, must)
