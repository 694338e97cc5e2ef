"""Keep masks as JAX arrays, equal bit for bit to droppath.keep_mask (areas KEY and BAL).

The rate, the offset and the key may be traced; batch, mode and groups are static.
"""

from typing import Any, SupportsIndex, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend.random import threefry2x32_p
from numpy.typing import NDArray

from droppath.arguments import (
    Mode,
    check_batch,
    check_drop_prob,
    check_groups,
    check_key,
    check_mode,
    check_offset,
)
from droppath.masks import DRAW_BITS, drop_threshold

Key: TypeAlias = NDArray[np.uint32] | jax.Array
Rate: TypeAlias = float | jax.Array
Offset: TypeAlias = SupportsIndex | jax.Array

# (group size) * T is formed in two uint32 words of 12 and 11 bits where drop_prob is traced.
LOW_BITS = 11
LARGEST_TRACED_GROUP = (1 << 32 >> (DRAW_BITS - LOW_BITS)) - 1


def keep_mask(
    key: Key,
    drop_prob: Rate,
    batch: SupportsIndex,
    *,
    mode: Mode = "row",
    groups: SupportsIndex = 1,
    offset: Offset = 0,
) -> jax.Array:
    """Return the mask that key draws: True where the sample's path is kept.

    "row" is `jax.random.bernoulli(key, jnp.float32(drop_prob), (batch,))`, inverted, bit for bit.

    Args:
      key: a JAX key, or uint32 [2] as droppath.key makes it, taken as a Threefry key.
      drop_prob: probability in [0, 1] that a path is dropped; a traced scalar is not checked.
      batch: number of samples B.
      mode: "row", "balanced" or "batch", as in `droppath.keep_mask`.
      groups: for "balanced", the number of equal contiguous groups of the batch.
      offset: global index of the first row, an integer or a traced scalar; for "balanced" a
        multiple of the group's size.

    Returns: bool [B].
    Raises: ValueError for arguments outside these ranges; for an offset with a key that is not
      Threefry's, whose draws cannot be indexed.

    >>> keep_mask(jax.random.key(0), 0.5, 4)
    Array([ True,  True, False, False], dtype=bool)
    """
    typed, size = as_key(key), check_batch(batch)
    check_mode(mode)
    group = size // check_groups(groups, size)
    first = _first_row(offset, size, group if mode == "balanced" else 1)
    drops = _threshold(drop_prob)
    if mode == "row":  # KEY-2
        return _draws(_random_bits(typed, size, first)) >= drops
    if mode == "batch":  # KEY-3
        return jnp.broadcast_to(_draws(_random_bits(typed, 1, 0)) >= drops, (size,))
    return _balanced(typed, drops, size, group, first) if size else jnp.ones((0,), bool)


def as_key(key: Key) -> jax.Array:
    """Return a scalar JAX key of a JAX key or of uint32 [2] (clause ARG-5)."""
    words: Any = key if isinstance(key, jax.Array) else np.asarray(key)
    if not jnp.issubdtype(words.dtype, jax.dtypes.prng_key):
        check_key(words.shape, words.dtype.name)
        words = jax.random.wrap_key_data(words, impl="threefry2x32")
    if words.shape:
        raise ValueError(f"key must be one key, got keys of shape {words.shape}")
    return words


def check_rate(drop_prob: Rate) -> Rate:
    """Return drop_prob as a float, or as it is if it is a JAX scalar, whose value stays unread."""
    if not isinstance(drop_prob, jax.Array):
        return check_drop_prob(drop_prob)
    if drop_prob.shape or not jnp.issubdtype(drop_prob.dtype, jnp.floating):
        given = f"{drop_prob.dtype.name} of shape {drop_prob.shape}"
        raise ValueError(f"drop_prob must be a floating scalar, got {given}")
    return lax.stop_gradient(drop_prob)


