"""drop_path_stack for PyTorch: layers one after the other, of which a plan runs some."""

from collections.abc import Iterable, Sequence
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from droppath.arguments import (
    ScaleAt,
    check_axis,
    check_branch,
    check_branches,
    check_flags,
    check_scale_at,
)
from droppath.plans import Rates, check_plan, check_stack
from droppath.scaling import inverse_keep_prob, scales
from droppath_torch.arrays import dtype_text
from droppath_torch.plans import Key, layer_plan
from droppath_torch.residual import Branch
from droppath_torch.rows import add_rows


def drop_path_stack(
    x: Tensor,
    branches: Iterable[Branch],
    rates: Rates,
    training: bool = True,
    *,
    key: Key | None = None,
    plan: NDArray[np.bool_] | Tensor | None = None,
    scale_by_keep: bool = True,
    scale_at: ScaleAt = "train",
    zero_gradients: bool = False,
) -> Tensor:
    """Return x after a stack of layers, x = x + branch(x) / (1 - rate), of which a plan runs some.

    A layer that the plan drops is not called, and x passes it unchanged: it costs nothing, and its
    parameters get no gradient in this step. The host calls the layers, so that each may be compiled
    by itself (`layer.compile()`) and no program depends on the plan. With one key all ranks run the
    same layers.

    Args:
      x: floating [B, ...].
      branches: L callables, as an nn.ModuleList, each [B, ...] to the same shape: what the layer
        adds. For a whole block with its own additions that is block(x) - x.
      rates: the drop_prob of each layer, L numbers in [0, 1].
      training: False runs all layers, without a key.
      key: draws the plan, as in `layer_plan`.
      plan: bool [L] on the CPU, the plan itself in place of a key.
      scale_by_keep, scale_at: as in `drop_path`, for each layer.
      zero_gradients: True gives the parameters of a dropped layer, if it is an nn.Module, zeros for
        gradients. Else they get none, and an optimizer of PyTorch leaves them and their state as
        they are; with zeros AdamW decays them, and moves them on by their momentum, as optax does.
        DistributedDataParallel then needs no `find_unused_parameters`.

    Returns: tensor of x's shape, dtype and device.
    Raises: ValueError for arguments outside these ranges, and for a missing key.

    >>> import droppath, torch
    >>> x, branches = torch.zeros(1), [torch.ones_like] * 4
    >>> drop_path_stack(x, branches, [0.5] * 4, key=droppath.key(0))  # two layers run, each twofold
    tensor([4.])

    Source: Huang et al. 2016, arXiv 1603.09382; droppath/SPEC.md, area PLAN.
    """
    check_flags(training=training, scale_by_keep=scale_by_keep, zero_gradients=zero_gradients)
    check_scale_at(scale_at)
    if not isinstance(x, Tensor):
        raise ValueError(f"x must be a tensor, got {type(x).__name__}")
    check_axis(0, x.shape, dtype_text(x))
    called = check_branches(branches)
    check_stack(rates, len(called), key, plan, training)
    scaled = scales(training, scale_by_keep, scale_at)  # SCALE-2, SCALE-3
    late = scaled and not training
    runs = _plan(key, plan, rates) if training else [True] * len(called)
    # PURE-3, SCALE-3: at p = 1 nothing is added
    runs = [run and (p < 1 or not (training or late)) for p, run in zip(rates, runs, strict=True)]
    idle = _idle_after(called, runs) if zero_gradients else {}
    x = _with_zeros(x, idle.get(-1, ()))
    for layer, (branch, p) in enumerate(zip(called, rates, strict=True)):
        if runs[layer]:
            f = branch(x)
            check_branch(f.shape, dtype_text(f), x.shape, "branches")
            s = 1.0 - p if late else inverse_keep_prob(p) if scaled else 1.0
            x = add_rows(x, _with_zeros(f, idle.get(layer, ())), None, s, 0)
    return x


def _plan(key: Key | None, plan: NDArray[np.bool_] | Tensor | None, rates: Rates) -> list[bool]:
    """Return whether each layer runs, in training."""
    if key is not None:
        return layer_plan(key, rates).tolist()
    if isinstance(plan, Tensor) and not plan.is_cpu:
        raise ValueError(f"plan must be on the CPU, which calls the layers, got {plan.device}")
    given = plan.numpy() if isinstance(plan, Tensor) else np.asarray(plan)
    check_plan(given.shape, given.dtype.name, len(rates))
    return given.tolist()


def _idle_after(branches: list[Branch], runs: list[bool]) -> dict[int, list[nn.Parameter]]:
    """Return the parameters of the layers that do not run, by the layer before them that does.

    So zeros come when the gradients of their neighbours do. Those before all others are at -1.
    """
    found: dict[int, list[nn.Parameter]] = {}
    last = -1
    for layer, branch in enumerate(branches):
        if runs[layer]:
            last = layer
        elif isinstance(branch, nn.Module):
            trained = [w for w in branch.parameters() if w.requires_grad]
            found.setdefault(last, []).extend(trained)
    return found


def _with_zeros(x: Tensor, parameters: Sequence[nn.Parameter]) -> Tensor:
    """Return x, whose backward gives zeros to the parameters."""
    return cast(Tensor, _Zeros.apply(x, *parameters)) if parameters else x


class _Zeros(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, *parameters: Tensor) -> Tensor:
        ctx.parameters = parameters
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *dy: Tensor) -> tuple[Tensor, ...]:
        return *dy, *map(torch.zeros_like, ctx.parameters)
