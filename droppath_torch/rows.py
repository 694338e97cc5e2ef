"""Which rows of a batch a branch runs on, and the two linear maps between batch and rows.

Each is the other's transpose, so that two functions serve forward and backward, and the stream is
copied once in each: autograd's own gradient of a gather would fill a second one with zeros and add
it. Both keep the memory layout of x, channels_last too. Not here: the mask, its way to a device
(sent.py), and the branch.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from droppath_torch.arrays import is_compiling, is_transformed
from droppath_torch.on_cuda import add_rows_fused, can_fuse, can_fuse_gather, take_rows_fused


class HostRows(NamedTuple):
    """The rows that run, for a mask that the host knows.

    Some rows run: `kept` holds the first k entries of `taken`, and `place`, for x on a device only,
    where among those that run a row is, -1 if it is dropped. All rows run, for x on the CPU only:
    these three are None, and `spares` holds the dropped rows. All are int64, [n], [k], [m] and [B].
    """

    taken: Tensor | None
    kept: Tensor | None
    spares: Tensor | None = None
    place: Tensor | None = None

    def take(self, x: Tensor, axis: int) -> Tensor:
        """Return the rows of x that run: [..., B, ...] -> [..., n, ...]."""
        return x if self.taken is None else _gather(x, self.taken, axis)

    def add(self, x: Tensor, f: Tensor, s: float | Tensor, axis: int) -> Tensor:
        """Return x, and on the kept rows x + s * f, with one rounding to x's dtype."""
        if self.kept is None:
            assert self.spares is not None
            y = _sum(x, f, s)
            return y.index_copy_(axis, self.spares, x.index_select(axis, self.spares))
        if self.place is not None and _is_plain() and can_fuse(x, f, s):
            return add_rows_fused(x, f, self.place, cast(float, s), axis)
        f = f.narrow(axis, 0, len(self.kept))
        if _adds_in_place(x, f, s):
            return x.clone().index_add_(axis, self.kept, f, alpha=cast(float, s))
        new = _sum(x.index_select(axis, self.kept), f, s)
        return x.clone().index_copy_(axis, self.kept, new)  # index_copy forgets the layout

    def scaled(self, dy: Tensor, s: float, dtype: torch.dtype, axis: int) -> Tensor:
        """Return s * dy on the rows that run, +0 on the spares, with one rounding to dtype."""
        if self.place is not None and _is_plain() and can_fuse_gather(dy, s, dtype):
            return take_rows_fused(dy, cast(Tensor, self.taken), self.place, s, dtype, axis)
        df = self.take(dy, axis).to(torch.promote_types(dy.dtype, dtype))
        if self.kept is None:
            assert self.spares is not None
            return (df * s).to(dtype).index_fill_(axis, self.spares, 0)
        df = df.mul_(s).to(dtype)  # a gathered one is our own
        df.narrow(axis, len(self.kept), df.shape[axis] - len(self.kept)).zero_()
        return df


class DeviceRows(NamedTuple):
    """The rows that run, for all other x and masks: those kept, then others as spares.

    No value of a tensor is read.

    keep: bool [B]. Some rows run: taken is int64 [n]; place int64 [B], where among those that run a
    row is, -1 if it is dropped; real bool [n], False for a spare. All rows run: these are None.
    """

    keep: Tensor
    taken: Tensor | None = None
    place: Tensor | None = None
    real: Tensor | None = None

    def counts(self) -> Tensor:  # no property: Dynamo traces none of a NamedTuple up to PyTorch 2.9
        """Return which of the rows that run are kept: bool [n]."""
        return self.keep if self.real is None else self.real

    def take(self, x: Tensor, axis: int) -> Tensor:
        """Return the rows of x that run: [..., B, ...] -> [..., n, ...]."""
        return x if self.taken is None else _gather(x, self.taken, axis)

    def add(self, x: Tensor, f: Tensor, s: float | Tensor, axis: int) -> Tensor:
        """Return x, and on the kept rows x + s * f, with one rounding to x's dtype."""
        if self.taken is None or self.place is None:
            return select_sum(x, f, self.keep, s, axis)
        if is_compiling() or is_transformed():  # gathers fuse and map, scatters do not
            return select_sum(x, _gather(f, self.place.clamp(min=0), axis), self.keep, s, axis)
        if _is_plain() and can_fuse(x, f, s):
            return add_rows_fused(x, f, self.place, cast(float, s), axis)
        new = select_sum(_gather(x, self.taken, axis), f, self.counts(), s, axis)
        return x.clone().index_copy_(axis, self.taken, new)

    def scaled(self, dy: Tensor, s: float, dtype: torch.dtype, axis: int) -> Tensor:
        """Return s * dy on the rows that run, +0 on the spares, with one rounding to dtype."""
        if self.place is not None and _is_plain() and can_fuse_gather(dy, s, dtype):
            return take_rows_fused(dy, cast(Tensor, self.taken), self.place, s, dtype, axis)
        df = self.take(dy, axis).to(torch.promote_types(dy.dtype, dtype))
        df = (df * s if self.taken is None else df.mul_(s)).to(dtype)
        return torch.where(column(self.counts(), df.ndim, axis), df, 0)


