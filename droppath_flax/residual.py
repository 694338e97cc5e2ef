"""drop_path_residual for JAX arrays: a residual block that does not compute what it drops.

Works where `drop_path` does. Which rows run is droppath_flax/rows.py's.
"""

import operator
from collections.abc import Callable
from functools import partial
from typing import Any, SupportsIndex, TypeAlias, cast

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen, nnx
from jax import lax
from jax.custom_batching import custom_vmap
from jax.typing import ArrayLike

from droppath.arguments import (
    Mode,
    ScaleAt,
    check_branch,
    check_groups,
    check_per_sample,
    check_skip,
)
from droppath.masks import kept_capacity
from droppath_flax.functional import checked, draw, inverse
from droppath_flax.masks import Key, Offset, Rate
from droppath_flax.rows import Rows, add_rows, column, pick_rows, select_sum, take_rows

Branch: TypeAlias = Callable[..., jax.Array]


def drop_path_residual(
    x: ArrayLike,
    branch: Branch,
    drop_prob: Rate,
    *per_sample: Any,
    key: Key | None = None,
    keep: ArrayLike | None = None,
    deterministic: bool = False,
    mode: Mode = "balanced",
    skip: bool | None = None,
    scale_by_keep: bool = True,
    scale_at: ScaleAt = "train",
    axis: int = 0,
    groups: SupportsIndex = 1,
    offset: Offset = 0,
) -> jax.Array:
    """Return x + branch(x) / (1 - drop_prob) on the samples that are kept, x on the others.

    What is dropped is not computed, where that can be: "balanced" runs the branch on exactly
    `droppath.kept_capacity` rows, "batch" runs it or not (`lax.cond`), "row" computes all, since
    the number of rows is not known when the program is compiled. The result is that of masking, for
    branches that treat each sample by itself: BatchNorm does not, and sees the rows that run.

    Args:
      x: floating [..., B, ...].
      branch: maps [..., n, ...], and per_sample, to the same shape; n is B or kept_capacity. In
        "batch" mode an `nnx.Module` may change its state; a function must be pure.
      per_sample: further arguments of the branch, pytrees of arrays [B, ...], gathered with x.
      skip: None skips where that can be; True raises ValueError where it cannot; False computes all
        rows and selects. Skipping "balanced" takes a drop_prob that is no JAX array and a branch
        that is differentiated in reverse; "batch" computes all under a vmap of its draw.
      keep: bool [B]. Traced, and "balanced" with skip=True, it is not checked to keep at most
        kept_capacity rows: others are taken for dropped. With skip=None it is masked.
      groups: for "balanced", the number of equal contiguous groups of the batch. Where it is a
        multiple of the devices that share the batch, no row leaves its device.
      drop_prob, key, deterministic, mode, scale_by_keep, scale_at, axis, offset: as in `drop_path`.

    Returns: array of x's shape and dtype, whatever dtype the branch returns.
    Raises: ValueError for arguments outside these ranges, and for a missing key.

    >>> drop_path_residual(jnp.ones(4), jnp.negative, 0.5, key=jax.random.key(0))
    Array([ 1., -1.,  1., -1.], dtype=float32)

    Source: Huang et al. 2016, arXiv 1603.09382; Oquab et al. 2023, arXiv 2304.07193, section 5.
    """
    x, at, p, given = checked(x, drop_prob, key, keep, mode, scale_at, axis)
    check_skip(skip)
    check_per_sample([jnp.shape(leaf) for leaf in jax.tree.leaves(per_sample)], x.shape[at])
    here = scale_by_keep and (scale_at == "train") != bool(deterministic)  # SCALE-2, SCALE-3
    static = not isinstance(p, jax.Array)
    if deterministic or (given is None and static and p == 0):  # EVAL-1, EVAL-2
        q = 1 - p if deterministic and here else 1
        return _add_all(branch, x, per_sample, jnp.full(x.shape[at], q > 0), q, at)
    keep = draw(key, p, x.shape[at], mode, groups, offset) if given is None else given
    keep, s = keep & (p < 1), inverse(p, x) if here else 1.0  # DROP-2
    all_rows = _why_all_rows(mode, p, len(keep), given, skip, groups)
    check_skip(skip, all_rows)
    if skip is False or all_rows:
        return _add_all(branch, x, per_sample, keep, s, at)
    if mode == "batch":
        kept = keep.any()
        return _add_if(_unmapped(kept) if skip else kept, branch, x, per_sample, keep, s, at)
    capacity = kept_capacity(cast(float, p), len(keep), groups=groups)
    if not capacity:
        return x
    if capacity == len(keep):
        return _add_all(branch, x, per_sample, keep, s, at)
    count = operator.index(groups)
    rows = pick_rows(keep, capacity // count, count)
    return _add_kept(branch, x, per_sample, rows, cast(float, s), at)


def _why_all_rows(
    mode: Mode,
    p: Rate,
    batch: int,
    given: jax.Array | None,
    skip: bool | None,
    groups: SupportsIndex,
) -> str:
    """Return why the branch must run on all rows, or nothing if it need not."""
    if mode == "row":
        return "a program is compiled for a number of rows, and mode='row' draws that number"
    if mode == "batch":
        return ""
    if isinstance(p, jax.Array):
        return "the number of rows is static, and drop_prob is a JAX array"
    if isinstance(given, jax.core.Tracer):
        return "" if skip else "keep is traced, and may keep any number of rows"
    size = batch // check_groups(groups, batch)
    most = kept_capacity(p, size)
    if given is not None and (np.asarray(given).reshape(-1, size or 1).sum(1) > most).any():
        return f"keep keeps more than the {most} rows of a group that mode='balanced' runs"
    return ""


def _add_all(
    branch: Branch, x: jax.Array, per_sample: Any, keep: jax.Array, s: Rate, axis: int
) -> jax.Array:
    """Run the branch on all rows; what it makes of dropped ones reaches no value or gradient."""

    def cut(x: jax.Array, axis: int) -> jax.Array:  # the gradient, where the row is dropped
        return jnp.where(column(keep, x.ndim, axis), x, lax.stop_gradient(x))

    f = _run(branch, cut(x, axis), jax.tree.map(lambda leaf: cut(leaf, 0), per_sample))
    return select_sum(x, f, keep, s, axis)


def _add_if(
    kept: jax.Array,
    branch: Branch,
    x: jax.Array,
    per_sample: Any,
    keep: jax.Array,
    s: Rate,
    axis: int,
) -> jax.Array:
    """Run the branch if kept; if not, the state of a module stays as it is."""

    def add(branch: Branch, x: jax.Array, *per_sample: Any) -> jax.Array:
        return _add_all(branch, x, per_sample, keep, s, axis)

    def stay(branch: Branch, x: jax.Array, *per_sample: Any) -> jax.Array:
        return x

    if isinstance(branch, nnx.Module):
        return nnx.cond(kept, add, stay, branch, x, *per_sample)
    if isinstance(branch, linen.Module):
        return linen.cond(kept, add, stay, branch, x, *per_sample)
    return lax.cond(kept, partial(add, branch), partial(stay, branch), x, *per_sample)


@custom_vmap
def _unmapped(kept: jax.Array) -> jax.Array:
    """Return kept, one draw; refuse one for each element of a vmap."""
    return kept


@_unmapped.def_vmap
def _(size: int, batched: Any, kept: jax.Array) -> Any:
    check_skip(True, "under a vmap of the draw both sides of a condition run")


def _add_kept(
    branch: Branch, x: jax.Array, per_sample: Any, rows: Rows, s: float, axis: int
) -> jax.Array:
    """Run the branch on the rows that are kept, and on the spares (RES-4)."""
    taken = jax.tree.map(lambda leaf: take_rows(leaf, rows, 0), per_sample)
    return add_rows(x, _run(branch, take_rows(x, rows, axis), taken), rows, s, axis)


def _run(branch: Branch, x: jax.Array, per_sample: Any) -> jax.Array:
    f = jnp.asarray(branch(x, *per_sample))
    check_branch(f.shape, x.shape)
    return f
