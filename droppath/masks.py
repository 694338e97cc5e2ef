"""Keep masks: which samples keep their path, as a pure function of (key, drop_prob, batch, mode).

Every decision is made in integers, so that it is the same on every machine (SPEC.md, areas KEY and
BAL). Not here: applying a mask, and anything that depends on x.
"""

from typing import Any, SupportsIndex

import numpy as np
from numpy.typing import ArrayLike, NDArray

from droppath.arguments import (
    Mode,
    check_batch,
    check_drop_prob,
    check_groups,
    check_mode,
    check_offset,
)
from droppath.random import Words, as_key, fold_in, random_bits

DRAW_BITS = 23  # a draw is the upper 23 bits of a word: jax.random.bernoulli's resolution


def keep_mask(
    key: ArrayLike,
    drop_prob: float | NDArray[np.floating[Any]],
    batch: SupportsIndex,
    *,
    mode: Mode = "row",
    groups: SupportsIndex = 1,
    offset: SupportsIndex = 0,
) -> NDArray[np.bool_]:
    """Return the mask that key draws: True where the sample's path is kept.

    P(dropped) is T / 2**23 with T = ceil(float32(drop_prob) * 2**23).

    Args:
      key: uint32 [2], or [..., 2] for several masks at once.
      drop_prob: probability in [0, 1] that a path is dropped; an array [...] has one for each key.
      batch: number of samples B.
      mode: "row", one independent draw a sample; "balanced", B * drop_prob dropped in each group,
        rounded up or down at random, every subset equally likely; "batch", one draw for all.
      groups: for "balanced", the number of equal contiguous groups of the batch.
      offset: global index of the first row; for "balanced" a multiple of the group's size.

    Returns: bool [..., B].
    Raises: ValueError for arguments outside these ranges.

    >>> from droppath import key
    >>> keep_mask(key(0), 0.5, 8)
    array([ True,  True, False, False,  True, False, False,  True])
    """
    words, size = as_key(key), check_batch(batch)
    check_mode(mode)
    group_size = size // check_groups(groups, size)
    first = check_offset(offset, size, group_size if mode == "balanced" else 1)
    threshold = drop_threshold(drop_prob)[..., None]
    if mode == "row":  # KEY-2, MASK-5: a draw for each row
        return draw23(random_bits(words, size, first)) >= threshold  # KEY-5, KEY-6, MASK-4
    if mode == "batch":  # KEY-3
        kept = draw23(random_bits(words, 1)) >= threshold
        return np.broadcast_to(kept, (*kept.shape[:-1], size)).copy()
    return _balanced(words, threshold, size, group_size, first)


def kept_capacity(drop_prob: float, batch: SupportsIndex, *, groups: SupportsIndex = 1) -> int:
    """Return the most rows that a balanced mask of this batch keeps, over all its groups.

    It is groups * (b - floor(b * T / 2**23)) with b = batch / groups (BAL-4), a static number: at
    least one a group unless drop_prob rounds to 1. Raises ValueError as `keep_mask` does.

    >>> kept_capacity(0.1, 32), kept_capacity(0.1, 32, groups=4), kept_capacity(0.9, 1)
    (29, 32, 1)
    """
    size = check_batch(batch)
    count = check_groups(groups, size)
    threshold = drop_threshold(check_drop_prob(drop_prob))
    return count * group_capacity(int(threshold), size // count)


def group_capacity(threshold: int, group_size: int) -> int:
    """Return the most rows that one group keeps, in integers that a tracing compiler can follow."""
    return group_size - (group_size * threshold >> DRAW_BITS)  # BAL-4


def drop_threshold(drop_prob: float | NDArray[np.floating[Any]]) -> NDArray[np.int64]:
    """Return T = ceil(float32(drop_prob) * 2**23), int64 [...]: a row is dropped iff draw < T."""
    if isinstance(drop_prob, np.ndarray):
        checked = [check_drop_prob(p) for p in drop_prob.reshape(-1)]
        p = np.reshape(checked, drop_prob.shape).astype(np.float32)
    else:
        p = np.asarray(check_drop_prob(drop_prob), np.float32)
    return np.asarray(np.ceil(p * np.float32(1 << DRAW_BITS)), np.int64)


def draw23(bits: Words) -> NDArray[np.int64]:
    """Return bits >> 9: uniform integers of 23 bits, in [0, 2**23)."""
    return (bits >> np.uint32(32 - DRAW_BITS)).astype(np.int64)


def _balanced(
    key: Words, threshold: NDArray[np.int64], batch: int, group_size: int, offset: int
) -> NDArray[np.bool_]:
    """KEY-4: keep the b - m rows of each group of b with the smallest (bits, index)."""
    if not batch:
        return np.ones((*np.broadcast_shapes(key.shape[:-1], threshold.shape[:-1]), 0), bool)
    whole, rest = np.divmod(group_size * threshold, 1 << DRAW_BITS)
    up = draw23(random_bits(fold_in(key, 1), batch // group_size, offset // group_size)) < rest
    bits = random_bits(fold_in(key, 0), batch, offset)
    rank = bits.reshape(*bits.shape[:-1], -1, group_size).argsort(kind="stable").argsort()
    # BAL-1: whole rows, or one more; BAL-2: the one more at rest / 2**23; BAL-3: the ranks are fair
    keep = rank < (group_size - whole - up)[..., None]
    return keep.reshape(*keep.shape[:-2], batch)
