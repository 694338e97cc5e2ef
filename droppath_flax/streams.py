"""What a module draws from where it is given no key: a stream of `nnx.Rngs`, by its name.

Nothing is drawn here: a call that is refused must not advance a stream.
"""

from typing import Any

import jax
import numpy as np
from flax import nnx

from droppath.arguments import check_source
from droppath_flax.masks import Key, as_key


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
