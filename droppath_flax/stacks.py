"""drop_path_stack for JAX: layers of one form one after the other, of which a plan runs some.

The layers that run are gathered once, and a scan runs exactly so many: one program for all plans.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, SupportsIndex, overload

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
    check_word,
)
from droppath.plans import check_plan, check_stack, planned_depth, thresholds
from droppath.scaling import scales
from droppath.schedules import GRID
from droppath_flax.functional import as_array, as_mask, keep_prob, scale
from droppath_flax.plans import Key, Rates, layer_plan
from droppath_flax.rows import compute_type, scaled_sum
from droppath_flax.stacking import unlike


@overload
def drop_path_stack(
    x: ArrayLike,
    branch: Callable[[Any, jax.Array], jax.Array],
    params: Any,
    rates: Rates,
    *,
    state: None = None,
    key: Key | None = None,
    plan: ArrayLike | None = None,
    depth: SupportsIndex | None = None,
    deterministic: bool = False,
    scale_by_keep: bool = True,
    scale_at: ScaleAt = "train",
) -> jax.Array: ...
@overload
def drop_path_stack(
    x: ArrayLike,
    branch: Callable[[Any, Any, jax.Array], tuple[jax.Array, Any]],
    params: Any,
    rates: Rates,
    *,
    state: Any,
    key: Key | None = None,
    plan: ArrayLike | None = None,
    depth: SupportsIndex | None = None,
    deterministic: bool = False,
    scale_by_keep: bool = True,
    scale_at: ScaleAt = "train",
) -> tuple[jax.Array, Any]: ...
def drop_path_stack(
    x: ArrayLike,
    branch: Callable[..., Any],
    params: Any,
    rates: Rates,
    *,
    state: Any = None,
    key: Key | None = None,
    plan: ArrayLike | None = None,
    depth: SupportsIndex | None = None,
    deterministic: bool = False,
    scale_by_keep: bool = True,
    scale_at: ScaleAt = "train",
) -> jax.Array | tuple[jax.Array, Any]:
    """Return x after a stack of layers, x = x + branch(params[l], x) / (1 - rates[l]), in part.

    A plan says which layers run. A program runs exactly `droppath.planned_depth(rates)` of them, in
    every step and by one scan: their parameters are gathered before it. If the sum of the rates is
    no whole number, one of them is a spare at times, whose result is selected away.

    Args:
      x: floating [B, ...].
      branch: what a layer adds, [B, ...] to the same shape, a pure function of the layer's
        parameters. For a whole block with its own additions that is block(x) - x. Wrapped in
        `jax.checkpoint`, it is computed again for the gradient.
      params: pytree of arrays [L, ...], the parameters of each layer, as `stack_layers` or
        `nnx.vmap` make them.
      rates: the drop_prob of each layer, L numbers in [0, 1]. A JAX array is data of the program,
        which needs `depth` to train.
      state: pytree of arrays [L, ...] that the layers change, as BatchNorm's statistics. Then
        branch(params[l], state[l], x) returns a pair, what the layer adds and its new state. A
        layer that does not run keeps its state.
      key: draws the plan, as in `layer_plan`.
      plan: bool [L], the plan itself in place of a key. One that is traced is not checked: what it
        runs beyond the planned depth is dropped.
      depth: how many layers the program runs in training, where rates is a JAX array: their planned
        depth, or more. If the rates are traced this is not checked: what a plan runs beyond it is
        dropped.
      deterministic: True runs all layers, without a key.
      scale_by_keep, scale_at: as in `drop_path`, for each layer.

    Returns: array of x's shape and dtype; with `state` a pair, the array and the new states.
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
    layers = _count(params, "params")
    _count(state, "state", layers)
    check_stack(_known(rates), layers, key, plan, not deterministic, jax.Array)
    s = _factors(rates, x, scales(not deterministic, scale_by_keep, scale_at), deterministic)
    if deterministic:
        counts = None if isinstance(s, np.ndarray) and s.all() else s > 0
        y, after = _scan(branch, x, (params, state), counts, s)
        return y if state is None else (y, after)
    runs, most, spare = _runs(rates, key, plan, _depth(rates, depth, layers))
    y, after = x, state
    if most:
        order = jnp.argsort(~runs, stable=True)[:most]  # those that run in order, then spares
        place = jnp.clip(jnp.cumsum(runs) - 1, 0, most - 1)
        taken = jax.tree.map(partial(_take, order=order, place=place, runs=runs), (params, state))
        y, after = _scan(branch, x, taken, runs[order] if spare else None, jnp.asarray(s)[order])
        after = jax.tree.map(lambda new, old: _where(runs, new[place], old), after, state)
    return y if state is None else (y, after)


