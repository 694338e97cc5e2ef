"""keyed: every DropPath of a model draws from one explicit key.

Layer l, counted in the order of definition (order.py), draws from fold_in(key, l) (KEY-7), and at
each later call in the block from that key with the call's number folded in (KEY-8). Nothing random
is stored: the same key gives the same masks again. Not here: what a call gets (streams.py), and
Linen, whose model holds no layers before it is called: there, give each layer its key.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import jax
import numpy as np
from flax import nnx
from numpy.typing import NDArray

from droppath_flax.foreign import check_draws
from droppath_flax.layers import check_module, layers_of
from droppath_flax.masks import Offset, as_key, check_first_row, fold_in
from droppath_flax.order import modules_of
from droppath_flax.streams import LayerKey


@contextmanager
def keyed(
    model: nnx.Module,
    key: NDArray[np.uint32] | jax.Array,
    *,
    offset: Offset = 0,
    layers: Sequence[str] | None = None,
) -> Iterator[None]:
    """Within the block, let every DropPath of model draw from key.

    Use one block for each forward, with a key of its own, fold_in(key, step). A layer that is
    called again in it draws another mask (KEY-8), in a second forward too. A `key` or `keep` given
    to a module takes precedence, a stream of its own or of the call does not. On exit, also by an
    exception, the model is as it was.

    The block may lie within `jax.jit`, `nnx.jit`, `nnx.grad`, `nnx.remat` or a scan, around the
    model that is merged or passed there; or outside: the model must then be passed to Flax's
    transforms, which carry its streams, and another key compiles nothing anew. Flax refuses
    functions of JAX that close over the model, by TraceContextError. `nnx.split_rngs` and
    `nnx.scan` over a stack of layers take it for one layer: layer i of the stack draws from
    fold_in(fold_in(key, l), i).

    Args:
      model: the module whose DropPaths draw, the l-th in the order of definition from
        fold_in(key, l).
      key: a JAX key, or uint32 [2] as droppath.key makes it; it may be traced.
      offset: global index of the batch's first row, for a shard or a micro-batch; an integer is
        part of a compiled program, a JAX scalar is data.
      layers: the paths of all DropPaths, where layer l is to be another one than the l-th: those of
        a model in another framework that defines its parts in another order.

    Raises: ValueError for another key, offset or layers, and for a model that holds no DropPath, or
      one of another library.

    >>> import droppath
    >>> import jax.numpy as jnp
    >>> from droppath_flax import DropPath
    >>> model = nnx.Sequential(DropPath(0.5), DropPath(0.5))
    >>> with keyed(model, droppath.key(7)):
    ...     model(jnp.ones(4))
    Array([4., 4., 0., 0.], dtype=float32)
    """
    check_module(model)
    modules = modules_of(model)
    check_draws(modules)
    counted = list(layers_of(model, layers, modules).values())
    typed = as_key(key)
    first = check_first_row(offset, 0, 1)
    before = [layer.rngs for layer in counted]
    try:
        for index, layer in enumerate(counted):
            layer.rngs = LayerKey(fold_in(typed, index), offset=first)
        yield
    finally:
        for layer, stream in zip(counted, before, strict=True):
            layer.rngs = stream
