"""drop_path_residual for tensors: a residual block that does not compute what it drops.

Works where `drop_path` does. Which rows run is droppath_torch/rows.py's.
"""

from collections.abc import Callable
from typing import SupportsIndex, TypeAlias, cast

import numpy as np
import torch
from torch import Tensor

from droppath.arguments import (
    Mode,
    ScaleAt,
    check_branch,
    check_callable,
    check_flags,
    check_groups,
    check_per_sample,
    check_skip,
)
from droppath.masks import group_capacity
from droppath.scaling import scales
from droppath_torch.arguments import check_captured
from droppath_torch.arrays import (
    dtype_text,
    is_captured,
    is_compiling,
    is_eager,
    is_plain_on_cpu,
    to_device,
)
from droppath_torch.functional import check_call, draw_keep, draws_nothing, keep_prob, scale
from droppath_torch.masks import Draw, Key, Offset, Rate, drop_threshold
from droppath_torch.rows import (
    DeviceRows,
    Rows,
    add_rows,
    pick_host_rows,
    pick_rows,
    take_rows,
)
from droppath_torch.sent import send_rows

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

    What is dropped is not computed, where that can be. Where the host knows the mask, "row" and
    "balanced" run the branch on the kept rows and "batch" runs it or not: in eager mode, from a
    NumPy key, from a generator of the CPU, or from `keep` on the CPU, whatever x's device, unless
    drop_prob is a tensor there.
    Elsewhere, under torch.compile say, "balanced" runs it on exactly `droppath.kept_capacity` rows,
    and the others on all. The result is that of masking, for branches that treat each sample by
    itself: BatchNorm does not, and sees the rows that run. "balanced" and "row" run at least one
    row, so that every parameter has a gradient.

    Args:
      x: floating [..., B, ...].
      branch: maps [..., n, ...], and per_sample, to the same shape, in any floating dtype.
      per_sample: further arguments of the branch, tensors [B, ...], gathered with x.
      skip: None skips where that can be; True raises ValueError where it cannot; False computes all
        rows and selects.
      keep: bool [B]. Where the host does not know it, "balanced" with skip=True runs kept_capacity
        rows of each group. What keep keeps beyond them is dropped silently.
      drop_prob, training, key, generator, mode, scale_by_keep, scale_at, axis, groups, offset: as
        in `drop_path`; without a key the mask is drawn on the CPU, but for a CUDA graph.

    Returns: tensor of x's shape, dtype and device, whatever dtype the branch returns.
    Raises: ValueError for arguments outside these ranges, and in a CUDA graph as `drop_path`.

    >>> import droppath
    >>> drop_path_residual(torch.ones(4), torch.neg, 0.5, key=droppath.key(0))
    tensor([ 1., -1.,  1., -1.])

    Source: Huang et al. 2016, arXiv 1603.09382; Oquab et al. 2023, arXiv 2304.07193, section 5.
    """
    draw = Draw(key, keep, mode, groups, offset, generator)
    options = skip, scale_by_keep, scale_at, axis
    return run_residual(draw, x, branch, drop_prob, training, per_sample, *options)


def run_residual(
    draw: Draw,
    x: Tensor,
    branch: Branch,
    drop_prob: Rate,
    training: bool,
    per_sample: tuple[Tensor, ...],
    skip: bool | None,
    scale_by_keep: bool,
    scale_at: ScaleAt,
    axis: int,
) -> Tensor:
    """Return what drop_path_residual does, for a draw whose rows may have been sent ahead."""
    at, p = check_call(x, drop_prob, draw, scale_at, axis)
    check_callable(branch)
    check_skip(skip)
    check_flags(training=training, scale_by_keep=scale_by_keep)
    check_per_sample([_shape(a, "per_sample must be") for a in per_sample], x.shape[at])
    scaled = scales(training, scale_by_keep, scale_at)  # SCALE-2, SCALE-3
    s: Rate
    if not training or draws_nothing(p, draw):  # EVAL-1, EVAL-2
        s = keep_prob(p, x) if scaled and not training else 1.0
        rows = None if not isinstance(s, Tensor) and s > 0 else _all_or_none(s, x, at)
    else:
        kept, run_all = _decide(draw, p, skip, x, at)
        if draw.mode == "batch" and not run_all and is_plain_on_cpu(kept) and not kept.any():
            return x
        rows = _rows_that_run(kept, draw, p, run_all, x)
        s = scale(p, x) if scaled else 1.0
    return _add_kept(branch, x, per_sample, rows, s, at)


def rows_of_branch(draw: Draw, p: Rate, skip: bool | None, x: Tensor, axis: int) -> Rows | None:
    """Return which rows of x a branch runs on, for whom adds elsewhere; None if all, and all count.

    What `check_call` checks is checked.
    """
    kept, run_all = _decide(draw, p, skip, x, axis)
    return _rows_that_run(kept, draw, p, run_all, x)


def _decide(draw: Draw, p: Rate, skip: bool | None, x: Tensor, axis: int) -> tuple[Tensor, bool]:
    """Return the mask, and whether the branch runs on all rows; refuse before anything is drawn."""
    if x.is_cuda:
        check_captured(x.device, key=draw.key, keep=draw.keep, generator=draw.generator)
    batch, device = x.shape[axis], _draw_device(draw, p, x)
    known = is_eager(x) if draw.keep is None else is_plain_on_cpu(draw.keep)
    known = known and device.type == "cpu"
    why = "" if known else _why_all_rows(draw, p, skip)
    check_skip(skip, why)
    return draw_keep(draw, p, batch, device), skip is False or bool(why) or not batch


def _draw_device(draw: Draw, p: Rate, x: Tensor) -> torch.device:
    """Return where the mask gets known: on the host where that can be and is of use, else at x."""
    if isinstance(p, Tensor) and not p.is_cpu:
        return x.device
    source: object = draw.key if draw.keep is None else draw.keep
    if isinstance(source, Tensor):
        return source.device
    if source is None and draw.generator is not None:
        return draw.generator.device
    at_x = is_compiling() or (source is None and is_captured(x.device))
    return x.device if at_x else torch.device("cpu")


def _why_all_rows(draw: Draw, p: Rate, skip: bool | None) -> str:
    """Return why all rows must run, or nothing if not, where the host does not know the mask."""
    if draw.mode != "balanced":
        return f"the host does not know what mode={draw.mode!r} drops"
    if isinstance(p, Tensor):
        return "the number of rows is static, and drop_prob is a tensor"
    if draw.keep is not None and not skip:
        return "the host does not know how many rows keep keeps"
    return ""


def _rows_that_run(keep: Tensor, draw: Draw, p: Rate, run_all: bool, x: Tensor) -> Rows | None:
    """Return the rows of x that run (RES-4), None if all run and all count.

    Where the host knows the mask they are the kept ones, else `kept_capacity` of each group; one at
    least, so that every parameter of the branch has a gradient.
    """
    batch, known = len(keep), is_plain_on_cpu(keep)
    run_all = run_all or draw.mode == "batch"
    if known and is_plain_on_cpu(x):
        return pick_host_rows(keep.numpy(), run_all)
    if known and np.count_nonzero(keep.numpy()) == batch:
        return None
    if known and not run_all:
        return draw.sent.rows if draw.sent else send_rows(keep.numpy()[None], x.device)[0]
    keep = draw.sent.keep if known and draw.sent else to_device(keep, x.device)
    if run_all:
        return DeviceRows(keep)
    groups = check_groups(draw.groups, batch)
    capacity = max(group_capacity(cast(int, drop_threshold(p)), batch // groups), 1)
    return pick_rows(keep, capacity, groups)


def _all_or_none(q: Rate, x: Tensor, axis: int) -> Rows:
    """Return all rows, which count unless the factor of evaluation is 0 (SCALE-3)."""
    keep = torch.full((x.shape[axis],), True, device=x.device) & (q > 0)
    return DeviceRows(keep)


def _add_kept(
    branch: Branch, x: Tensor, per_sample: tuple[Tensor, ...], rows: Rows | None, s: Rate, axis: int
) -> Tensor:
    """Run the branch on rows of x, and add what it makes of those that are kept."""
    taken, stream = take_rows(x, rows, axis)
    f = branch(taken, *(take_rows(argument, rows, 0)[0] for argument in per_sample))  # RES-6
    check_branch(_shape(f, "branch must return"), dtype_text(f), taken.shape)
    return add_rows(stream, f, rows, s, axis)


def _shape(x: object, what: str) -> tuple[int, ...]:
    if not isinstance(x, Tensor):
        raise ValueError(f"{what} a tensor, got {type(x).__name__}")
    return tuple(x.shape)
