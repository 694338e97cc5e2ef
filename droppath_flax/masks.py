"""Keep masks as JAX arrays, equal bit for bit to droppath.keep_mask (areas KEY and BAL).

The rate, the offset and the key may be traced; batch, mode and groups are static.
"""

from functools import partial
from typing import Any, NamedTuple, SupportsIndex, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax
from numpy.typing import NDArray

from droppath import masks as host_masks
from droppath.arguments import (
    Mode,
    check_batch,
    check_drop_prob,
    check_groups,
    check_key,
    check_mode,
    check_offset,
    check_scalar,
)
from droppath.masks import DRAW_BITS
from droppath.random import PARITY, ROTATIONS

Key: TypeAlias = NDArray[np.uint32] | jax.Array | nnx.RngStream
Rate: TypeAlias = float | jax.Array
Offset: TypeAlias = SupportsIndex | jax.Array
Words: TypeAlias = tuple[Any, Any]  # integers of 32 bits, on the host or in a JAX array

# (group size) * T is formed in two uint32 words of 12 and 11 bits where drop_prob is traced.
LOW_BITS = 11
LARGEST_TRACED_GROUP = (1 << 32 >> (DRAW_BITS - LOW_BITS)) - 1


class Draw(NamedTuple):
    """How a call gets its mask: it is `keep`, or is drawn from `key`."""

    key: Key | None
    keep: jax.Array | None
    mode: Mode
    groups: SupportsIndex
    offset: Offset


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
      key: a JAX key; or uint32 [2] as droppath.key makes it, taken as a Threefry key; or an
        nnx.RngStream, which gives its next key once all arguments are checked.
      drop_prob: probability in [0, 1] that a path is dropped; a JAX scalar is not checked.
      batch: number of samples B.
      mode: "row", "balanced" or "batch", as in `droppath.keep_mask`.
      groups: for "balanced", the number of equal contiguous groups of the batch.
      offset: global index of the first row, an integer or a JAX scalar; for "balanced" a
        multiple of the group's size.

    Returns: bool [B].
    Raises: ValueError for arguments outside these ranges; for an offset with a key that is not
      Threefry's, whose draws cannot be indexed.

    >>> keep_mask(jax.random.key(0), 0.5, 4)
    Array([ True,  True, False, False], dtype=bool)
    """
    size = check_batch(batch)
    check_mode(mode)
    group_size = size // check_groups(groups, size)
    first = check_first_row(offset, size, group_size if mode == "balanced" else 1)
    threshold = drop_threshold(drop_prob)
    if mode == "balanced":
        _check_group_size(group_size, threshold)
    typed = as_key(key.key[...] if isinstance(key, nnx.RngStream) else key)
    if mode != "batch":
        _check_indexable(typed, first)
    typed = key() if isinstance(key, nnx.RngStream) else typed  # nothing is refused from here on
    if mode == "balanced":
        words = _counter_words(first), _counter_words(first // max(group_size, 1))
        return _balanced(typed, _times_threshold(group_size, threshold), *words, size, group_size)
    limit = np.uint32(threshold) if isinstance(threshold, int) else threshold
    if mode == "row":  # KEY-2
        return _draw(typed, limit, _counter_words(first), size)
    return jnp.broadcast_to(_draw(typed, limit, _counter_words(0), 1), size)  # KEY-3


def as_key(key: NDArray[np.uint32] | jax.Array, name: str = "key") -> jax.Array:
    """Return a scalar JAX key of a JAX key or of uint32 [2] (ARG-5), data of a program (COMP-2)."""
    words: Any = key if isinstance(key, jax.Array) else np.asarray(key)
    if not jnp.issubdtype(words.dtype, jax.dtypes.prng_key):
        check_key(words.shape, words.dtype.name, name=name)
        words = jax.random.wrap_key_data(words, impl="threefry2x32")
    if words.shape:
        raise ValueError(f"{name} must be one key, got keys of shape {words.shape}")
    return words


def check_rate(drop_prob: Rate, name: str = "drop_prob") -> Rate:
    """Return drop_prob as a float, or a JAX scalar as it is, whose value stays unread (COMP-3)."""
    if not isinstance(drop_prob, jax.Array):
        return check_drop_prob(drop_prob, name)
    floating = jnp.issubdtype(drop_prob.dtype, jnp.floating)
    check_scalar(name, "floating", floating, drop_prob.dtype.name, drop_prob.shape)
    return lax.stop_gradient(drop_prob)


def check_first_row(offset: Offset, batch: int, group_size: int) -> int | jax.Array:
    """Return offset, checked: as an int, or as it is if it is a JAX scalar, which stays unread."""
    if not isinstance(offset, jax.Array):
        return check_offset(offset, batch, group_size)
    integer = jnp.issubdtype(offset.dtype, jnp.integer)
    check_scalar("offset", "integer", integer, offset.dtype.name, offset.shape)
    return offset


def drop_threshold(drop_prob: Rate) -> int | jax.Array:
    """Return T = ceil(float32(drop_prob) * 2**23), an integer or a uint32 scalar."""
    p = check_rate(drop_prob)
    if isinstance(p, jax.Array):
        return jnp.ceil(p.astype(jnp.float32) * (1 << DRAW_BITS)).astype(jnp.uint32)
    return int(host_masks.drop_threshold(p))


def random_bits(key: jax.Array, num: int, counter: Words) -> jax.Array:
    """Return uint32 [num] from a counter on: droppath.random_bits where key is Threefry's (KEY-1).

    By integers alone: eager, compiled or mapped (COMP-1, COMP-4), in one part or several (DIST-1).
    """
    if jax.random.key_impl(key) != "threefry2x32":
        return jax.random.bits(key, (num,), jnp.uint32)
    high, first = counter
    low = lax.iota(jnp.uint32, num) + first
    carry = (low < first).astype(jnp.uint32)
    y0, y1 = _threefry2x32(jax.random.key_data(key), carry + high, low)
    return y0 ^ y1


def draw23(bits: jax.Array) -> jax.Array:
    """Return bits >> 9: uniform integers of 23 bits, in [0, 2**23)."""
    return bits >> (32 - DRAW_BITS)


@jax.jit
def _threefry2x32(words: jax.Array, x0: jax.Array, x1: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return both words of Threefry-2x32-20 under a key, uint32 [2], for counters x0, x1.

    In plain arithmetic: JAX's own primitive loops over the rounds on a CPU, and is slow there.
    """
    k0, k1 = words
    schedule = k0, k1, k0 ^ k1 ^ np.uint32(PARITY)
    x0, x1 = x0 + k0, x1 + k1
    for block in range(5):
        for rotation in ROTATIONS[block % 2]:
            x0 = x0 + x1
            x1 = (x1 << rotation | x1 >> (32 - rotation)) ^ x0
        x0 = x0 + schedule[(block + 1) % 3]
        x1 = x1 + schedule[(block + 2) % 3] + np.uint32(block + 1)
    return x0, x1


