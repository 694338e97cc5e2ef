"""A trial of a model: a copy is run, and chance plays no part in it; the model itself is not.

What a module holds in lists or dictionaries that NNX does not know of, the copy shares.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from droppath.places import Arguments
from droppath_flax.hooked import hook
from droppath_flax.modules import DropPath
from droppath_flax.order import GRAPH, modules_of


def copied(model: nnx.Module, args: Any, kwargs: Any) -> tuple[nnx.Module, Any, Any]:
    """Return a copy of a model and its arguments, whose modules are hooked and drop nothing out."""
    args, kwargs = jax.tree.map(_as_array, (args, kwargs), is_leaf=is_node)
    copy: tuple[nnx.Module, Any, Any] = nnx.clone((model, args, kwargs), **GRAPH)
    for module in modules_of(copy[0]).values():
        for name in ("rate", "dropout_rate"):  # what it draws for fewer rows cannot be compared
            if isinstance(module, nnx.Dropout | nnx.MultiHeadAttention) and hasattr(module, name):
                setattr(module, name, 0.0)
        if callable(module):
            hook(module)
    return copy


def _as_array(value: Any) -> Any:
    """Return an array on one device: the trial's groups are not those that devices share."""
    is_key = isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jax.dtypes.prng_key)
    if is_key or not isinstance(value, np.ndarray | jax.Array):
        return value
    return jnp.asarray(np.asarray(value))


def is_node(value: Any) -> bool:
    """Return whether NNX takes a value for a module or a variable."""
    return isinstance(value, nnx.Pytree | nnx.Variable)


def shown(given: Arguments, keep_arrays: bool) -> Arguments:
    """Return arguments with the shapes of traced arrays in their place, or of all: they are large.

    Modules stay as they are, but for those of a transform.
    """
    traced = any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(given))

    def shape_of(x: Any) -> Any:
        is_shown = isinstance(x, jax.core.Tracer if keep_arrays else jax.Array)
        return jax.ShapeDtypeStruct(x.shape, x.dtype) if is_shown else x

    through = traced and keep_arrays
    found: Arguments = jax.tree.map(shape_of, given, is_leaf=None if through else is_node)
    return found


def stand_in(x: Any) -> Any:
    """Return an array in place of a shape."""
    if not isinstance(x, jax.ShapeDtypeStruct):
        return x
    if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        return jnp.broadcast_to(jax.random.key(0), x.shape)
    if jnp.issubdtype(x.dtype, jnp.floating):
        return jax.random.normal(jax.random.key(0), x.shape, x.dtype)
    return jnp.ones(x.shape, x.dtype) if x.dtype == bool else jnp.zeros(x.shape, x.dtype)


def other_parameters(params: nnx.State) -> nnx.State:
    """Return other parameters, that stand in: of zeros nothing is seen.

    LayerScale's 1e-5 and norms that begin at 0 get values that can be seen.
    """
    leaves, tree = jax.tree.flatten(params)
    return jax.tree.unflatten(tree, [_another(p, i) for i, p in enumerate(leaves)])


def _another(p: jax.Array, index: int) -> jax.Array:
    fan_in = p[..., 0].size if p.ndim > 1 and p.shape[-1] else 1
    noise = np.random.default_rng(index).standard_normal(p.shape, np.float32)
    return p + jnp.asarray(0.5 * max(fan_in, 1) ** -0.5 * noise, p.dtype)


def fixed_masks(model: nnx.Module, rate: float) -> None:
    """Let every DropPath drop, by masks that are the same in each run of a copy of the model.

    At a rate of a half "balanced" keeps some rows and drops some, and runs a spare of an odd batch.
    """
    drops = [module for module in modules_of(model).values() if isinstance(module, DropPath)]
    for i, drop in enumerate(drops):
        drop.drop_prob = nnx.static(rate)
        drop.mode, drop.groups, drop.deterministic = "balanced", 1, False
        shape = () if drop.rngs is None else drop.rngs.key.shape  # a stack of layers has many
        keys = jax.random.split(jax.random.key(i), shape) if shape else jax.random.key(i)
        drop.rngs = nnx.data(nnx.RngStream(keys, tag="dropout"))
