"""What a module draws from where it is given no key: its key within `keyed`, or a named stream.

Nothing is drawn here: a call that is refused must not advance a stream.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from droppath.arguments import check_source
from droppath_flax.masks import Key, Offset, as_key, fold_in


class LayerKey(nnx.RngStream):
    """The stream of one layer within `keyed`.

    Call c = 0, 1, ... gets key if c = 0, and fold_in(key, c + 1) after it (KEY-8). c is a variable,
    as the count of any stream is: Flax's transforms carry it, so that a program is compiled once,
    and refuse where it would be lost.
    """

    def __init__(self, key: jax.Array, *, tag: str = "droppath", offset: Offset = 0) -> None:
        super().__init__(key, tag=tag)
        self.offset = nnx.data(offset) if isinstance(offset, jax.Array) else offset

    def __call__(self) -> jax.Array:
        """Return the key of the next call."""
        key, call = self.key[...], self.count[...]
        self.count[...] = call + 1
        return jnp.where(call == 0, key, fold_in(key, call + 1))


def check_offset_of_keyed(offset: Offset) -> None:
    """Raise for an offset of a call that draws from a LayerKey, which has its own."""
    if isinstance(offset, jax.Array) or offset:
        raise ValueError(f"offset must be given to keyed, which draws here, got {offset!r}")


def stream_of(rngs: Any, rng_collection: str) -> nnx.RngStream | None:
    """Return the stream that a module is made with, if any."""
    stream = _named(rngs, rng_collection)
    if not isinstance(stream, nnx.RngStream | None):
        raise TypeError(f"rngs must be Rngs, an RngStream or None, got {type(rngs).__name__}")
    return stream


def source_of(rngs: Any, rng_collection: str) -> Key:
    """Return the stream or the key that a call draws from; raise if there is none."""
    source = _named(rngs, rng_collection)
    check_source(source, "keep or rngs")
    if isinstance(source, jax.Array | np.ndarray):
        return as_key(source, "rngs")
    if not isinstance(source, nnx.RngStream):
        raise TypeError(f"rngs must be Rngs, an RngStream or a key, got {type(rngs).__name__}")
    as_key(source.key[...], "rngs")
    return source


def check_collection(rng_collection: object) -> None:
    """Raise unless rng_collection can be the name of a stream."""
    if not isinstance(rng_collection, str):
        raise ValueError(f"rng_collection must be a text, got {rng_collection!r}")


def _named(rngs: Any, rng_collection: str) -> Any:
    """Return the stream of this name if rngs is an Rngs, else rngs."""
    check_collection(rng_collection)
    if not isinstance(rngs, nnx.Rngs):
        return rngs
    if rng_collection not in rngs and "default" not in rngs:
        names = ", ".join(name for name, _ in rngs.items()) or "none"
        wanted = f"a stream {rng_collection!r}, or 'default'"
        raise ValueError(f"rngs must have {wanted}, got {names}")
    return rngs[rng_collection]
