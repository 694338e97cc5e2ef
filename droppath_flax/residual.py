"""drop_path_residual for JAX arrays: a residual block that does not compute what it drops.

Works where `drop_path` does. Which rows run is droppath_flax/rows.py's.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, SupportsIndex, TypeAlias, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

from droppath.arguments import (
    Mode,
    ScaleAt,
    check_branch,
    check_callable,
    check_flags,
    check_groups,
    check_per_sample,
    check_shards,
    check_skip,
)
from droppath.masks import group_capacity
from droppath.scaling import scales
from droppath_flax.conditional import add_if, unmapped
from droppath_flax.functional import (
    as_array,
    as_mask,
    check_call,
    draw_keep,
    draws_nothing,
    keep_prob,
    scale,
)
from droppath_flax.masks import Draw, Key, Offset, Rate, drop_threshold
from droppath_flax.rows import (
    Rows,
    add_rows,
    pick_rows,
    select_sum,
    shards,
    take_rows,
    where,
)

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
        "batch" mode an `nnx.Module` may change its state, but not its parameters (`nnx.Param`); a
        function must be pure.
      per_sample: further arguments of the branch, pytrees of arrays [B, ...], gathered with x.
      skip: None skips where that can be; True raises ValueError where it cannot; False computes all
        rows and selects. What is skipped is differentiated in reverse; "balanced" takes a drop_prob
        that is no JAX array to skip; "batch" computes all under a vmap of its draw.
      keep: bool [B]. A traced `keep` with mode="balanced" and skip=True is not checked. If it keeps
        more rows than kept_capacity, the surplus rows are dropped silently. With skip=None it is
        masked.
      groups: for "balanced", the number of equal contiguous groups of the batch. Let it be a
        multiple of the devices that share the batch: no row leaves its device then. Other numbers
        are refused where the type of x says how it is shared, on an Explicit mesh.
      drop_prob, key, deterministic, mode, scale_by_keep, scale_at, axis, offset: as in `drop_path`.

    Returns: array of x's shape and dtype, whatever dtype the branch returns.
    Raises: ValueError for arguments outside these ranges, and for a missing key.

    >>> drop_path_residual(jnp.ones(4), jnp.negative, 0.5, key=jax.random.key(0))
    Array([ 1., -1.,  1., -1.], dtype=float32)

    Source: Huang et al. 2016, arXiv 1603.09382; Oquab et al. 2023, arXiv 2304.07193, section 5.
    """
    check_flags(deterministic=deterministic, scale_by_keep=scale_by_keep)
    x, mask = as_array(x, "x must be"), None if keep is None else as_mask(keep, "keep must be")
    draw = Draw(key, mask, mode, groups, offset)
    at, p = check_call(x, drop_prob, draw, scale_at, axis)
    check_callable(branch)
    check_skip(skip)
    per_sample = jax.tree.map(partial(as_array, must="per_sample must be"), per_sample)
    check_per_sample([leaf.shape for leaf in jax.tree.leaves(per_sample)], x.shape[at])
    scaled = scales(not deterministic, scale_by_keep, scale_at)  # SCALE-2, SCALE-3
    s: Rate
    if deterministic or draws_nothing(p, draw):  # EVAL-1, EVAL-2
        s = keep_prob(p, x) if scaled and deterministic else 1.0
        return _add_all(branch, x, *per_sample, keep=jnp.full(x.shape[at], s > 0), s=s, axis=at)
    kept, run_all = _decide(draw, p, skip, x, at)
    s = scale(p, x) if scaled else 1.0
    if run_all:
        return _add_all(branch, x, *per_sample, keep=kept, s=s, axis=at)
    if mode == "batch":
        runs = kept.any()
        add = partial(_add_all, keep=kept, s=s, axis=at)
        return add_if(unmapped(runs) if skip else runs, add, branch, x, *per_sample)
    rows = _rows_that_run(kept, draw, p)
    return x if rows is None else _add_kept(branch, x, per_sample, rows, cast(float, s), at)