Rows: TypeAlias = HostRows | DeviceRows
Remake: TypeAlias = Callable[..., Rows]  # of what a function of autograd has saved


def pick_host_rows(keep: NDArray[np.bool_], all_run: bool) -> HostRows | None:
    """Return the rows that run of a mask that is known: all, or those kept; None if all are kept.

    One row runs at least, so that every parameter of the branch has a gradient.
    """
    kept = keep.nonzero()[0]
    if len(kept) == len(keep):
        return None
    if all_run:
        return HostRows(None, None, torch.from_numpy((~keep).nonzero()[0]))
    taken = torch.from_numpy(kept if len(kept) else np.zeros(1, np.int64))
    return HostRows(taken, taken[: len(kept)])


def pick_rows(keep: Tensor, capacity: int, groups: int) -> DeviceRows:
    """Return the rows that run, `capacity` of each group, for keep, bool [B], which is not read.

    What a group keeps beyond its capacity is taken for dropped.
    """
    if capacity * groups == len(keep):
        return DeviceRows(keep)
    grouped = keep.view(groups, -1)
    first = torch.arange(groups, device=keep.device)[:, None]
    order = (~grouped).to(torch.uint8).argsort(dim=1, stable=True)[:, :capacity]
    taken = (order + first * grouped.shape[1]).flatten()
    count = grouped.cumsum(1)
    within = keep & (count <= capacity).flatten()
    place = torch.where(within, (count - 1 + first * capacity).flatten(), -1)
    return DeviceRows(within, taken, place, keep.index_select(0, taken))


def take_rows(x: Tensor, rows: Rows | None, axis: int) -> tuple[Tensor, Tensor]:
    """Return the rows of x that run, [..., n, ...], and x, for `add_rows` to add to.

    Where all run and none is a spare, no gradient of our own is needed.
    """
    if rows is None:
        return x, x
    if not _needs_functions(x):
        return rows.take(x, axis), x
    if isinstance(rows, DeviceRows) and is_transformed():  # no gradient from a spare
        taken = rows.take(x, axis)
        return torch.where(column(rows.counts(), x.ndim, axis), taken, taken.detach()), x
    ran, stream = _TakeRows.apply(x, axis, *remade(rows))
    return ran, stream


def add_rows(x: Tensor, f: Tensor, rows: Rows | None, s: float | Tensor, axis: int) -> Tensor:
    """Return x + s * f on the rows that are kept, x on the others (RES-1, RES-2, RES-3).

    x: [..., B, ...]. f: [..., n, ...], of any floating dtype. Returns x's shape and dtype.
    """
    if rows is None:
        return _sum(x, f, s)
    if not _needs_functions(x, f) or isinstance(s, Tensor) or is_transformed():
        return rows.add(x, f, s, axis)
    return cast(Tensor, _AddRows.apply(x, f, s, axis, *remade(rows)))


def remade(rows: Rows) -> tuple[Any, ...]:
    """Return a function for autograd's, and tensors that it makes the rows of again.

    Those of the host nobody else can write to, so that autograd need not save them.
    """
    return (lambda: rows,) if isinstance(rows, HostRows) else (DeviceRows, *rows)


