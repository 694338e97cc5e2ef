"""summary: which layers of a model drop paths, how, and what they skip, as a table in plain text.

Not here: anything that changes the model.
"""

from typing import Any, cast

import jax
from flax import nnx

from droppath.layers import Layer, Summary, what_skips
from droppath_flax.foreign import is_theirs
from droppath_flax.functional import is_zero
from droppath_flax.keyed import keyed
from droppath_flax.layers import check_module, dotted, drops_of, layers_of
from droppath_flax.modules import DropPath, DropPathResidual
from droppath_flax.order import modules_of
from droppath_flax.streams import LayerKey


def summary(model: nnx.Module, *example: Any, **kwargs: Any) -> Summary:
    """Return what drops paths in a model: path, class, rate, mode, calls, and what is skipped.

    Listed are DropPaths of ours, in the order in which `keyed` counts them, then those of other
    libraries.

    Args:
      model: any module.
      example, kwargs: arguments of the model, as in training. Given some, a copy of it is traced
        with them, with a rate of 0.5 in each layer, and the calls that draw are counted.

    Raises: ValueError for what is no module; what the model raises for the example.

    >>> import jax.numpy as jnp
    >>> model = nnx.Sequential(DropPath(0.1), DropPathResidual(jnp.tanh, 0.2))
    >>> print(summary(model, jnp.ones(2)))
    path      class             rate   mode      calls  skips
    layers.0  DropPath          0.100  row       1      no: see skip_dropped
    layers.1  DropPathResidual  0.200  balanced  1      rows that are dropped
    """
    check_module(model)
    modules = modules_of(model)
    theirs = [(path, m) for path, m in modules.items() if is_theirs(m)]
    ours = drops_of(modules)
    calls = _counted(model, example, kwargs) if ours and (example or kwargs) else {}
    lines = [
        Layer(of or "model", kind(m), _rate(m), m.mode, calls.get(of), _skips(m))
        for of, m in ours.items()
    ]
    text = "no: put a droppath_flax.DropPath in its place"
    lines += [Layer(dotted(path) or "model", kind(m), None, None, None, text) for path, m in theirs]
    return Summary(tuple(lines))


def kind(module: nnx.Module) -> str:
    """Return the name of a module's class."""
    return type(module).__name__


def _rate(layer: DropPath) -> float | None:
    """Return the rate of a layer, None where only the program knows it."""
    p = layer.drop_prob
    return None if isinstance(p, jax.core.Tracer) else float(p)


def _skips(layer: DropPath) -> str:
    why_not = "the rate is 0" if is_zero(layer.drop_prob) else ""
    if isinstance(layer.drop_prob, jax.Array) and layer.mode == "balanced":
        why_not = "the rate is a JAX array"
    why_not = "mode is 'row'" if layer.mode == "row" else why_not
    return what_skips(layer, isinstance(layer, DropPathResidual), why_not)


def _counted(model: nnx.Module, example: Any, kwargs: Any) -> dict[str, int]:
    """Return how often a forward in training calls each layer."""
    copy = nnx.clone(model)
    for layer in layers_of(copy).values():
        layer.drop_prob, layer.deterministic = 0.5, False
    graphdef, state = nnx.split(copy)

    @jax.jit  # what comes of the counts alone is compiled
    def counts(state: Any) -> dict[str, jax.Array]:
        merged = nnx.merge(graphdef, state)
        with keyed(merged, jax.random.key(0)):
            merged(*example, **kwargs)
            streams = {path: cast(LayerKey, m.rngs) for path, m in layers_of(merged).items()}
        return {path: stream.count[...] for path, stream in streams.items()}

    return {path: int(count) for path, count in counts(state).items()}
