"""What the modules become for PyTorch's older ways to take a model apart: torch.fx and TorchScript.

torch.fx gets one call of a residual block. TorchScript knows no NumPy key, no union of types and no
keyword that is left out; so it gets a module of its own, which draws from torch's own generator
alone. PyTorch has deprecated TorchScript; that module is for programs that still need it. Not here:
torch.compile, which takes the modules as they are.
"""

from typing import Any, cast

import torch
from torch import Tensor, fx, nn

from droppath.arguments import Mode, ScaleAt
from droppath.scaling import scales
from droppath_torch.masks import Rate
from droppath_torch.residual import Branch, drop_path_residual

OPTIONS = "generator", "mode", "skip", "scale_by_keep", "scale_at", "axis", "groups"


class ScriptedDropPath(nn.Module):
    """drop_path by torch's own generator, mode "row" or "batch": the same rate, scale and axis."""

    def __init__(
        self, drop_prob: Rate, mode: Mode, scale_by_keep: bool, scale_at: ScaleAt, axis: int
    ) -> None:
        super().__init__()
        if isinstance(drop_prob, Tensor):
            raise ValueError("drop_prob must be a float for torch.jit.script, got a tensor")
        if mode == "balanced":
            raise ValueError("mode must be 'row' or 'batch' for torch.jit.script, got 'balanced'")
        self.drop_prob = drop_prob
        self.one_draw = mode == "batch"
        self.in_training = scales(True, scale_by_keep, scale_at)
        self.in_evaluation = scales(False, scale_by_keep, scale_at)
        self.axis = axis

    def forward(self, x: Tensor) -> Tensor:
        """Return x with dropped samples set to zero: floating [..., B, ...], same shape."""
        keep_prob = 1.0 - self.drop_prob
        if not self.training:
            if not self.in_evaluation:
                return x
            return x * keep_prob if keep_prob > 0.0 else torch.zeros_like(x)
        if self.drop_prob == 0.0:
            return x
        shape = [1 for _ in range(x.dim())]
        if not self.one_draw:
            shape[self.axis] = x.size(self.axis)
        drop = torch.empty(shape, dtype=torch.bool, device=x.device).bernoulli_(self.drop_prob)
        s = 1.0 / keep_prob if self.in_training and keep_prob > 0.0 else 1.0  # SCALE-1
        return torch.where(drop, torch.zeros_like(x), x * s)


def record_residual(block: Any, x: fx.Proxy, per_sample: Any, **given: Any) -> fx.Proxy:
    """Return the one call that torch.fx records: of the block, or at the root of what it does."""
    record = x.tracer.create_proxy
    if path := cast(fx.Tracer, x.tracer).path_of_module(block):
        return record("call_module", path, (x, *per_sample), given)
    if not isinstance(block.branch, nn.Module):
        raise ValueError("branch must be a module for torch.fx to trace the block by itself")
    branch = record("get_attr", "branch", (), {})
    given |= {name: getattr(block, name) for name in OPTIONS}
    arguments = x, branch, block.drop_prob, block.training, per_sample
    return record("call_function", call_residual, arguments, given)


def call_residual(
    x: Tensor, branch: Branch, p: Rate, training: bool, per_sample: tuple[Tensor, ...], **given: Any
) -> Tensor:
    """Call drop_path_residual as torch.fx can write it: with per_sample as one argument."""
    return drop_path_residual(x, branch, p, training, *per_sample, **given)
