"""Keep masks as tensors, equal bit for bit to droppath.keep_mask (areas KEY and BAL).

A NumPy key is drawn on the host, by the reference's integers. A tensor key is drawn on its own
device, without reading it: inside torch.compile the rounds fuse into one kernel, and another key
does not recompile. Not here: draws without a key, which are droppath_torch/sampling.py's.
"""

import math
from typing import Any, NamedTuple, SupportsIndex, TypeAlias, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from droppath import masks as host_masks
from droppath.arguments import (
    WORD,
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
from droppath.random import as_key as as_host_key
from droppath_torch.arguments import as_device, check_captured
from droppath_torch.arrays import (
    Device,
    dtype_text,
    is_compiling,
    is_integer,
    is_plain_on_cpu,
    to_device,
)
from droppath_torch.on_cpu import threefry2x32_on_host
from droppath_torch.sent import Sent

Key: TypeAlias = NDArray[np.uint32] | Tensor
Rate: TypeAlias = float | Tensor
Offset: TypeAlias = SupportsIndex | Tensor

KEY_DTYPES = torch.uint32, torch.int32, torch.int64  # int32 holds the bits of uint32
LOW_WORD = WORD - 1  # words are held in int64: PyTorch has no arithmetic on uint32


class Draw(NamedTuple):
    """How a call gets its mask: it is `keep`, or is drawn from `key` or from `generator`.

    sent: a `keep` that the host knows, where `keyed` has sent it to x's device.
    """

    key: Key | None
    keep: Tensor | None
    mode: Mode
    groups: SupportsIndex
    offset: Offset
    generator: torch.Generator | None
    sent: Sent | None = None


def keep_mask(
    key: Key,
    drop_prob: Rate,
    batch: SupportsIndex,
    *,
    mode: Mode = "row",
    groups: SupportsIndex = 1,
    offset: Offset = 0,
    device: Device = None,
) -> Tensor:
    """Return the mask that key draws: True where the sample's path is kept.

    Args:
      key: uint32 [2] as droppath.key makes it; or a tensor [2] of uint32, int32 with the same bits,
        or int64, on any device. The words of an int64 tensor are checked where the host can read
        them. On a device, and under torch.compile, what exceeds 32 bits is cut off.
      drop_prob: probability in [0, 1] that a path is dropped; a 0-d tensor is not checked.
      batch: number of samples B.
      mode: "row", "balanced" or "batch", as in `droppath.keep_mask`.
      groups: for "balanced", the number of equal contiguous groups of the batch.
      offset: global index of the first row, an integer or a 0-d integer tensor, checked as `key`
        is; for "balanced" a multiple of the group's size. One that varies in a compiled program is
        below 2**63.
      device: where the mask is wanted; by default that of a key, rate or offset which is a tensor
        on another device than the CPU, else the CPU.

    Returns: bool tensor [B].
    Raises: ValueError for arguments outside these ranges.

    >>> import droppath
    >>> keep_mask(droppath.key(0), 0.5, 4)
    tensor([ True,  True, False, False])
    """
    size = check_batch(batch)
    check_mode(mode)
    group_size = size // check_groups(groups, size)
    first = check_first_row(offset, size, group_size if mode == "balanced" else 1)
    where = as_device(device)
    check_captured(where, key=key)
    if not (is_compiling() or any(isinstance(a, Tensor) for a in (key, drop_prob, first))):
        one, p = as_host_key(key, several=False), check_drop_prob(drop_prob)
        row = cast(int, first)
        mask = host_masks.keep_mask(one, p, size, mode=mode, groups=groups, offset=row)
        return to_device(torch.from_numpy(mask), where)
    words, threshold = as_key(key), drop_threshold(drop_prob)
    words = to_device(words, _draw_device(where, words, threshold, first))
    drawn = draw_on_device(words, size, mode, group_size, first)
    return to_device(drawn.kept(threshold, group_size), where)


def _draw_device(where: torch.device | None, *given: int | Tensor) -> torch.device | None:
    """Return the device that one of these is on, if not the CPU; in a program that of the mask."""
    for each in given:
        if isinstance(each, Tensor) and not each.is_cpu:
            return each.device
    return where if is_compiling() else None


class Drawn(NamedTuple):
    """What the masks of all rates are made of, on the device of the keys.

    order: int64 [..., B], the draws of the rows; balanced: their ranks in their group. up: int64
    [..., groups], whether each group drops one more; None in the other modes.
    """

    order: Tensor
    up: Tensor | None

    def kept(self, threshold: int | Tensor, group_size: int) -> Tensor:
        """Return the mask, bool [..., B], of the threshold T of KEY-2."""
        if self.up is None:
            return self.order >= threshold
        return keep_smallest(self.order, self.up, threshold, group_size)


def draw_on_device(
    words: Tensor, batch: int, mode: Mode, group_size: int, offset: int | Tensor
) -> Drawn:
    """Return what keys draw whose words are int64 [..., 2], on their device."""
    if mode == "row":  # KEY-2
        return Drawn(draw23(random_bits(words, batch, offset)), None)
    if mode == "batch":  # KEY-3
        draw = draw23(random_bits(words, 1, 0))
        return Drawn(draw.expand(*draw.shape[:-1], batch), None)
    return _balanced(words, batch, group_size, offset)


def as_key(key: Key) -> Tensor:
    """Return the key's two words as int64 (clause ARG-5), data of a compiled program (COMP-2)."""
    if not isinstance(key, Tensor):
        words = key if is_compiling() else as_host_key(key, several=False)
        key = torch.from_numpy(np.asarray(words))
        check_key(key.shape, dtype_text(key))  # also in a program, which cannot read the words
    check_words(key)
    known = key.tolist() if key.dtype == torch.int64 and is_plain_on_cpu(key) else []
    if not all(0 <= word < WORD for word in known):
        raise ValueError(f"key must be two words in [0, 2**32), got {known}")
    return key.to(torch.int64) & LOW_WORD


def check_words(key: Tensor) -> None:
    """Raise unless a key that is a tensor is two words."""
    if key.dtype not in KEY_DTYPES or key.shape != (2,):
        given = f"{dtype_text(key)} of {tuple(key.shape)}"
        raise ValueError(f"key must be two words of uint32, int32 or int64, got {given}")


def check_rate(drop_prob: Rate, name: str = "drop_prob") -> Rate:
    """Return drop_prob as a float, or a 0-d tensor as it is, whose value stays unread (COMP-3)."""
    if is_compiling() and isinstance(drop_prob, (np.ndarray, np.generic)):
        drop_prob = torch.as_tensor(drop_prob)  # Dynamo takes NumPy's numbers for data
        drop_prob = drop_prob.to(torch.float64) if is_integer(drop_prob) else drop_prob
    if not isinstance(drop_prob, Tensor):
        return check_drop_prob(drop_prob, name)
    floating, dtype = drop_prob.is_floating_point(), dtype_text(drop_prob)
    check_scalar(name, "floating", floating, dtype, drop_prob.shape)
    return drop_prob.detach()


def check_first_row(offset: Offset, batch: int, group_size: int) -> int | Tensor:
    """Return offset, checked: as an int, or as it is if it is a 0-d tensor."""
    if not isinstance(offset, Tensor):
        return check_offset(offset, batch, group_size)
    check_scalar("offset", "integer", is_integer(offset), dtype_text(offset), offset.shape)
    if is_plain_on_cpu(offset):
        check_offset(int(offset), batch, group_size)
    return offset


def drop_threshold(drop_prob: Rate) -> int | Tensor:
    """Return T = ceil(float32(drop_prob) * 2**23), an integer or a 0-d int64 tensor."""
    p = check_rate(drop_prob)
    if isinstance(p, Tensor):
        return torch.ceil(p.to(torch.float32) * (1 << DRAW_BITS)).to(torch.int64)
    # math.ceil and a scaling by 2**23 are exact; np.float32 is what rounds, as in the reference
    return math.ceil(float(np.float32(p)) * (1 << DRAW_BITS))


def random_bits(words: Tensor, num: int, offset: int | Tensor) -> Tensor:
    """Return droppath.random_bits as int64 [..., num], on the key's device (KEY-1).

    By integers alone: eager, compiled or mapped (COMP-1, COMP-4), in one part or several (DIST-1).
    """
    high, low = counters(num, offset, words.device)
    y0, y1 = _threefry2x32(words[..., None, :], high, low)
    return y0 ^ y1


def counters(num: int, offset: int | Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the two words of offset + i for i < num, each int64 [num] that holds uint32."""
    index = torch.arange(num, dtype=torch.int64, device=device)
    if isinstance(offset, Tensor):
        counter = index + offset.to(torch.int64)
        return (counter >> 32) & LOW_WORD, counter & LOW_WORD
    # An offset may exceed int64, and Inductor adds a number to an arange in int32 on GPUs: 16 bits
    # at a time. It takes & and >> of a size for real numbers, % and // for integers.
    low = index + offset % (1 << 16)
    mid = (low >> 16) + offset // (1 << 16) % (1 << 16)
    return offset // (1 << 32) + (mid >> 16), (mid & 0xFFFF) << 16 | low & 0xFFFF


def draw23(bits: Tensor) -> Tensor:
    """Return bits >> 9: uniform integers of 23 bits, in [0, 2**23)."""
    return bits >> (32 - DRAW_BITS)


def _threefry2x32(words: Tensor, x0: Tensor, x1: Tensor) -> tuple[Tensor, Tensor]:
    """Return droppath.random.threefry2x32, in int64 that hold uint32."""
    if words.device.type == "cpu":
        y0, y1 = threefry2x32_on_host(words, x0, x1).unbind(-1)
        return y0, y1
    k0, k1 = words.unbind(-1)
    schedule = k0, k1, k0 ^ k1 ^ PARITY
    y0, y1 = (x0 + k0) & LOW_WORD, (x1 + k1) & LOW_WORD
    for block in range(5):
        for rotation in ROTATIONS[block % 2]:
            y0 = (y0 + y1) & LOW_WORD
            y1 = (y1 << rotation | y1 >> (32 - rotation)) & LOW_WORD ^ y0
        y0 = (y0 + schedule[(block + 1) % 3]) & LOW_WORD
        y1 = (y1 + schedule[(block + 2) % 3] + block + 1) & LOW_WORD
    return y0, y1


def fold_in(words: Tensor, num: int, *, first: int = 0) -> Tensor:
    """Return droppath.fold_in(key, first + i), int64 [..., num, 2] for i < num (KEY-1)."""
    data = torch.arange(num, dtype=torch.int64, device=words.device) + first
    return torch.stack(_threefry2x32(words[..., None, :], torch.zeros_like(data), data), -1)


def _balanced(words: Tensor, batch: int, group_size: int, offset: int | Tensor) -> Drawn:
    """KEY-4: rank the rows of each group by (bits, index)."""
    if not batch:
        return Drawn(words.new_empty((*words.shape[:-1], 0)), None)
    rows, ups = fold_in(words, 2).unbind(-2)
    up = draw23(random_bits(ups, batch // group_size, offset // group_size))
    return Drawn(rank(random_bits(rows, batch, offset), group_size), up)


def rank(order: Tensor, group_size: int) -> Tensor:
    """Return the rank of each row in its group by (order, index): int64 [..., B]."""
    grouped = order.unflatten(-1, (-1, group_size))
    return grouped.argsort(dim=-1, stable=True).argsort(dim=-1).flatten(-2)


def keep_smallest(ranks: Tensor, up: Tensor, threshold: Any, group_size: int) -> Tensor:
    """Return the rows of each group with the smallest ranks: all but m of them.

    m is group_size * T / 2**23 rounded down, plus 1 where up is below the rest.
    """
    scaled = group_size * threshold
    dropped = (scaled >> DRAW_BITS) + (up < scaled % (1 << DRAW_BITS)).to(torch.int64)
    # By row: Inductor reads a dimension that varies and is 1 now, as that of groups of one row, as
    # if it were longer, where it is broadcast.
    group = torch.arange(ranks.shape[-1], device=ranks.device) // group_size
    return ranks < (group_size - dropped)[..., group]