def rows_of_branch(draw: Draw, p: Rate, x: jax.Array, axis: int) -> Rows | None:
    """Return which rows of x a branch runs on, for whom adds elsewhere; None if all, undrawn.

    What `check_call` checks is checked; p is above 0.
    """
    batch = x.shape[axis]
    groups = check_groups(draw.groups, batch)
    if draw.mode != "balanced" or _why_all_rows(draw, p, None, batch // groups):
        return None
    capacity = _capacity(p, batch // groups)
    if capacity == batch // groups:
        return None
    check_shards(groups, shards(x, axis))
    return pick_rows(draw_keep(draw, p, batch), max(capacity, 1), groups)  # RES-4: p = 1


def _decide(
    draw: Draw, p: Rate, skip: bool | None, x: jax.Array, axis: int
) -> tuple[jax.Array, bool]:
    """Return the mask, and whether the branch runs on all rows; refuse before anything is drawn."""
    batch = x.shape[axis]
    groups = check_groups(draw.groups, batch)
    group_size = batch // groups
    why = _why_all_rows(draw, p, skip, group_size)
    check_skip(skip, why)
    run_all = skip is False or bool(why)
    if draw.mode == "balanced" and not run_all:
        run_all = _capacity(p, group_size) == group_size
        check_shards(groups, 1 if run_all else shards(x, axis))
    return draw_keep(draw, p, batch), run_all


def _why_all_rows(draw: Draw, p: Rate, skip: bool | None, group_size: int) -> str:
    """Return why the branch must run on all rows, or nothing if it need not."""
    if draw.mode == "row":
        return "a program is compiled for a number of rows, and mode='row' draws that number"
    if draw.mode == "batch":
        return ""
    if isinstance(p, jax.Array):
        return "the number of rows is static, and drop_prob is a JAX array"
    if draw.keep is None:
        return ""
    if isinstance(draw.keep, jax.core.Tracer):
        return "" if skip else "keep is traced, and may keep any number of rows"
    most = _capacity(p, group_size)
    if group_size and (np.asarray(draw.keep).reshape(-1, group_size).sum(1) > most).any():
        return f"keep keeps more than the {most} rows of a group that mode='balanced' runs"
    return ""


def _rows_that_run(keep: jax.Array, draw: Draw, p: Rate) -> Rows | None:
    """Return the rows that "balanced" runs (RES-4), None if it runs none."""
    groups = check_groups(draw.groups, len(keep))
    capacity = _capacity(p, len(keep) // groups)
    return pick_rows(keep, capacity, groups) if capacity else None


def _add_kept(
    branch: Branch, x: jax.Array, per_sample: Any, rows: Rows, s: float, axis: int
) -> jax.Array:
    """Run the branch on the rows that are kept, and on the spares, and add what is kept."""
    taken = jax.tree.map(lambda leaf: take_rows(leaf, rows, 0), per_sample)  # RES-6
    return add_rows(x, _run(branch, take_rows(x, rows, axis), taken), rows, s, axis)


def _capacity(p: Rate, group_size: int) -> int:
    return group_capacity(cast(int, drop_threshold(p)), group_size)


def _add_all(
    branch: Branch, x: jax.Array, *per_sample: Any, keep: jax.Array, s: Rate, axis: int
) -> jax.Array:
    """Run the branch on all rows; what it makes of dropped ones reaches no value or gradient."""

    def cut(x: jax.Array, axis: int) -> jax.Array:  # the gradient, where the row is dropped
        return where(keep, x, lax.stop_gradient(x), axis)

    f = _run(branch, cut(x, axis), jax.tree.map(lambda leaf: cut(leaf, 0), per_sample))
    return select_sum(x, f, keep, s, axis)


def _run(branch: Branch, x: jax.Array, per_sample: Any) -> jax.Array:
    f = as_array(branch(x, *per_sample), "branch must return")
    check_branch(f.shape, f.dtype.name, x.shape)
    return f
