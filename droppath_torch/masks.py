"""Keep masks as tensors, equal bit for bit to droppath.keep_mask (areas KEY and BAL).

A NumPy key is drawn on the host, by the reference's integers. A tensor key is drawn on its own
device, without reading it: inside torch.compile the rounds fuse into one kernel, and another key
does not recompile. Not here: draws without a key, which are droppath_torch/sampling.py's.
"""

import math
from typing import Any, SupportsIndex, TypeAlias, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from droppath import masks as host_masks
from droppath.arguments import (
    Mode,
    check_batch,
    check_drop_prob,
    check_groups,
    check_key,
    check_mode,
    check_offset,
)
from droppath.masks import DRAW_BITS
from droppath.random import PARITY, ROTATIONS, threefry2x32

Key: TypeAlias = NDArray[np.uint32] | Tensor
Rate: TypeAlias = float | Tensor
Offset: TypeAlias = SupportsIndex | Tensor
Device: TypeAlias = torch.device | str | None

WORD = 0xFFFFFFFF  # words are held in int64: PyTorch has no arithmetic on uint32


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
      key: uint32 [2] as droppath.key makes it; or an integer tensor [2] on any device, whose value
        is not read by the host.
      drop_prob: probability in [0, 1] that a path is dropped; a 0-d tensor is not checked.
      batch: number of samples B.
      mode: "row", "balanced" or "batch", as in `droppath.keep_mask`.
      groups: for "balanced", the number of equal contiguous groups of the batch.
      offset: global index of the first row, an integer or a 0-d tensor; for "balanced" a
        multiple of the group's size.
      device: where the mask is wanted; by default that of a tensor key, else the CPU.

    Returns: bool tensor [B].
    Raises: ValueError for arguments outside these ranges.

    >>> import droppath
    >>> keep_mask(droppath.key(0), 0.5, 4)
    tensor([ True,  True, False, False])
    """
    size = check_batch(batch)
    check_mode(mode)
    group = size // check_groups(groups, size)
    if not isinstance(offset, Tensor):
        offset = check_offset(offset, size, group if mode == "balanced" else 1)
    if not (torch.compiler.is_compiling() or _any_tensor(key, drop_prob, offset)):
        one, p, first = as_host_key(key), check_drop_prob(drop_prob), cast(int, offset)
        mask = host_masks.keep_mask(one, p, size, mode=mode, groups=groups, offset=first)
        return to_device(mask, device)
    words, drops = _as_words(key), drop_threshold(drop_prob)
    if device is not None and not isinstance(key, Tensor):
        words = words.to(device)  # where a tensor drop_prob is
    keep = draw_on_device(words, drops, size, mode, group, offset)
    return keep if device is None else keep.to(device)


def draw_on_device(
    words: Tensor, drops: int | Tensor, batch: int, mode: Mode, group: int, offset: int | Tensor
) -> Tensor:
    """Return the masks of keys whose words are int64 [..., 2], on their device: bool [..., B].

    drops: the thresholds T of KEY-2, an integer or int64 that broadcasts with [..., B].
    """
    if mode == "row":  # KEY-2
        return _draws(_random_bits(words, batch, offset)) >= drops
    if mode == "batch":  # KEY-3
        keep = _draws(_random_bits(words, 1, 0)) >= drops
        return keep.expand(*keep.shape[:-1], batch)
    return _balanced(words, drops, batch, group, offset)


def check_rate(drop_prob: Rate) -> Rate:
    """Return drop_prob as a float, or as it is if it is a 0-d tensor, whose value stays unread."""
    if not isinstance(drop_prob, Tensor):
        return check_drop_prob(drop_prob)
    if drop_prob.ndim or not drop_prob.is_floating_point():
        given = f"{dtype_text(drop_prob)} of shape {tuple(drop_prob.shape)}"
        raise ValueError(f"drop_prob must be a floating scalar, got {given}")
    return drop_prob.detach()


def as_host_key(key: object) -> NDArray[np.uint32]:
    """Return key as an array, checked to be uint32 [2] (clause ARG-5)."""
    words = np.asarray(key)
    check_key(words.shape, words.dtype.name)
    return words


def dtype_text(x: Tensor) -> str:
    """Return the dtype as SPEC.md writes it, "float32"."""
    return str(x.dtype).removeprefix("torch.")


def to_device(mask: NDArray[Any], device: Device) -> Tensor:
    """Return a host array as a tensor on device, without waiting for the device."""
    tensor = torch.from_numpy(mask)
    if device is None or torch.device(device).type == "cpu":
        return tensor
    pinned = tensor.pin_memory() if torch.device(device).type == "cuda" else tensor
    return pinned.to(device, non_blocking=True)


def is_plain_on_cpu(*tensors: Tensor) -> bool:
    """Return whether the mask can be read at once: nothing traces, and no device is waited for."""
    for x in tensors:
        if type(x) is not Tensor or not x.is_cpu:
            return False
    return is_eager(tensors[0])


def is_eager(x: Tensor) -> bool:
    """Return whether x is a tensor of numbers: nothing traces or transforms the call."""
    return (
        not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()
        and not torch._C._are_functorch_transforms_active()
        # autograd's is_grads_batched
        and not torch._C._functorch.is_legacy_batchedtensor(x)
    )


def _any_tensor(*values: object) -> bool:
    return any(isinstance(value, Tensor) for value in values)


def _as_words(key: Key) -> Tensor:
    """Return the key's two words as int64 (clause ARG-5)."""
    words = key if isinstance(key, Tensor) else torch.from_numpy(np.asarray(key))
    if words.is_floating_point() or words.dtype == torch.bool or words.shape != (2,):
        given = f"{dtype_text(words)} of {tuple(words.shape)}"
        raise ValueError(f"key must be two integer words, got {given}")
    return words.to(torch.int64) & WORD


