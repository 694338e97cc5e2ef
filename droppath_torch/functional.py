"""drop_path for tensors: a function of (x, drop_prob, key), or of torch's own generator.

Works in autograd, torch.compile(fullgraph=True), torch.func, activation checkpointing and autocast.
"""

from typing import Any, SupportsIndex, cast

import torch
from torch import Tensor

from droppath.arguments import (
    Mode,
    ScaleAt,
    check_axis,
    check_keep,
    check_mode,
    check_one_source,
    check_scale_at,
)
from droppath_torch.masks import (
    Key,
    Offset,
    Rate,
    check_rate,
    dtype_text,
    is_plain_on_cpu,
    keep_mask,
)
from droppath_torch.sampling import sample_mask

# Up to this number of elements torch.where is faster than calls from Python, forward and backward.
WORTH_A_FUNCTION = 1 << 14


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
      key: uint32 [2] as droppath.key makes it, or an integer tensor [2].
      keep: bool [B], the mask itself in place of a draw.
      generator: what to draw from without key and keep; by default torch's own of x's device.
      mode: "row", "balanced" or "batch", as in `droppath.keep_mask`.
      scale_by_keep: False leaves kept samples as they are.
      scale_at: "eval" applies the factor 1 - drop_prob at evaluation instead (Huang et al. 2016).
      axis: index of the batch axis.
      groups, offset: as in `keep_mask`.

    Returns: tensor of x's shape, dtype and device.
    Raises: ValueError for arguments outside these ranges.

    >>> import droppath
    >>> drop_path(torch.ones(4), 0.5, key=droppath.key(0))
    tensor([2., 2., 0., 0.])

    Source: Huang et al. 2016, arXiv 1603.09382; droppath/SPEC.md.
    """
    at, p = checked(x, drop_prob, key, keep, mode, scale_at, axis)
    here = scale_by_keep and (scale_at == "train") == bool(training)  # SCALE-2, SCALE-3
    if not training:  # EVAL-1
        return _eval_scaled(x, p, at) if here else x
    if keep is None and not isinstance(p, Tensor) and p == 0:  # EVAL-2
        return x
    if keep is None and key is not None:
        options: dict[str, Any] = {"mode": mode, "groups": groups, "offset": offset}
        keep = keep_mask(key, p, x.shape[at], **options, device=x.device)
    elif keep is None:
        batch, device = x.shape[at], x.device
        keep = sample_mask(p, batch, mode=mode, groups=groups, generator=generator, device=device)
    if isinstance(p, Tensor) or p == 1:  # DROP-2
        keep = keep & (p < 1)
    return _select(x, keep, inverse(p, x) if here else 1.0, at)


def checked(
    x: Tensor,
    drop_prob: Rate,
    key: Key | None,
    keep: Tensor | None,
    mode: Mode,
    scale_at: ScaleAt,
    axis: int,
) -> tuple[int, Rate]:
    """Return x's batch axis and the rate, once all that can be wrong is checked."""
    if not isinstance(x, Tensor):
        raise ValueError(f"x must be a tensor, got {type(x).__name__}")
    at = check_axis(axis, x.shape, dtype_text(x))
    p = check_rate(drop_prob)
    check_scale_at(scale_at)
    check_mode(mode)
    check_one_source(key, keep)
    if keep is not None:
        text = dtype_text(keep) if isinstance(keep, Tensor) else type(keep).__name__
        check_keep(getattr(keep, "shape", ()), text, x.shape[at])
    return at, p


def inverse(p: Rate, x: Tensor) -> Rate:
    """SCALE-1: 1/(1-p) in float64, or in x's compute type if p is a tensor; 1 at p = 1."""
    if not isinstance(p, Tensor):
        return 1 / (1 - p) if p < 1 else 1.0
    keep_prob = 1 - p.to(_compute_type(x))
    return 1 / torch.where(keep_prob > 0, keep_prob, 1)


def _eval_scaled(x: Tensor, p: Rate, axis: int) -> Tensor:
    """SCALE-3: x * (1 - p), and +0 where that is 0."""
    keep = torch.full((x.shape[axis],), True, device=x.device) & (p < 1)
    return _select(x, keep, 1 - (p.to(_compute_type(x)) if isinstance(p, Tensor) else p), axis)


def _select(x: Tensor, keep: Tensor, s: Rate, axis: int) -> Tensor:
    """Return x * s where keep, +0 elsewhere; one rounding to x's dtype (SCALE-1, DROP-1)."""
    if x.numel() > WORTH_A_FUNCTION and not isinstance(s, Tensor) and is_plain_on_cpu(x, keep):
        return cast(Tensor, _KeepRows.apply(x, keep, s, axis))
    if isinstance(s, Tensor):
        y = (x.to(_compute_type(x)) * s.to(_compute_type(x))).to(x.dtype)
    else:
        y = x * s if s != 1 else x  # PyTorch multiplies by a number in the compute type
    column = keep.to(x.device).view([-1 if i == axis else 1 for i in range(x.ndim)])  # MASK-1
    return torch.where(column, y, 0)


def _compute_type(x: Tensor) -> torch.dtype:
    return torch.float64 if x.dtype == torch.float64 else torch.float32


class _KeepRows(torch.autograd.Function):
    """_keep_rows with its derivatives, which are the same map (GRAD-1, GRAD-2).

    On a CPU torch.where with a broadcast mask takes three to five times as long as a product.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, keep: Tensor, s: float, axis: int) -> Tensor:
        ctx.s, ctx.axis = s, axis
        ctx.keep = keep.tolist()  # a copy: the caller may write into keep before the backward
        ctx.dropped = [i for i, kept in enumerate(ctx.keep) if not kept]
        return _keep_rows(x, ctx.dropped, s, axis)

    @staticmethod
    def backward(ctx: Any, *dy: Tensor) -> Any:
        if torch.is_grad_enabled() or not is_plain_on_cpu(dy[0]):
            return _select(dy[0], torch.tensor(ctx.keep), ctx.s, ctx.axis), None, None, None
        return _keep_rows(dy[0], ctx.dropped, ctx.s, ctx.axis), None, None, None

    @staticmethod
    def jvp(ctx: Any, *dx: Tensor) -> Any:
        return _select(dx[0], torch.tensor(ctx.keep), ctx.s, ctx.axis)


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