def _count(arrays: Any, name: str, layers: int | None = None) -> int:
    """Return the number of layers, of state only if it is given."""
    shapes = [as_array(leaf, f"{name} must be").shape for leaf in jax.tree.leaves(arrays)]
    sizes = {shape[0] if shape else None for shape in shapes} | ({layers} - {None})
    if len(sizes) != 1 or None in sizes:
        of_one = "of one L" if layers is None else f"with L = {layers}"
        raise ValueError(f"{name} must be arrays [L, ...] {of_one}, got shapes {shapes}")
    return int(sizes.pop() or 0)


def _known(rates: Rates) -> Rates:
    """Return rates as NumPy's, if they are an array of JAX that is no tracer."""
    known = isinstance(rates, jax.Array) and not isinstance(rates, jax.core.Tracer)
    return np.asarray(rates) if known else rates


def _depth(rates: Rates, depth: SupportsIndex | None, layers: int) -> int:
    """Return how many layers a program runs in training."""
    if not isinstance(rates, jax.Array):
        if depth is not None:
            raise ValueError(f"depth must be None where rates is no JAX array, got {depth!r}")
        return planned_depth(rates)
    known = _known(rates)
    least = 0 if isinstance(known, jax.Array) else planned_depth(known)
    if depth is None or not least <= check_word(depth, "depth") <= layers:
        must = f"depth must be in [{least}, {layers}] where rates is a JAX array"
        raise ValueError(f"{must}, got {depth}")
    return int(depth)


def _factors(rates: Rates, x: jax.Array, scaled: bool, deterministic: bool) -> Any:
    """Return the factor of each layer, [L], 1 where nothing is scaled."""
    if not scaled:
        return np.ones(len(rates))
    factor = keep_prob if deterministic else scale
    if isinstance(rates, jax.Array):
        return factor(rates, x)
    return np.array([factor(float(p), x) for p in rates])


def _runs(
    rates: Rates, key: Key | None, plan: ArrayLike | None, depth: int
) -> tuple[jax.Array, int, bool]:
    """Return the plan, how many layers a program runs, and whether one may be a spare."""
    if key is not None:
        whole = not isinstance(rates, jax.Array) and int(thresholds(rates).sum()) % GRID == 0
        return layer_plan(key, rates), depth, not whole
    given = as_mask(plan, "plan must be")
    check_plan(given.shape, given.dtype.name, len(rates))
    if not isinstance(given, jax.core.Tracer):
        depth = max(depth, int(np.asarray(given).sum()))
    return given & (jnp.asarray(rates) < 1), depth, True  # PURE-3


def _scan(branch: Any, x: jax.Array, layers: tuple[Any, Any], runs: Any, s: Any) -> Any:
    """Return x after these layers, and their states; runs: which of them count, None if all do."""

    def step(x: jax.Array, layer: tuple[Any, Any, Any, Any]) -> tuple[jax.Array, Any]:
        params, state, run, s = layer
        given = x if run is None else jnp.where(run, x, lax.stop_gradient(x))
        f, after = _called(branch, params, state, given)
        y = scaled_sum(x, f, s)
        if run is None:
            return y, after
        return jnp.where(run, y, x), jax.tree.map(partial(_where, run), after, state)

    return lax.scan(step, x, (*layers, runs, jnp.asarray(s, compute_type(x))))


def _called(branch: Any, params: Any, state: Any, x: jax.Array) -> tuple[jax.Array, Any]:
    """Return what a layer adds, and its new state."""
    if state is None:
        returned = branch(params, x), None
    else:
        returned = branch(params, state, x)
        if not isinstance(returned, tuple) or len(returned) != 2:
            raise ValueError(f"branch must return a pair, (f, state), got {returned!r}")
        if different := unlike(state, returned[1]):
            raise ValueError(f"branch must return a state of the form it is given, {different}")
    f = as_array(returned[0], "branch must return")
    check_branch(f.shape, f.dtype.name, x.shape)
    return f, returned[1]


def _where(run: jax.Array, new: jax.Array, old: jax.Array) -> jax.Array:
    """Return new where run, bool [] or [L], old elsewhere."""
    return jnp.where(run.reshape(*run.shape, *[1] * (new.ndim - run.ndim)), new, old)


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