@jax.jit
def fold_in(key: jax.Array, data: int | jax.Array) -> jax.Array:
    """Return jax.random.fold_in(key, data), which is droppath.fold_in for a key of Threefry's."""
    if jax.random.key_impl(key) != "threefry2x32":
        return jax.random.fold_in(key, data)
    low = jnp.asarray(data, jnp.uint32)
    words = jnp.stack(_threefry2x32(jax.random.key_data(key), jnp.zeros_like(low), low))
    return jax.random.wrap_key_data(words, impl="threefry2x32")


def _counter_words(counter: int | jax.Array) -> Words:
    """Return the upper and the lower uint32 word of a counter."""
    if not isinstance(counter, jax.Array):
        return np.uint32(counter >> 32), np.uint32(counter & 0xFFFFFFFF)
    high = counter >> 32 if counter.dtype.itemsize == 8 else jnp.zeros((), jnp.uint32)
    return high.astype(jnp.uint32), counter.astype(jnp.uint32)


@partial(jax.jit, static_argnames="num", inline=True)
def _draw(key: jax.Array, threshold: Any, first: Words, num: int) -> jax.Array:
    """Return, for each of num draws, whether it is the threshold or more: kept."""
    return draw23(random_bits(key, num, first)) >= threshold


@partial(jax.jit, static_argnames=("batch", "group_size"), inline=True)
def _balanced(
    key: jax.Array, dropped: Words, first: Words, group: Words, batch: int, group_size: int
) -> jax.Array:
    """KEY-4: keep the b - m rows of each group of b with the smallest (bits, index)."""
    if not batch:
        return jnp.ones((0,), bool)
    whole, rest = dropped
    ups = random_bits(fold_in(key, 1), batch // group_size, group)
    some = whole.astype(jnp.int32) + (draw23(ups) < rest)
    bits = random_bits(fold_in(key, 0), batch, first).reshape(-1, group_size)
    rank = jnp.argsort(jnp.argsort(bits, stable=True))
    return (rank < (group_size - some)[:, None]).reshape(batch)


def _times_threshold(group_size: int, threshold: int | jax.Array) -> Words:
    """Return group_size * T divided by 2**23, and the rest, without a 64-bit integer."""
    if not isinstance(threshold, jax.Array):
        whole, left = divmod(group_size * threshold, 1 << DRAW_BITS)
        return np.uint32(whole), np.uint32(left)
    low = group_size * (threshold & ((1 << LOW_BITS) - 1))
    high = group_size * (threshold >> LOW_BITS) + (low >> LOW_BITS)
    rest = (high << LOW_BITS | low & ((1 << LOW_BITS) - 1)) & ((1 << DRAW_BITS) - 1)
    return high >> (DRAW_BITS - LOW_BITS), rest


def _check_group_size(group_size: int, threshold: int | jax.Array) -> None:
    if isinstance(threshold, jax.Array) and group_size > LARGEST_TRACED_GROUP:
        most = f"at most {LARGEST_TRACED_GROUP} rows each"
        raise ValueError(f"groups must leave {most} for a traced drop_prob, got {group_size}")


def _check_indexable(key: jax.Array, offset: int | jax.Array) -> None:
    kind = jax.random.key_impl(key)
    if kind != "threefry2x32" and (isinstance(offset, jax.Array) or offset):
        raise ValueError(f"offset must be 0 for a key of {kind}")
