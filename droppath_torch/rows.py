"""Which rows of a batch a branch runs on, and the two linear maps between batch and rows.

Each is the other's transpose, so that two functions serve forward and backward, and the stream is
copied once in each: autograd's own gradient of a gather would fill a second one with zeros and add
it. Not here: the mask, and the branch.
"""

from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from droppath_torch.kernels import add_rows_fused, can_fuse, take_rows_fused


class Rows(NamedTuple):
    """The n rows that run: those that are kept, and others as spares, whose results do not count.

    taken: int64 [n], or None if all rows run, each in its place.
    If the host knows the mask: kept: int64 [k], the first k of taken; or spares: int64 [m], of all.
    If not: place: int64 [B], where among those that run a kept row is; keep: bool [B]; real: bool
    [n], False for a spare.
    """

    taken: Tensor | None
    kept: Tensor | None = None
    spares: Tensor | None = None
    place: Tensor | None = None
    keep: Tensor | None = None
    real: Tensor | None = None


def pick_on_host(keep: list[bool], capacity: int, groups: int) -> Rows | None:
    """Return the rows that run, `capacity` of each group; None if all do and none is a spare."""
    size = len(keep) // groups
    kept = [row for row, is_kept in enumerate(keep) if is_kept]
    spares = []
    for group in range(groups):
        dropped = [row for row in range(group * size, (group + 1) * size) if not keep[row]]
        spares += dropped[size - capacity :]
    if capacity == size:
        return Rows(None, spares=torch.tensor(spares)) if spares else None
    taken = torch.tensor(kept + spares)
    return Rows(taken, kept=taken[: len(kept)])


def pick_rows(keep: Tensor, capacity: int, groups: int) -> Rows:
    """Return the same rows of a bool [B] on any device, whose values are not read.

    What a group keeps beyond its capacity is taken for dropped.
    """
    batch = len(keep)
    if capacity * groups == batch:
        return Rows(None, real=keep)
    grouped = keep.view(groups, -1)
    first = torch.arange(groups, device=keep.device)[:, None]
    order = (~grouped).to(torch.uint8).argsort(dim=1, stable=True)[:, :capacity]
    taken = (order + first * grouped.shape[1]).flatten()
    count = grouped.cumsum(1)
    place = ((count - 1).clamp(0, capacity - 1) + first * capacity).flatten()
    within = keep & (count <= capacity).flatten()
    return Rows(taken, place=place, keep=within, real=keep.index_select(0, taken))


def take_rows(x: Tensor, rows: Rows | None, axis: int) -> tuple[Tensor, Tensor]:
    """Return the rows of x that run, [..., n, ...], and x, for `add_rows` to add to.

    Where all run and none is a spare, autograd's own gradient is as good.
    """
    if rows is None:
        return x, x
    if not _needs_functions(x):
        return _taken(x, rows, axis), x
    if torch._C._are_functorch_transforms_active():
        taken = _taken(x, rows, axis)
        return _choose(taken, taken.detach(), rows, axis), x  # no gradient from a spare
    ran, stream = _TakeRows.apply(x, axis, *rows)
    return ran, stream


def add_rows(x: Tensor, f: Tensor, rows: Rows | None, s: float | Tensor, axis: int) -> Tensor:
    """Return x + s * f on the rows that are kept, x on the others (RES-1, RES-2, RES-3).

    x: [..., B, ...]. f: [..., n, ...], of any floating dtype. Returns x's shape and dtype.
    """
    if rows is None:
        return _added(x, f, s)
    plain = not _needs_functions(x, f) or isinstance(s, Tensor)
    if plain or torch._C._are_functorch_transforms_active():
        return _sum(x, f, rows, s, axis)
    return _AddRows.apply(x, f, s, axis, *rows)


