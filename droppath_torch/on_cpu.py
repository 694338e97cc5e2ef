"""What exists only because of eager CPU kernels and CPU compilers: the same results, sooner.

- `KeepRows`: torch.where with a broadcast mask takes three to five times as long as a product.
- `keep_smallest_by_numpy`: NumPy has sorted a few groups before PyTorch has begun.
- `threefry2x32_on_host`: Inductor takes 10 to 30 s of a core to make C++ of twenty rounds.

Not here: anything that decides a result; rows.py and masks.py compute the same in plain PyTorch,
and that is what the tests hold this to.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from droppath.masks import DRAW_BITS
from droppath.random import threefry2x32
from droppath_torch.arrays import is_plain_on_cpu
from droppath_torch.rows import select

# Measured on 2 cores of a Xeon with torch 2.13.0, medians by turns.
# KeepRows to torch.where, forward and backward: 1.15 at 2^12 elements, 0.91 at 2^14, 0.64 at 2^16.
WORTH_A_FUNCTION = 1 << 14  # elements, beyond which KeepRows is taken
# NumPy's sort to PyTorch's: 0.2 for one group of 64 rows (4 us), 0.8 for 16 of 16, 1.3 for 32.
WORTH_NUMPY = 16  # groups, up to which NumPy sorts them one by one


class KeepRows(torch.autograd.Function):
    """x * s where keep, +0 elsewhere, and its derivatives: the same map (GRAD-1, GRAD-2)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, keep: Tensor, s: float, axis: int) -> Tensor:
        ctx.s, ctx.axis = s, axis
        ctx.keep = keep.tolist()  # a copy: the caller may write into keep before the backward
        ctx.dropped = [i for i, kept in enumerate(ctx.keep) if not kept]
        return _keep_rows(x, ctx.dropped, s, axis)

    @staticmethod
    def backward(ctx: Any, *dy: Tensor) -> Any:
        if torch.is_grad_enabled() or not is_plain_on_cpu(dy[0]):
            return select(dy[0], torch.tensor(ctx.keep), ctx.s, ctx.axis), None, None, None
        return _keep_rows(dy[0], ctx.dropped, ctx.s, ctx.axis), None, None, None

    @staticmethod
    def jvp(ctx: Any, *dx: Tensor) -> Any:
        return select(dx[0], torch.tensor(ctx.keep), ctx.s, ctx.axis)


def _keep_rows(x: Tensor, dropped: list[int], s: float, axis: int) -> Tensor:
    """Return x * s, but +0 on the dropped rows.

    NumPy writes the zeros: it takes a third of PyTorch's time for a row, and wakes no thread.
    """
    y = x * s
    bits = y.view(torch.int16) if y.dtype == torch.bfloat16 else y  # NumPy has no bfloat16
    rows = bits.numpy()
    for i in dropped:
        rows[(slice(None),) * axis + (i,)] = 0
    return y


def keep_smallest_by_numpy(
    order: NDArray[np.int64], up: list[int], threshold: int, group_size: int
) -> Tensor:
    """Return what `droppath_torch.masks.keep_smallest` does, for words that the host holds."""
    keep = np.ones(len(order), np.bool_)
    whole, rest = divmod(group_size * threshold, 1 << DRAW_BITS)
    for i, draw in enumerate(up):
        if dropped := whole + (draw < rest):
            group = slice(i * group_size, (i + 1) * group_size)
            ranked = order[group].argsort(kind="stable")
            keep[group][ranked[group_size - dropped :]] = False
    return torch.from_numpy(keep)


@torch.library.custom_op("droppath::threefry2x32", mutates_args=(), device_types="cpu")
def threefry2x32_on_host(words: Tensor, x0: Tensor, x1: Tensor) -> Tensor:
    """Return the reference's cipher, both words: int64 [..., 2]; one operator for the compiler."""
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
