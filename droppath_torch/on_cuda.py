"""Triton kernels for CUDA: the sums and scaled gathers of `droppath_torch.rows`, in one pass each.

PyTorch takes three or four kernels for either, and writes what the next one reads. Not here: a
choice of results; `rows` computes the same in plain PyTorch, and is what the tests hold this to.
"""

import math
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

# By dtype, the elements that one program handles: 16 bytes a load, two loads for each of its 128
# threads. Not tuned.
TILE = {torch.float32: 1024, torch.float16: 2048, torch.bfloat16: 2048}
# float64 is not among them: Triton passes s as float32.
LONG = 1 << 31  # elements, from which on an index takes 64 bits


def can_fuse(x: Tensor, f: Tensor, s: float | Tensor) -> bool:
    """Return whether the kernels take these: on CUDA, dense in one order, float32 at most."""
    return (
        triton is not None
        and x.is_cuda
        and f.is_cuda
        and x.dtype in TILE
        and f.dtype in TILE
        and not isinstance(s, Tensor)
        and _lie_alike(x, f)
    )


def _lie_alike(x: Tensor, f: Tensor) -> bool:
    """Return whether both are dense in memory, in one order of their axes."""
    if x.is_contiguous():
        return f.is_contiguous()
    order = x.dim_order()
    return x.permute(order).is_contiguous() and f.permute(order).is_contiguous()


def can_fuse_gather(dy: Tensor, s: float | Tensor, dtype: torch.dtype) -> bool:
    """Return whether the kernels take dy for rows of this dtype."""
    return dtype in TILE and can_fuse(dy, dy, s)


def add_rows_fused(x: Tensor, f: Tensor, place: Tensor, s: float, axis: int) -> Tensor:
    """Return x + s * f[place] where place >= 0, x elsewhere: x [..., B, ...], f [..., n, ...]."""
    y = torch.empty_like(x)
    _launch(_add_rows, (x, f, place, y), s, (x.shape[axis], f.shape[axis]), axis)
    return y


def take_rows_fused(
    dy: Tensor, taken: Tensor, place: Tensor, s: float, dtype: torch.dtype, axis: int
) -> Tensor:
    """Return s * dy[taken] as dtype, and 0 for a spare: [..., B, ...] -> [..., n, ...].

    A spare is a row that runs and has no place: -1.
    """
    shape = [*dy.shape]
    shape[axis] = len(taken)
    if dy.is_contiguous():
        df = dy.new_empty(shape, dtype=dtype)
    else:
        order = dy.dim_order()
        df = dy.new_empty([shape[i] for i in order], dtype=dtype)
        df = df.permute([order.index(i) for i in range(dy.ndim)])
    _launch(_take_rows, (dy, taken, place, df), s, (dy.shape[axis], len(taken)), axis)
    return df


def _launch(
    kernel: Any, tensors: tuple[Tensor, ...], s: float, sizes: tuple[int, int], axis: int
) -> None:
    """Run a kernel from the first tensor to the last, over memory that is [rows, inner]."""
    of_input, output = tensors[0], tensors[-1]
    total = output.numel()
    if not total:
        return
    inner = _numbers_of_a_row(of_input, axis)
    rows, tile = total // inner, TILE[of_input.dtype]
    columns = min(1 << (inner - 1).bit_length(), tile)  # inner, up to a power of two
    chunks, tiles = -(-inner // columns), -(-rows // (tile // columns))
    index = tl.int32 if max(total, of_input.numel()) < LONG else tl.int64
    with torch.cuda.device_of(output):  # Triton launches on the current device
        # a grid's first axis alone may be longer than 65,535
        kernel[(chunks * tiles,)](
            *tensors, s, *sizes, rows, inner, ROWS=tile // columns, COLUMNS=columns, INDEX=index
        )


def _numbers_of_a_row(x: Tensor, axis: int) -> int:
    """Return how many numbers of x lie at one index of the axis, without a gap."""
    if x.is_contiguous():
        return x.shape[axis + 1 :].numel()
    order = x.dim_order()
    return math.prod(x.shape[i] for i in order[order.index(axis) + 1 :])


if triton is not None:

    @triton.jit
    def _tile(rows, inner, ROWS: tl.constexpr, COLUMNS: tl.constexpr, INDEX: tl.constexpr):  # type: ignore[no-untyped-def]
        chunks = tl.cdiv(inner, COLUMNS)
        row = (tl.program_id(0) // chunks).to(INDEX) * ROWS + tl.arange(0, ROWS)
        at = (tl.program_id(0) % chunks) * COLUMNS + tl.arange(0, COLUMNS)[None, :]
        return row, at, row < rows, (row < rows)[:, None] & (at < inner)

    # A number of rows that is 1, or a multiple of 16, compiles no kernel of its own, nor do
    # addresses of what is loaded once a row.
    @triton.jit(do_not_specialize=["place", "batch", "ran", "rows"])
    def _add_rows(  # type: ignore[no-untyped-def]
        x, f, place, y, s, batch, ran, rows, inner,
        ROWS: tl.constexpr, COLUMNS: tl.constexpr, INDEX: tl.constexpr,
    ):  # fmt: skip
        row, at, exists, inside = _tile(rows, inner, ROWS, COLUMNS, INDEX)  # rows of [..., B]
        here = row[:, None] * inner + at
        old = tl.load(x + here, inside)  # first: it does not wait for place
        place_of = tl.load(place + row % batch, exists, other=-1).to(INDEX)
        kept = (place_of >= 0)[:, None]
        there = ((row // batch) * ran + place_of)[:, None] * inner + at
        add = tl.load(f + there, inside & kept, other=0)  # dropped: nothing is read
        new = old.to(tl.float32) + s * add.to(tl.float32)
        tl.store(y + here, tl.where(kept, new.to(old.dtype), old), inside)

    @triton.jit(do_not_specialize=["taken", "place", "batch", "ran", "rows"])
    def _take_rows(  # type: ignore[no-untyped-def]
        dy, taken, place, df, s, batch, ran, rows, inner,
        ROWS: tl.constexpr, COLUMNS: tl.constexpr, INDEX: tl.constexpr,
    ):  # fmt: skip
        row, at, exists, inside = _tile(rows, inner, ROWS, COLUMNS, INDEX)  # rows of [..., n]
        taken_of = tl.load(taken + row % ran, exists, other=0).to(INDEX)
        there = ((row // ran) * batch + taken_of)[:, None] * inner + at
        value = tl.load(dy + there, inside)  # first: it does not wait for place
        real = tl.load(place + taken_of, exists, other=-1) >= 0
        new = tl.where(real[:, None], s * value.to(tl.float32), 0.0)
        tl.store(df + row[:, None] * inner + at, new.to(df.dtype.element_ty), inside)