class _TakeRows(torch.autograd.Function):
    """x -> its rows and itself: the gradient of both is one sum."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, axis: int, *rows: Tensor | None) -> tuple[Tensor, Tensor]:
        ctx.axis = axis
        ctx.save_for_backward(*rows)
        taken = _taken(x, Rows(*rows), axis)
        return taken.view_as(taken) if taken is x else taken, x

    @staticmethod
    def backward(ctx: Any, *dy: Tensor) -> Any:
        rows = Rows(*ctx.saved_tensors)
        return _sum(dy[1], dy[0], rows, 1.0, ctx.axis), *[None] * (1 + len(rows))


class _AddRows(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, f: Tensor, s: float, axis: int, *rows: Tensor | None
    ) -> Tensor:
        ctx.s, ctx.axis, ctx.dtype = s, axis, f.dtype
        ctx.save_for_backward(*rows)
        return _sum(x, f, Rows(*rows), s, axis)

    @staticmethod
    def backward(ctx: Any, *dy: Tensor) -> Any:
        rows = Rows(*ctx.saved_tensors)
        df = _scaled(dy[0], rows, ctx.s, ctx.dtype, ctx.axis)
        return dy[0], df, *[None] * (2 + len(rows))


def _taken(x: Tensor, rows: Rows, axis: int) -> Tensor:
    return x if rows.taken is None else x.index_select(axis, rows.taken)


def _scaled(dy: Tensor, rows: Rows, s: float, dtype: torch.dtype, axis: int) -> Tensor:
    """Return s * dy on the rows that run, +0 on the spares, with one rounding to dtype."""
    if rows.taken is not None and rows.real is not None and _fuses(dy, dy, s):
        return take_rows_fused(dy, rows.taken, rows.real, s, dtype, axis)
    wide = torch.promote_types(dy.dtype, dtype)
    df = _taken(dy, rows, axis).to(wide)
    df = (df * s if rows.taken is None else df.mul_(s)).to(dtype)  # a gathered one is our own
    if rows.kept is not None:
        kept = rows.kept.shape[0]
        df.narrow(axis, kept, df.shape[axis] - kept).zero_()
        return df
    return _choose(df, None, rows, axis)


def _sum(x: Tensor, f: Tensor, rows: Rows, s: float | Tensor, axis: int) -> Tensor:
    """Return x, and on the kept rows x + s * f, with one rounding to x's dtype."""
    if rows.kept is not None:
        f = f.narrow(axis, 0, rows.kept.shape[0])
        if _adds_in_place(x, f, s):
            return x.index_add(axis, rows.kept, f, alpha=cast(float, s))
        new = _added(x.index_select(axis, rows.kept), f, s)
        return x.index_copy(axis, rows.kept, new)
    if rows.place is not None and rows.keep is not None:
        if torch.compiler.is_compiling():  # one kernel: gathers fuse, scatters do not
            spread = f.index_select(axis, rows.place)
            return _sum(x, spread, Rows(None, real=rows.keep), s, axis)
        if _fuses(x, f, s):
            return add_rows_fused(x, f, rows.place, rows.keep, cast(float, s), axis)
    old = _taken(x, rows, axis)
    new = _choose(_added(old, f, s), old, rows, axis)
    return new if rows.taken is None else x.index_copy(axis, rows.taken, new)


def _adds_in_place(x: Tensor, f: Tensor, s: float | Tensor) -> bool:
    """Return whether index_add rounds as `_added` does: to 16 bits it would round s, and s * f."""
    wide = x.dtype in (torch.float32, torch.float64)
    return x.dtype == f.dtype and not isinstance(s, Tensor) and (wide or s == 1)


def _added(x: Tensor, f: Tensor, s: float | Tensor) -> Tensor:
    """Return x + s * f in the compute type, rounded to x's dtype."""
    wide = x.to(torch.float64 if x.dtype == torch.float64 else torch.float32)
    if isinstance(s, Tensor):
        return (wide + s.to(wide.dtype) * f.to(wide.dtype)).to(x.dtype)
    return torch.add(wide, f, alpha=s).to(x.dtype)  # in 16 bits it would round s


def _choose(new: Tensor, old: Tensor | None, rows: Rows, axis: int) -> Tensor:
    """Return new, but old, or 0, on the spares. If the host knows them new is written to."""
    if rows.spares is not None:
        if old is None:
            return new.index_fill_(axis, rows.spares, 0)
        return new.index_copy_(axis, rows.spares, old.index_select(axis, rows.spares))
    assert rows.real is not None
    column = rows.real.view([-1 if i == axis else 1 for i in range(new.ndim)])
    return torch.where(column, new, 0 if old is None else old)


def _fuses(x: Tensor, f: Tensor, s: float | Tensor) -> bool:
    plain = not torch._C._are_functorch_transforms_active() and not torch.is_grad_enabled()
    return plain and not torch.compiler.is_compiling() and can_fuse(x, f, s)


def _needs_functions(*tensors: Tensor) -> bool:
    return torch.is_grad_enabled() and any(x.requires_grad for x in tensors)
