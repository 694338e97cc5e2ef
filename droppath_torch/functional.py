"""drop_path for tensors: a function of (x, drop_prob, key), or of torch's own generator.

Works in autograd, torch.compile(fullgraph=True), torch.func, activation checkpointing and autocast.
"""

from typing import SupportsIndex, cast

import torch
from torch import Tensor

from droppath.arguments import (
    Mode,
    ScaleAt,
    check_axis,
    check_flags,
    check_groups,
    check_keep,
    check_mode,
    check_one_source,
    check_scale_at,
)
from droppath.scaling import inverse_keep_prob, scales
from droppath_torch.arguments import check_captured, check_generator
from droppath_torch.arrays import (
    dtype_text,
    in_backward,
    is_compiling,
    is_plain_on_cpu,
    to_device,
)
from droppath_torch.masks import Draw, Key, Offset, Rate, check_first_row, check_rate, keep_mask
from droppath_torch.on_cpu import WORTH_A_FUNCTION, KeepRows
from droppath_torch.rows import compute_type, select
from droppath_torch.sampling import sample_mask


def drop_path(
    x: Tensor,
    drop_prob: Rate,
    training: bool = True,
    *,
    key: Key | None = None,
    keep: Tensor | None = None,
    generator: torch.Generator | None = None,
    mode: Mode = "row",
    scale_by_keep: bool = True,
    scale_at: ScaleAt = "train",
    axis: int = 0,
    groups: SupportsIndex = 1,
    offset: Offset = 0,
) -> Tensor:
    """Return x with randomly chosen samples set to zero, the others divided by 1 - drop_prob.

    y[i] = x[i] / (1 - drop_prob) if keep[i] else 0

    Args:
      x: floating [..., B, ...].
      drop_prob: probability in [0, 1] that a sample is dropped; may be a 0-d tensor, which is not
        checked, and whose scale is formed in x's compute type.
      training: False at evaluation: x is returned and nothing is drawn.
      key: uint32 [2] as droppath.key makes it, or a tensor [2], as in `keep_mask`.
      keep: bool [B], the mask itself in place of a draw.
      generator: what to draw from without key and keep; by default torch's own of x's device. Not
        under torch.compile, nor under activation checkpointing, which cannot draw from it again.
      mode: "row", "balanced" or "batch", as in `droppath.keep_mask`.
      scale_by_keep: False leaves kept samples as they are.
      scale_at: "eval" applies the factor 1 - drop_prob at evaluation instead (Huang et al. 2016).
      axis: index of the batch axis.
      groups, offset: as in `keep_mask`.

    Returns: tensor of x's shape, dtype and device.
    Raises: ValueError for arguments outside these ranges, and in a CUDA graph for a key, keep or
      generator of the host, whose mask each replay would repeat.

    >>> import droppath
    >>> drop_path(torch.ones(4), 0.5, key=droppath.key(0))
    tensor([2., 2., 0., 0.])

    Source: Huang et al. 2016, arXiv 1603.09382; droppath/SPEC.md.
    """
    draw = Draw(key, keep, mode, groups, offset, generator)
    at, p = check_call(x, drop_prob, draw, scale_at, axis)
    check_flags(training=training, scale_by_keep=scale_by_keep)
    scaled = scales(training, scale_by_keep, scale_at)  # SCALE-2, SCALE-3
    if not training:  # EVAL-1
        return _scaled_in_evaluation(x, p, at) if scaled else x
    if draws_nothing(p, draw):  # EVAL-2
        return x
    if x.is_cuda:
        check_captured(x.device, key=key, keep=keep, generator=generator)
    kept = draw_keep(draw, p, x.shape[at], x.device)
    return _keep_rows(x, kept, scale(p, x) if scaled else 1.0, at)


def check_call(
    x: Tensor, drop_prob: Rate, draw: Draw, scale_at: ScaleAt, axis: int
) -> tuple[int, Rate]:
    """Return x's batch axis and the rate, once all is checked that needs no draw (area ARG)."""
    if not isinstance(x, Tensor):
        raise ValueError(f"x must be a tensor, got {type(x).__name__}")
    at = check_axis(axis, x.shape, dtype_text(x))
    p = check_rate(drop_prob)
    check_scale_at(scale_at)
    check_mode(draw.mode)
    check_groups(draw.groups, 0)  # whether it divides the batch is seen when a mask is drawn
    check_first_row(draw.offset, 0, 1)
    check_one_source(draw.key, draw.keep)
    check_generator(draw.generator)
    if draw.keep is not None:
        keep = draw.keep
        if not isinstance(keep, Tensor):
            raise ValueError(f"keep must be a bool tensor, got {type(keep).__name__}")
        check_keep(keep.shape, dtype_text(keep), x.shape[at])
    return at, p


def draws_nothing(p: Rate, draw: Draw) -> bool:
    """Return whether a call in training is the identity: a rate of 0, no mask given (EVAL-2)."""
    return draw.keep is None and is_zero(p)


def is_zero(p: Rate) -> bool:
    """Return whether a rate is known to be 0; one in a tensor is not read."""
    return not isinstance(p, Tensor) and p == 0


def draw_keep(draw: Draw, p: Rate, batch: int, device: torch.device) -> Tensor:
    """Return the mask of a call in training, on device, none kept at p = 1 (DROP-2): bool [B]."""
    keep, mode, groups = draw.keep, draw.mode, draw.groups
    if keep is None and draw.key is None:
        group_size = batch // check_groups(groups, batch)
        check_first_row(draw.offset, batch, group_size if mode == "balanced" else 1)
        generator = draw.generator
        if generator is not None and not is_compiling() and in_backward():  # GRAD-2
            raise RuntimeError(
                "generator must be None under activation checkpointing: PyTorch draws again from "
                "its own generators alone, so that the backward would have another mask"
            )
        keep = sample_mask(p, batch, mode=mode, groups=groups, generator=generator, device=device)
    elif keep is None:
        key, first = cast(Key, draw.key), draw.offset
        keep = keep_mask(key, p, batch, mode=mode, groups=groups, offset=first, device=device)
    keep = keep if keep.device == device else to_device(keep, device)
    return keep & (p < 1) if isinstance(p, Tensor) or p == 1 else keep


def scale(p: Rate, x: Tensor) -> Rate:
    """SCALE-1: 1/(1-p) in float64, or in x's compute type if p is a tensor; 1 at p = 1."""
    if not isinstance(p, Tensor):
        return inverse_keep_prob(p)
    q = cast(Tensor, keep_prob(p, x))
    return 1 / torch.where(q > 0, q, 1)


def keep_prob(p: Rate, x: Tensor) -> Rate:
    """SCALE-3: q = 1 - p in float64, or in x's compute type if p is a tensor."""
    return 1 - (p.to(compute_type(x)) if isinstance(p, Tensor) else p)


def _scaled_in_evaluation(x: Tensor, p: Rate, axis: int) -> Tensor:
    """SCALE-3: x * (1 - p), and +0 where that is 0."""
    keep = torch.full((x.shape[axis],), True, device=x.device) & (p < 1)
    return _keep_rows(x, keep, keep_prob(p, x), axis)


def _keep_rows(x: Tensor, keep: Tensor, s: Rate, axis: int) -> Tensor:
    """Return x * s where keep, +0 elsewhere, by whichever way is the fastest."""
    if x.numel() > WORTH_A_FUNCTION and not isinstance(s, Tensor) and is_plain_on_cpu(x, keep):
        return cast(Tensor, KeepRows.apply(x, keep, s, axis))
    return select(x, keep, s, axis)
