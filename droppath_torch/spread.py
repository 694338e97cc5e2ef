"""Rows taken from a batch for a branch, and put back among zeros, where others add to the stream.

`x + drop_path(branch(x))` adds outside of our reach. So what the branch makes of the rows that run
becomes a whole batch again: s * f on kept rows, +0 on the others (DROP-1, SCALE-1). The two maps
are each other's transpose, but for s. Not here: which rows run (rows.py).
"""

from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from droppath_torch.arrays import is_compiling, is_transformed, memory_order
from droppath_torch.rows import HostRows, Remake, Rows, compute_type, remade, select


class Begun(NamedTuple):
    """A branch that has begun: which of `batch` rows run; all of them, and all count, if None."""

    rows: Rows | None
    batch: int

    def take(self, x: Tensor, axis: int) -> Tensor:
        """Return the rows of x that run: [..., B, ...] -> [..., n, ...]."""
        rows = self.rows
        if rows is None or rows.taken is None:
            return x
        if is_transformed() or not (torch.is_grad_enabled() and x.requires_grad):
            return rows.take(x, axis)
        return cast(Tensor, _Take.apply(x, axis, *remade(rows)))

    def spread(self, f: Tensor, s: float | Tensor, axis: int) -> Tensor:
        """Return s * f on the rows that are kept, +0 elsewhere: [..., n, ...] -> [..., B, ...]."""
        rows = self.rows
        ran = self.batch if rows is None or rows.taken is None else len(rows.taken)
        if f.shape[axis] != ran:
            raise ValueError(
                f"x must have the {ran} rows that its branch began with, got {tuple(f.shape)}"
            )
        if rows is None:
            return _scaled(f, s)
        plain = isinstance(s, Tensor) or is_transformed()
        if plain or not (torch.is_grad_enabled() and f.requires_grad):
            return spread_rows(f, rows, self.batch, s, axis)
        return cast(Tensor, _Spread.apply(f, self.batch, s, axis, *remade(rows)))


def spread_rows(f: Tensor, rows: Rows, batch: int, s: float | Tensor, axis: int) -> Tensor:
    """Return s * f where kept, +0 elsewhere, with one rounding to f's dtype."""
    if isinstance(rows, HostRows):
        if rows.kept is None:
            return _scaled(f, s).index_fill(axis, cast(Tensor, rows.spares), 0)
        kept = _scaled(f.narrow(axis, 0, len(rows.kept)), s)
        return _zeros(f, batch, axis).index_copy_(axis, rows.kept, kept)
    if rows.taken is None or rows.place is None:
        return select(f, rows.keep, s, axis)
    if is_compiling() or is_transformed():  # gathers fuse and map, scatters do not
        return select(f.index_select(axis, rows.place.clamp(min=0)), rows.keep, s, axis)
    return _zeros(f, batch, axis).index_copy_(axis, rows.taken, select(f, rows.counts(), s, axis))


class _Take(torch.autograd.Function):
    """x -> its rows. No gradient comes of a spare, also where it is NaN (RES-7)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, axis: int, remake: Remake, *rows: Tensor) -> Tensor:
        ctx.axis, ctx.remake, ctx.batch = axis, remake, x.shape[axis]
        ctx.save_for_backward(*rows)
        return remake(*rows).take(x, axis)

    @staticmethod
    def backward(ctx: Any, *dy: Tensor) -> Any:
        saved = ctx.saved_tensors
        rows = ctx.remake(*saved)
        dx = spread_rows(dy[0], rows, ctx.batch, 1.0, ctx.axis)
        return dx, *[None] * (2 + len(saved))


class _Spread(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, f: Tensor, batch: int, s: float, axis: int, remake: Remake, *rows: Tensor
    ) -> Tensor:
        ctx.s, ctx.axis, ctx.remake, ctx.dtype = s, axis, remake, f.dtype
        ctx.save_for_backward(*rows)
        return spread_rows(f, remake(*rows), batch, s, axis)

    @staticmethod
    def backward(ctx: Any, *dy: Tensor) -> Any:
        saved = ctx.saved_tensors
        rows = ctx.remake(*saved)
        return rows.scaled(dy[0], ctx.s, ctx.dtype, ctx.axis), *[None] * (4 + len(saved))


def _scaled(f: Tensor, s: float | Tensor) -> Tensor:
    """Return s * f with one rounding to f's dtype (SCALE-1)."""
    if isinstance(s, Tensor):
        return (f.to(compute_type(f)) * s.to(compute_type(f))).to(f.dtype)
    return f * s if s != 1 else f


def _zeros(f: Tensor, batch: int, axis: int) -> Tensor:
    """Return +0 of f's shape, but `batch` rows, in the memory layout of f; no view of another."""
    shape = [batch if i == axis else n for i, n in enumerate(f.shape)]
    strides, step = [0] * f.ndim, 1
    for i in reversed(memory_order(f)):
        strides[i], step = step, step * shape[i]
    return f.new_empty_strided(shape, strides).zero_()