def drop_threshold(drop_prob: Rate) -> int | Tensor:
    """Return T = ceil(float32(drop_prob) * 2**23), an integer or a 0-d int64 tensor."""
    p = check_rate(drop_prob)
    if isinstance(p, Tensor):
        return torch.ceil(p.to(torch.float32) * (1 << DRAW_BITS)).to(torch.int64)
    # math.ceil and a scaling by 2**23 are exact; np.float32 is what rounds, as in the reference
    return math.ceil(float(np.float32(p)) * (1 << DRAW_BITS))


def _draws(bits: Tensor) -> Tensor:
    """Return bits >> 9: uniform integers in [0, 2**23)."""
    return bits >> (32 - DRAW_BITS)


def _random_bits(words: Tensor, num: int, offset: int | Tensor) -> Tensor:
    """Return droppath.random_bits as int64 [..., num], on the key's device (KEY-1)."""
    index = torch.arange(num, dtype=torch.int64, device=words.device)
    if isinstance(offset, Tensor):
        counter = index + offset.to(torch.int64)
        high, low = (counter >> 32) & WORD, counter & WORD
    else:  # an offset may exceed int64
        low = index + (offset & WORD)
        high, low = (offset >> 32) + (low >> 32), low & WORD
    y0, y1 = _threefry2x32(words[..., None, :], high, low)
    return y0 ^ y1


def _threefry2x32(words: Tensor, x0: Tensor, x1: Tensor) -> tuple[Tensor, Tensor]:
    """Return droppath.random.threefry2x32, in int64 that hold uint32."""
    if words.device.type == "cpu":
        y0, y1 = threefry2x32_on_host(words, x0, x1).unbind(-1)
        return y0, y1
    k0, k1 = words.unbind(-1)
    schedule = k0, k1, k0 ^ k1 ^ PARITY
    y0, y1 = (x0 + k0) & WORD, (x1 + k1) & WORD
    for block in range(5):
        for rotation in ROTATIONS[block % 2]:
            y0 = (y0 + y1) & WORD
            y1 = (y1 << rotation | y1 >> (32 - rotation)) & WORD ^ y0
        y0 = (y0 + schedule[(block + 1) % 3]) & WORD
        y1 = (y1 + schedule[(block + 2) % 3] + block + 1) & WORD
    return y0, y1


# One operator for the compiler: Inductor takes 10 to 30 s of a core to make C++ of twenty rounds.
@torch.library.custom_op("droppath::threefry2x32", mutates_args=(), device_types="cpu")
def threefry2x32_on_host(words: Tensor, x0: Tensor, x1: Tensor) -> Tensor:
    """Return the reference's cipher, both words: int64 [..., 2]."""
    key, *counter = (x.numpy().astype(np.uint32) for x in (words, x0, x1))
    return torch.from_numpy(np.stack(threefry2x32(key, *counter), -1).astype(np.int64))


@threefry2x32_on_host.register_fake
def _(words: Tensor, x0: Tensor, x1: Tensor) -> Tensor:
    shape = torch.broadcast_shapes(words.shape[:-1], x0.shape)
    return words.new_empty((*shape, 2))


@threefry2x32_on_host.register_vmap
def _(info: Any, in_dims: tuple[int | None, ...], *arguments: Tensor) -> tuple[Tensor, int]:
    pairs = zip(arguments, in_dims, strict=True)
    words, x0, x1 = (x if dim is None else x.movedim(dim, 0) for x, dim in pairs)
    return threefry2x32_on_host(words, x0, x1), 0


def _balanced(
    words: Tensor, drops: int | Tensor, batch: int, group: int, offset: int | Tensor
) -> Tensor:
    """KEY-4: keep the b - m rows of each group of b with the smallest (bits, index)."""
    if not batch:
        return torch.ones((*words.shape[:-1], 0), dtype=torch.bool, device=words.device)
    data = torch.arange(2, dtype=torch.int64, device=words.device)
    folded = _threefry2x32(words[..., None, :], torch.zeros_like(data), data)
    rows, ups = torch.stack(folded, -1).unbind(-2)
    up = _draws(_random_bits(ups, batch // group, offset // group))
    return keep_smallest(_random_bits(rows, batch, offset), up, drops, group)


def keep_smallest(order: Tensor, up: Tensor, drops: int | Tensor, group: int) -> Tensor:
    """Return which rows of each group have the smallest (order, index): all but m of them.

    m is group * T / 2**23 rounded down, plus 1 where up is below the rest.
    """
    dropped = (group * drops >> DRAW_BITS) + (up < group * drops % (1 << DRAW_BITS)).to(torch.int64)
    rank = order.unflatten(-1, (-1, group)).argsort(dim=-1, stable=True).argsort(dim=-1)
    return (rank < (group - dropped)[..., None]).flatten(-2)
