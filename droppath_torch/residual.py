"""drop_path_residual for tensors: a residual block that does not compute what it drops.

Works where `drop_path` does. Which rows run is droppath_torch/rows.py's.
"""

import operator
from collections.abc import Callable
from typing import Any, SupportsIndex, TypeAlias, cast

import torch
from torch import Tensor

from droppath.arguments import (
    Mode,
    ScaleAt,
    check_branch,
    check_groups,
    check_per_sample,
    check_skip,
)
from droppath.masks import DRAW_BITS
from droppath_torch.functional import checked, inverse
from droppath_torch.masks import (
    Key,
    Offset,
    Rate,
    drop_threshold,
    is_eager,
    is_plain_on_cpu,
    keep_mask,
    to_device,
)
from droppath_torch.rows import Rows, add_rows, pick_on_host, pick_rows, take_rows
from droppath_torch.sampling import sample_mask

Branch: TypeAlias = Callable[..., Tensor]


def drop_path_residual(
    x: Tensor,
    branch: Branch,
    drop_prob: Rate,
    training: bool = True,
    *per_sample: Tensor,
    key: Key | None = None,
    keep: Tensor | None = None,
    generator: torch.Generator | None = None,
    mode: Mode = "balanced",
    skip: bool | None = None,
    scale_by_keep: bool = True,
    scale_at: ScaleAt = "train",
    axis: int = 0,
    groups: SupportsIndex = 1,
    offset: Offset = 0,
) -> Tensor:
    """Return x + branch(x) / (1 - drop_prob) on the samples that are kept, x on the others.

    What is dropped is not computed, where that can be: "balanced" runs the branch on exactly
    `droppath.kept_capacity` rows, also under torch.compile; "row" runs it on the kept rows, "batch"
    runs it or not, both where the host knows the mask: in eager mode, from a NumPy key, from a
    generator of the CPU, or from `keep` on the CPU, whatever x's device. The result is that of
    masking, for branches that treat each sample by itself: BatchNorm does not, and sees the rows
    that run. "balanced" and "row" run at least one row, so that every parameter has a gradient.

    Args:
      x: floating [..., B, ...].
      branch: maps [..., n, ...], and per_sample, to the same shape, in any floating dtype.
      per_sample: further arguments of the branch, tensors [B, ...], gathered with x.
      skip: None skips where that can be; True raises ValueError where it cannot; False computes all
        rows and selects.
      keep: bool [B]. On another device, and for "balanced" with skip=True, it is not checked to
        keep at most kept_capacity rows of a group: others are taken for dropped.
      drop_prob, training, key, generator, mode, scale_by_keep, scale_at, axis, groups, offset: as
        in `drop_path`; without a key, "row" and "batch" draw on the CPU.

    Returns: tensor of x's shape, dtype and device, whatever dtype the branch returns.
    Raises: ValueError for arguments outside these ranges.

    >>> import droppath
    >>> drop_path_residual(torch.ones(4), torch.neg, 0.5, key=droppath.key(0))
    tensor([ 1., -1.,  1., -1.])

    Source: Huang et al. 2016, arXiv 1603.09382; Oquab et al. 2023, arXiv 2304.07193, section 5.
    """
    at, p = checked(x, drop_prob, key, keep, mode, scale_at, axis)
    check_skip(skip)
    check_per_sample([_shape(argument) for argument in per_sample], x.shape[at])
    here = scale_by_keep and (scale_at == "train") == bool(training)  # SCALE-2, SCALE-3
    if not training or (keep is None and not isinstance(p, Tensor) and p == 0):  # EVAL-1, EVAL-2
        q = 1 - p if here and not training else 1
        return _add_kept(branch, x, per_sample, _all_rows(x, at, q), q, at)
    batch, device = x.shape[at], _draw_device(x, p, key, generator, mode)
    known = is_eager(x) and device.type == "cpu" if keep is None else is_plain_on_cpu(keep)
    all_rows = _why_all_rows(mode, p, keep, known, skip, batch // check_groups(groups, batch))
    check_skip(skip, all_rows)
    if keep is None:
        keep = _draw(p, batch, key, generator, mode, groups, offset, device)
    if isinstance(p, Tensor) or p == 1:  # DROP-2
        keep = keep & (p < 1)
    s = inverse(p, x) if here else 1.0
    if skip is False or all_rows or not batch:
        rows = _rows(keep, batch, 1, x)
    elif mode == "balanced":
        capacity = _capacity(cast(float, p), batch // operator.index(groups))
        rows = _rows(keep, max(capacity, 1), operator.index(groups), x)
    elif mode == "batch" and not keep.any():
        return x
    else:
        rows = _rows(keep, batch if mode == "batch" else max(int(keep.sum()), 1), 1, x)
    return _add_kept(branch, x, per_sample, rows, s, at)


def _draw_device(
    x: Tensor, p: Rate, key: Key | None, generator: torch.Generator | None, mode: Mode
) -> torch.device:
    """Return where the mask is drawn: by the host where that can be and is of use, else with x."""
    traced = torch.compiler.is_compiling() or isinstance(p, Tensor)
    if isinstance(key, Tensor):
        return key.device
    if generator is not None and key is None:
        return generator.device
    drawn_by_graph = x.is_cuda and torch.cuda.is_current_stream_capturing()  # the host's would stay
    if traced or (key is None and (mode == "balanced" or drawn_by_graph)):
        return x.device
    return torch.device("cpu")


def _draw(
    p: Rate,
    batch: int,
    key: Key | None,
    generator: torch.Generator | None,
    mode: Mode,
    groups: SupportsIndex,
    offset: Offset,
    device: torch.device,
) -> Tensor:
    options: dict[str, Any] = {"mode": mode, "groups": groups, "device": device}
    if key is None:
        return sample_mask(p, batch, generator=generator, **options)
    return keep_mask(key, p, batch, offset=offset, **options)


def _why_all_rows(
    mode: Mode, p: Rate, keep: Tensor | None, known: bool, skip: bool | None, size: int
) -> str:
    """Return why the branch must run on all rows, or nothing if it need not; size: of a group.

    known: whether the host can read the mask, that is given as keep or will be drawn.
    """
    if mode != "balanced":
        return "" if known else f"the host does not know what mode={mode!r} drops"
    if isinstance(p, Tensor):
        return "the number of rows is static, and drop_prob is a tensor"
    if keep is None:
        return ""
    if not known:
        return "" if skip else "the host does not know how many rows keep keeps"
    most = _capacity(p, size)
    if size and (keep.view(-1, size).sum(1) > most).any():
        return f"keep keeps more than the {most} rows of a group that mode='balanced' runs"
    return ""


def _capacity(p: float, size: int) -> int:
    """Return droppath.kept_capacity of one group, in integers that torch.compile can follow."""
    return size - (size * cast(int, drop_threshold(p)) >> DRAW_BITS)


def _rows(keep: Tensor, capacity: int, groups: int, x: Tensor) -> Rows | None:
    """Return the rows of x that run, chosen on the host if it knows keep; None if all count."""
    if is_plain_on_cpu(keep, x):
        return pick_on_host(keep.tolist(), capacity, groups)
    if keep.device == x.device or not is_plain_on_cpu(keep):
        return pick_rows(keep.to(x.device), capacity, groups)
    rows = pick_rows(keep, capacity, groups)
    return Rows(*(part if part is None else to_device(part.numpy(), x.device) for part in rows))


def _all_rows(x: Tensor, axis: int, q: Rate) -> Rows | None:
    """Return all rows, spares if q is 0."""
    if not isinstance(q, Tensor) and q > 0:
        return None
    return Rows(None, real=torch.full((x.shape[axis],), True, device=x.device) & (q > 0))


def _add_kept(
    branch: Branch, x: Tensor, per_sample: tuple[Tensor, ...], rows: Rows | None, s: Rate, axis: int
) -> Tensor:
    """Run the branch on rows of x, and add what it makes of those that are kept."""
    taken, stream = take_rows(x, rows, axis)
    f = branch(taken, *(take_rows(argument, rows, 0)[0] for argument in per_sample))
    check_branch(_shape(f), taken.shape)
    return add_rows(stream, f, rows, s, axis)


def _shape(x: object) -> tuple[int, ...]:
    if not isinstance(x, Tensor):
        raise ValueError(f"branch must take and return tensors, got {type(x).__name__}")
    return tuple(x.shape)
