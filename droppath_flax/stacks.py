"""drop_path_stack for JAX: layers of one form one after the other, of which a plan runs some.

The layers that run are gathered once, and a scan runs exactly so many: one program for all plans.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

from droppath.arguments import (
    ScaleAt,
    check_axis,
    check_branch,
    check_callable,
    check_flags,
    check_scale_at,
)
from droppath.plans import check_plan, check_stack, planned_depth, thresholds
from droppath.scaling import inverse_keep_prob, scales
from droppath.schedules import GRID
from droppath_flax.functional import as_array
from droppath_flax.plans import Key, layer_plan
from droppath_flax.rows import compute_type, scaled_sum


def drop_path_stack(
    x: ArrayLike,
    branch: Callable[[Any, jax.Array], jax.Array],
    params: Any,
    rates: Any,
    *,
    key: Key | None = None,
    plan: ArrayLike | None = None,
    deterministic: bool = False,
    scale_by_keep: bool = True,
    scale_at: ScaleAt = "train",
) -> jax.Array:
    """Return x after a stack of layers, x = x + branch(params[l], x) / (1 - rates[l]), in part.

    A plan says which layers run. A program runs exactly `droppath.planned_depth(rates)` of them, in
    every step and by one scan: their parameters are gathered before it. If the sum of the rates is
    no whole number, one of them is a spare at times, whose result is selected away.

    Args:
      x: floating [B, ...].
      branch: what a layer adds, [B, ...] to the same shape, a pure function of the layer's
        parameters. For a whole block with its own additions that is block(x) - x. Wrapped in
        `jax.checkpoint`, it is computed again for the gradient.
      params: pytree of arrays [L, ...], the parameters of each layer, as `nnx.vmap` or
        `jax.tree.map(jnp.stack, ...)` make them.
      rates: the drop_prob of each layer, L numbers in [0, 1], which the host knows.
      key: draws the plan, as in `layer_plan`.
      plan: bool [L], the plan itself in place of a key. One that is traced is not checked: what it
        runs beyond the planned depth is dropped.
      deterministic: True runs all layers, without a key.
      scale_by_keep, scale_at: as in `drop_path`, for each layer.

    Returns: array of x's shape and dtype.
    Raises: ValueError for arguments outside these ranges, and for a missing key.

    >>> def branch(weight, x):
    ...     return jnp.full_like(x, weight)
    >>> rates = [0.5] * 4  # two layers run, each twofold
    >>> drop_path_stack(jnp.zeros(1), branch, jnp.ones(4), rates, key=jax.random.key(0))
    Array([4.], dtype=float32)

    Source: Huang et al. 2016, arXiv 1603.09382; droppath/SPEC.md, area PLAN.
    """
    check_flags(deterministic=deterministic, scale_by_keep=scale_by_keep)
    check_scale_at(scale_at)
    x = as_array(x, "x must be")
    check_axis(0, x.shape, x.dtype.name)
    check_callable(branch)
    layers = _count(params)
    check_stack(rates, layers, key, plan, not deterministic)
    scaled = scales(not deterministic, scale_by_keep, scale_at)  # SCALE-2, SCALE-3
    if deterministic:
        s = np.array([1.0 - p if scaled else 1.0 for p in rates])
        return _scan(branch, x, params, s > 0, s)
    s = np.array([inverse_keep_prob(p) if scaled else 1.0 for p in rates])
    depth = planned_depth(rates)
    if key is None:
        given = as_array(plan, "plan must be")
        check_plan(given.shape, given.dtype.name, layers)
        depth = depth if isinstance(given, jax.core.Tracer) else max(depth, int(given.sum()))
        runs = given & (np.array([*rates]) < 1)  # PURE-3
    else:
        runs = layer_plan(key, rates)
    if not depth:
        return x
    spare = key is None or int(thresholds(rates).sum()) % GRID != 0
    order = jnp.argsort(~runs, stable=True)[:depth]  # those that run, in their order, then a spare
    place = jnp.clip(jnp.cumsum(runs) - 1, 0, depth - 1)
    taken = jax.tree.map(partial(_take, order=order, place=place, runs=runs), params)
    return _scan(branch, x, taken, runs[order] if spare else None, jnp.asarray(s)[order])


def _count(params: Any) -> int:
    """Return the number of layers."""
    shapes = [as_array(leaf, "params must be").shape for leaf in jax.tree.leaves(params)]
    sizes = {shape[0] if shape else None for shape in shapes}
    if len(sizes) != 1 or None in sizes:
        raise ValueError(f"params must be arrays [L, ...] of one L, got shapes {shapes}")
    return int(sizes.pop() or 0)


def _scan(branch: Any, x: jax.Array, params: Any, runs: Any, s: Any) -> jax.Array:
    """Return x after these layers; runs: which of them count, None if all do."""

    def step(x: jax.Array, layer: tuple[Any, Any, Any]) -> tuple[jax.Array, None]:
        params, run, s = layer
        given = x if run is None else jnp.where(run, x, lax.stop_gradient(x))
        f = as_array(branch(params, given), "branch must return")
        check_branch(f.shape, f.dtype.name, x.shape)
        y = scaled_sum(x, f, s)
        return (y if run is None else jnp.where(run, y, x)), None

    return lax.scan(step, x, (params, runs, jnp.asarray(s, compute_type(x))))[0]


def _take(leaf: ArrayLike, order: jax.Array, place: jax.Array, runs: jax.Array) -> jax.Array:
    """Return the rows of a leaf of the layers that run."""
    array = jnp.asarray(leaf)
    floating = jnp.issubdtype(array.dtype, jnp.floating)
    return _gather(array, order, place, runs) if floating else array[order]


@jax.custom_vjp
def _gather(array: jax.Array, order: jax.Array, place: jax.Array, runs: jax.Array) -> jax.Array:
    return array.at[order].get(mode="promise_in_bounds")


def _gather_fwd(array: jax.Array, *plan: jax.Array) -> Any:
    return _gather(array, *plan), plan[1:]


def _gather_bwd(saved: Any, given: jax.Array) -> Any:
    """Gather too, which XLA does faster than it scatters; what a spare has got is left out."""
    place, runs = saved
    rows = given.at[place].get(mode="promise_in_bounds")
    column = runs.reshape(-1, *[1] * (given.ndim - 1))
    return jnp.where(column, rows, jnp.zeros((), given.dtype)), None, None, None


_gather.defvjp(_gather_fwd, _gather_bwd)
