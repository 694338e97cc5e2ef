"""Triton kernels for CUDA: the sums and scaled gathers of `droppath_torch.rows`, in one pass each.

PyTorch takes three or four kernels for either, and writes what the next one reads. Not here: a
choice of results; `rows` computes the same in plain PyTorch, and is what the tests hold this to.
"""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    triton: Any
    tl: Any
else:
    try:
        import triton
        import triton.language as tl
    except ImportError:  # PyTorch's CPU build
        triton = None

BLOCK = 1024  # elements of a row that one program handles; not tuned: no GPU was at hand
FUSED = torch.float32, torch.float16, torch.bfloat16  # Triton passes s as float32


def can_fuse(x: Tensor, f: Tensor, s: float | Tensor) -> bool:
    """Return whether the kernels take these tensors: on CUDA, contiguous, float32 at most."""
    return (
        triton is not None
        and x.is_cuda
        and f.is_cuda
        and x.dtype in FUSED
        and f.dtype in FUSED
        and not isinstance(s, Tensor)
        and x.is_contiguous()
        and f.is_contiguous()
    )


def add_rows_fused(
    x: Tensor, f: Tensor, place: Tensor, keep: Tensor, s: float, axis: int
) -> Tensor:
    """Return x + s * f[place] where keep, x elsewhere: x [..., B, ...], f [..., n, ...]."""
    y = torch.empty_like(x)
    inner = x[(0,) * (axis + 1)].numel() if x.numel() else 0
    if inner:
        grid = x.numel() // inner, triton.cdiv(inner, BLOCK)
        sizes = x.shape[axis], f.shape[axis], inner
        _add_rows[grid](x, f, place, keep, y, s, *sizes, BLOCK=BLOCK)
    return y


def take_rows_fused(
    dy: Tensor, taken: Tensor, real: Tensor, s: float, dtype: torch.dtype, axis: int
) -> Tensor:
    """Return s * dy[taken], and 0 where not real, as dtype: [..., B, ...] -> [..., n, ...]."""
    shape = *dy.shape[:axis], len(taken), *dy.shape[axis + 1 :]
    df = torch.empty(shape, dtype=dtype, device=dy.device)
    inner = df[(0,) * (axis + 1)].numel() if df.numel() else 0
    if inner:
        grid = df.numel() // inner, triton.cdiv(inner, BLOCK)
        sizes = dy.shape[axis], len(taken), inner
        _take_rows[grid](dy, taken, real, df, s, *sizes, BLOCK=BLOCK)
    return df


if triton is not None:

    @triton.jit
    def _add_rows(x, f, place, keep, y, s, batch, ran, inner, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
        row = tl.program_id(0).to(tl.int64)  # of [..., B]
        at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
        inside = at < inner
        kept = tl.load(keep + row % batch)
        there = (row // batch) * ran + tl.load(place + row % batch)
        old = tl.load(x + row * inner + at, inside)
        add = tl.load(f + there * inner + at, inside & kept, other=0)  # dropped: nothing is read
        new = old.to(tl.float32) + s * add.to(tl.float32)
        tl.store(y + row * inner + at, tl.where(kept, new.to(old.dtype), old), inside)

    @triton.jit
    def _take_rows(dy, taken, real, df, s, batch, ran, inner, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
        row = tl.program_id(0).to(tl.int64)  # of [..., n]
        at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
        inside = at < inner
        counts = tl.load(real + row % ran)
        there = (row // ran) * batch + tl.load(taken + row % ran)
        value = tl.load(dy + there * inner + at, inside & counts, other=0)
        new = (s * value.to(tl.float32)).to(df.dtype.element_ty)
        tl.store(df + row * inner + at, new, inside)
