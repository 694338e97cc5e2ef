"""Depth plans as JAX arrays, equal bit for bit to droppath.layer_plan (area PLAN).

The key and the rates may be traced; the number of layers is static.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, TypeAlias, overload

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from numpy.typing import NDArray

from droppath import plans
from droppath.schedules import GRID
from droppath_flax.masks import as_key, draw23, fold_in, random_bits

Key: TypeAlias = NDArray[np.uint32] | jax.Array
Rates: TypeAlias = Sequence[float] | NDArray[np.floating[Any]] | jax.Array
Stages: TypeAlias = Sequence[Rates]


@overload
def layer_plan(key: Key, rates: Rates) -> jax.Array: ...
@overload
def layer_plan(key: Key, rates: Stages) -> list[jax.Array]: ...
def layer_plan(key: Any, rates: Rates | Stages) -> jax.Array | list[jax.Array]:
    """Return which layers run: True where a layer runs, False where it is dropped.

    P(layer l is dropped) is that of `keep_mask` at rates[l], and the number that runs is
    `droppath.planned_depth(rates)` or one less: always the former if the sum of the rates is a
    whole number (`droppath.drop_path_rates(..., whole=True)`).

    Args:
      key: a JAX key, or uint32 [2] as droppath.key makes it, taken as a Threefry key.
      rates: the drop_prob of each of L layers, as a list or as an array, which may be traced and is
        not checked then; or a list of them for each stage, whose plan is drawn from
        fold_in(key, stage).

    Returns: bool [L], or a list with one for each stage.
    Raises: ValueError for a rate outside [0, 1], no layer, a key that is none.

    >>> layer_plan(jax.random.key(1), [0.0, 0.25, 0.5, 0.25])
    Array([ True,  True, False,  True], dtype=bool)

    Source: Madow 1949, Annals of Mathematical Statistics 20(3); droppath/SPEC.md, area PLAN.
    """
    of_layers = [_thresholds(stage) for stage in plans.stages_of(rates, jax.Array)]
    typed = as_key(key)
    if not plans.is_nested(rates, jax.Array):
        return _plan(typed, of_layers[0])
    return [_plan(fold_in(typed, s), stage) for s, stage in enumerate(of_layers)]  # PLAN-4


def _thresholds(rates: Rates) -> jax.Array | NDArray[np.uint32]:
    """Return the T of each layer of a stage: uint32 [L]."""
    if not isinstance(rates, jax.Array):
        return plans.thresholds(rates).astype(np.uint32)
    if not jnp.issubdtype(rates.dtype, jnp.floating):
        raise ValueError(f"rates must be floating, got {rates.dtype.name}")
    return jnp.ceil(lax.stop_gradient(rates).astype(jnp.float32) * GRID).astype(jnp.uint32)


@partial(jax.jit, inline=True)
def _plan(key: jax.Array, of_layers: jax.Array) -> jax.Array:
    """PLAN-1, with sums that may wrap: 2^32 is a multiple of the grid."""
    first = np.uint32(0), np.uint32(0)
    order = jnp.argsort(random_bits(fold_in(key, 0), len(of_layers), first), stable=True)
    size = of_layers[order]
    u = draw23(random_bits(fold_in(key, 1), 1, first))
    begin = (jnp.cumsum(size, dtype=jnp.uint32) - size + u) % GRID
    return (begin + size < GRID)[jnp.argsort(order)]