class _TakeRows(torch.autograd.Function):
    """x -> its rows and itself: the gradient of both is one sum."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, axis: int, remake: Remake, *rows: Tensor
    ) -> tuple[Tensor, Tensor]:
        ctx.axis, ctx.remake, ctx.order = axis, remake, _order(x)
        ctx.save_for_backward(*rows)
        taken = remake(*rows).take(x, axis)
        return taken.view_as(taken) if taken is x else taken, x

    @staticmethod
    def backward(ctx: Any, *dy: Tensor) -> Any:
        saved = ctx.saved_tensors
        rows = ctx.remake(*saved)
        dx = rows.add(dy[1], dy[0], 1.0, ctx.axis)
        return _in_order(dx, ctx.order), *[None] * (2 + len(saved))


class _AddRows(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, f: Tensor, s: float, axis: int, remake: Remake, *rows: Tensor
    ) -> Tensor:
        ctx.s, ctx.axis, ctx.remake = s, axis, remake
        ctx.dtype, ctx.order = f.dtype, _order(f)
        ctx.save_for_backward(*rows)
        return remake(*rows).add(x, f, s, axis)

    @staticmethod
    def backward(ctx: Any, *dy: Tensor) -> Any:
        saved = ctx.saved_tensors
        rows = ctx.remake(*saved)
        df = rows.scaled(dy[0], ctx.s, ctx.dtype, ctx.axis)
        return dy[0], _in_order(df, ctx.order), *[None] * (3 + len(saved))


def select(x: Tensor, keep: Tensor, s: float | Tensor, axis: int) -> Tensor:
    """Return x * s where keep, +0 elsewhere; one rounding to x's dtype (SCALE-1, DROP-1)."""
    if isinstance(s, Tensor):
        y = (x.to(compute_type(x)) * s.to(compute_type(x))).to(x.dtype)
    else:
        y = x * s if s != 1 else x  # PyTorch multiplies by a number in the compute type
    return torch.where(column(keep.to(x.device), x.ndim, axis), y, 0)


def select_sum(x: Tensor, f: Tensor, keep: Tensor, s: float | Tensor, axis: int) -> Tensor:
    """Return x + s * f where keep, x elsewhere: one rounding to x's dtype (RES-1, RES-2, RES-3)."""
    return torch.where(column(keep, x.ndim, axis), _sum(x, f, s), x)


def column(keep: Tensor, ndim: int, axis: int) -> Tensor:
    """Return keep along one axis of ndim (MASK-1)."""
    return keep.view([-1 if i == axis else 1 for i in range(ndim)])


def compute_type(x: Tensor) -> torch.dtype:
    """Return the compute type of SPEC.md: float64 for float64, else float32."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def _sum(x: Tensor, f: Tensor, s: float | Tensor) -> Tensor:
    """Return x + s * f in the compute type, rounded to x's dtype."""
    wide = x.to(compute_type(x))
    if isinstance(s, Tensor):
        return (wide + s.to(wide.dtype) * f.to(wide.dtype)).to(x.dtype)
    return torch.add(wide, f, alpha=s).to(x.dtype)  # in 16 bits it would round s


def _gather(x: Tensor, index: Tensor, axis: int) -> Tensor:
    """Return the rows `index` of x, in the memory layout of x."""
    if x.is_contiguous():
        return x.index_select(axis, index)
    order = x.dim_order()
    rows = x.permute(order).index_select(order.index(axis), index)
    return rows.permute([order.index(i) for i in range(x.ndim)])


def _order(x: Tensor) -> tuple[int, ...] | None:
    """Return the memory layout of x where `_in_order` needs it."""
    return x.dim_order() if is_compiling() else None


def _in_order(dx: Tensor, order: tuple[int, ...] | None) -> Tensor:
    """Return dx in a memory layout: torch.compile makes what a backward is given contiguous."""
    if order is None:
        return dx
    return dx.permute(order).contiguous().permute([order.index(i) for i in range(dx.ndim)])


def _adds_in_place(x: Tensor, f: Tensor, s: float | Tensor) -> bool:
    """Return whether index_add rounds as `_sum` does: to 16 bits it would round s, and s * f."""
    wide = x.dtype in (torch.float32, torch.float64)
    alike = x.dtype == f.dtype and x.is_cpu  # a device may round x * s too
    return alike and not isinstance(s, Tensor) and (wide or s == 1)


def _is_plain() -> bool:
    """Return whether nothing traces, transforms or records the call."""
    return not is_transformed() and not torch.is_grad_enabled() and not is_compiling()


def _needs_functions(*tensors: Tensor) -> bool:
    return torch.is_grad_enabled() and any(x.requires_grad for x in tensors)
