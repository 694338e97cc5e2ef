"""Keys and random bits: Threefry-2x32 with 20 rounds, equal to JAX's bit for bit (clause KEY-1).

Not here: global state, seeds from the clock, floating-point draws.

Source: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3" (Random123);
JAX's layout of counters, `jax_threefry_partitionable=True`.
"""

from typing import Any, SupportsIndex

import numpy as np
from numpy.typing import ArrayLike, NDArray

from droppath.arguments import KEY_TEXT, check_key, check_offset, check_word

Words = NDArray[np.uint32]

# Random123, threefry.h: R_32x2_{0..7}_0 and SKEIN_KS_PARITY32.
ROTATIONS = (13, 15, 26, 6), (17, 29, 16, 24)
PARITY = 0x1BD11BDA


def key(seed: SupportsIndex) -> Words:
    """Return the key of a seed: [0, seed], uint32 [2]. Raises ValueError unless 0 <= seed < 2**32.

    >>> key(5)
    array([0, 5], dtype=uint32)
    """
    return np.array([0, check_word(seed, "seed")], np.uint32)


def fold_in(key: ArrayLike, data: Any) -> Words:
    """Return the key made from a key and an integer: the cipher of the counter (0, data).

    Layer l of a model draws, in step t, from fold_in(fold_in(key, t), l) (KEY-7, MASK-6); at its
    call c > 0 in one forward from that key with c + 1 folded in (KEY-8).

    key: uint32 [..., 2]. data: an integer in [0, 2**32), or an array of them, that broadcasts with
    key's leading axes. Returns uint32 [..., 2].

    >>> fold_in(key(0), 1)
    array([ 928981903, 3453687069], dtype=uint32)
    """
    words = as_key(key)
    counter = data if _is_words(data) else np.asarray(check_word(data, "data"), np.uint32)
    return np.stack(threefry2x32(words, np.zeros_like(counter), counter), -1)


def split(key: ArrayLike, num: SupportsIndex = 2) -> Words:
    """Return num keys, uint32 [..., num, 2]; the i-th is fold_in(key, i).

    >>> bool((split(key(0))[1] == fold_in(key(0), 1)).all())
    True
    """
    return fold_in(as_key(key)[..., None, :], np.arange(check_word(num, "num"), dtype=np.uint32))


def random_bits(key: ArrayLike, num: SupportsIndex, offset: SupportsIndex = 0) -> Words:
    """Return num words; the i-th is the xor of both words of the cipher of the counter offset + i.

    key: uint32 [..., 2]. Returns uint32 [..., num].

    >>> random_bits(key(0), 2)
    array([4070199207, 4202968722], dtype=uint32)
    """
    size = check_word(num, "num")
    first = check_offset(offset, size)
    counter = np.arange(size, dtype=np.uint64) + np.uint64(first)
    high, low = (counter >> np.uint64(32)).astype(np.uint32), counter.astype(np.uint32)
    y0, y1 = threefry2x32(as_key(key)[..., None, :], high, low)
    return y0 ^ y1


def threefry2x32(key: Words, x0: Words, x1: Words) -> tuple[Words, Words]:
    """Return the cipher of the counter words x0, x1 under key: two uint32 arrays.

    key: uint32 [..., 2]; x0, x1: uint32, broadcast with key's leading axes.
    """
    k0, k1 = key[..., 0], key[..., 1]
    with np.errstate(over="ignore"):  # sums wrap by definition; NumPy warns of it on scalars
        schedule = k0, k1, k0 ^ k1 ^ np.uint32(PARITY)
        y0, y1 = np.asarray(x0 + k0), np.asarray(x1 + k1)
        low = np.empty_like(y1)
        for block in range(5):
            for rotation in ROTATIONS[block % 2]:
                y0 += y1
                np.right_shift(y1, np.uint32(32 - rotation), out=low)
                y1 <<= np.uint32(rotation)
                y1 |= low
                y1 ^= y0
            y0 += schedule[(block + 1) % 3]
            y1 += schedule[(block + 2) % 3] + np.uint32(block + 1)
    return y0, y1


def as_key(key: ArrayLike, several: bool = True) -> Words:
    """Return key as an array, checked to be uint32 [2], or if several [..., 2] (clause ARG-5)."""
    try:
        words = np.asarray(key)
    except (TypeError, ValueError):  # a typed JAX key, a list of lists of several lengths
        raise ValueError(f"key must be {KEY_TEXT}, got {type(key).__name__}") from None
    if words.dtype.kind not in "biufc":
        raise ValueError(f"key must be {KEY_TEXT}, got {type(key).__name__}")
    check_key(words.shape, words.dtype.name, several)
    return words


def _is_words(data: object) -> bool:
    return isinstance(data, np.ndarray) and data.dtype == np.uint32