def _first_row(offset: Offset, batch: int, group: int) -> int | jax.Array:
    """Return offset as an int, or as it is if it is a JAX scalar, whose value stays unread."""
    if not isinstance(offset, jax.Array):
        return check_offset(offset, batch, group)
    if offset.shape or not jnp.issubdtype(offset.dtype, jnp.integer):
        given = f"{offset.dtype.name} of shape {offset.shape}"
        raise ValueError(f"offset must be an integer scalar, got {given}")
    return offset


def _threshold(drop_prob: Rate) -> int | jax.Array:
    """Return T = ceil(float32(drop_prob) * 2**23), an integer or a uint32 scalar."""
    p = check_rate(drop_prob)
    if not isinstance(p, jax.Array):
        return int(drop_threshold(p))
    return jnp.ceil(p.astype(jnp.float32) * (1 << DRAW_BITS)).astype(jnp.uint32)


def _draws(bits: jax.Array) -> jax.Array:
    """Return bits >> 9: uniform integers in [0, 2**23)."""
    return bits >> (32 - DRAW_BITS)


def _random_bits(key: jax.Array, num: int, offset: int | jax.Array) -> jax.Array:
    """Return uint32 [num], droppath.random_bits where key is Threefry's (KEY-1)."""
    if jax.random.key_impl(key) != "threefry2x32":
        if isinstance(offset, jax.Array) or offset:
            raise ValueError(f"offset must be 0 for a key of {jax.random.key_impl(key)}")
        return jax.random.bits(key, (num,), jnp.uint32)
    high, first = _counter_words(offset)
    low = lax.iota(jnp.uint32, num) + first
    carry = (low < first).astype(jnp.uint32)
    k0, k1 = jax.random.key_data(key)
    y0, y1 = threefry2x32_p.bind(
        jnp.broadcast_to(k0, num), jnp.broadcast_to(k1, num), carry + high, low
    )
    return y0 ^ y1


def _counter_words(offset: int | jax.Array) -> tuple[Any, Any]:
    """Return the upper and the lower uint32 word of a counter."""
    if not isinstance(offset, jax.Array):
        return np.uint32(offset >> 32), np.uint32(offset & 0xFFFFFFFF)
    high = offset >> 32 if offset.dtype.itemsize == 8 else jnp.zeros((), jnp.uint32)
    return high.astype(jnp.uint32), offset.astype(jnp.uint32)


def _balanced(
    key: jax.Array, drops: int | jax.Array, batch: int, group: int, offset: int | jax.Array
) -> jax.Array:
    """KEY-4: keep the b - m rows of each group of b with the smallest (bits, index)."""
    dropped, rest = _times_threshold(group, drops)
    up = _draws(_random_bits(jax.random.fold_in(key, 1), batch // group, offset // group)) < rest
    bits = _random_bits(jax.random.fold_in(key, 0), batch, offset).reshape(-1, group)
    rank = jnp.argsort(jnp.argsort(bits, stable=True))
    kept = group - (dropped + up.astype(jnp.int32))
    return (rank < kept[:, None]).reshape(batch)


def _times_threshold(group: int, drops: int | jax.Array) -> tuple[Any, Any]:
    """Return group * T divided by 2**23, and the rest, without a 64-bit integer."""
    if not isinstance(drops, jax.Array):
        return divmod(group * drops, 1 << DRAW_BITS)
    if group > LARGEST_TRACED_GROUP:
        most = f"at most {LARGEST_TRACED_GROUP} rows each"
        raise ValueError(f"groups must leave {most} for a traced drop_prob, got {group}")
    low = group * (drops & ((1 << LOW_BITS) - 1))
    high = group * (drops >> LOW_BITS) + (low >> LOW_BITS)
    rest = (high << LOW_BITS | low & ((1 << LOW_BITS) - 1)) & ((1 << DRAW_BITS) - 1)
    return (high >> (DRAW_BITS - LOW_BITS)).astype(jnp.int32), rest
