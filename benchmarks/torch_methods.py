"""Each method in PyTorch: a residual block around a branch, and the plain op where it has one.

timm and torchvision themselves take part where they are installed. What DINOv2 and torchtune do is
bound to their own models, so the method is written anew, without what does not bear on speed.
"""

from collections.abc import Callable
from functools import cache, partial
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any, TypeAlias, cast

import torch
from torch import Tensor, nn

from conformance.adapters.torch_module import import_torchvision
from droppath_torch import DropPath, DropPathResidual

Branch: TypeAlias = Callable[[Tensor], Tensor]

RAGGED = ("torchtune", "row-skip")  # how many rows run is known only when they are drawn


@cache
def peers() -> dict[str, tuple[str, Callable[[float], nn.Module]]]:
    """Return the plain ops of others: method -> label, and the module for a drop_prob."""
    found: dict[str, tuple[str, Callable[[float], nn.Module]]] = {
        "timm": ("timm's method", ScaledMask)
    }
    import_torchvision()
    if find_spec("timm"):
        from timm.layers import DropPath as TimmDropPath

        found["timm"] = f"timm {version('timm')}", TimmDropPath
    if find_spec("torchvision"):
        from torchvision.ops import StochasticDepth

        label = f"torchvision {version('torchvision')}"
        found["torchvision"] = label, partial(StochasticDepth, mode="row")
    return found


def op(method: str, drop_prob: float) -> nn.Module:
    """Return x -> drop_path(x); for "none" a copy. Raises KeyError if the method has none."""
    if method in peers():
        return peers()[method][1](drop_prob)
    if method == "none":
        return Copy()
    return {mode: DropPath(drop_prob, mode=mode) for mode in ("row", "balanced", "batch")}[method]


def residual(method: str, branch: Branch, drop_prob: float) -> nn.Module:
    """Return x -> x + drop_path(branch(x)). Raises KeyError for what there is not."""
    if method in peers():
        return Residual(branch, peers()[method][1](drop_prob))
    makers: dict[str, Callable[[], nn.Module]] = {
        "none": partial(Residual, branch, nn.Identity()),
        "dinov2": partial(Subset, branch, drop_prob),
        "torchtune": partial(RaggedRows, branch, drop_prob),
        "row": partial(Residual, branch, DropPath(drop_prob)),
        "row-skip": partial(DropPathResidual, branch, drop_prob, mode="row"),
        "balanced": partial(DropPathResidual, branch, drop_prob),
        "batch": partial(DropPathResidual, branch, drop_prob, mode="batch"),
    }
    return makers[method]()


class Residual(nn.Module):
    """x -> x + op(branch(x)): the branch runs on all samples."""

    def __init__(self, branch: Branch, op: nn.Module) -> None:
        super().__init__()
        self.branch, self.op = branch, op

    def forward(self, x: Tensor) -> Tensor:
        return x + self.op(self.branch(x))


class ScaledMask(nn.Module):
    """timm's method: x times a mask, which is 1 / (1 - drop_prob) or 0, of x's dtype."""

    def __init__(self, drop_prob: float) -> None:
        super().__init__()
        self.keep_prob = 1 - drop_prob

    def forward(self, x: Tensor) -> Tensor:
        mask = x.new_empty([len(x)] + [1] * (x.ndim - 1)).bernoulli_(self.keep_prob)
        return x * mask.div_(self.keep_prob)


class Subset(nn.Module):
    """DINOv2's method: the branch runs on B * (1 - drop_prob) samples, rounded down, at least one.

    Source: arXiv 2304.07193, section 5.
    """

    def __init__(self, branch: Branch, drop_prob: float) -> None:
        super().__init__()
        self.branch, self.keep_prob = branch, 1 - drop_prob

    def forward(self, x: Tensor) -> Tensor:
        kept = max(int(len(x) * self.keep_prob), 1)
        rows = torch.randperm(len(x), device=x.device)[:kept]
        f = self.branch(x[rows]).to(x.dtype)
        y = x.flatten(1).index_add(0, rows, f.flatten(1), alpha=len(x) / kept)
        return y.view_as(x)


class RaggedRows(nn.Module):
    """torchtune's method: one draw for each sample, only those kept run, nothing is scaled."""

    def __init__(self, branch: Branch, drop_prob: float) -> None:
        super().__init__()
        self.branch, self.drop_prob = branch, drop_prob

    def forward(self, x: Tensor) -> Tensor:
        drop = torch.bernoulli(torch.full([len(x)], self.drop_prob)).to(x.device)
        rows = (drop == 0).nonzero().flatten()  # waits for the device
        y = x.clone()
        if len(rows):
            taken = x.index_select(0, rows)
            y[rows] = taken + self.branch(taken)
        return y


class Copy(nn.Module):
    """x -> a copy of x, and of the gradient: what any op that writes its result must move."""

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, _Copy.apply(x))


class _Copy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *dy: Tensor) -> Tensor:
        return dy[0].clone()


@cache
def realised_rate(method: str, drop_prob: float, batch: int, draws: int) -> float:
    """Return the share of samples dropped in `draws` draws: those to which ones are not added.

    Where samples, or groups of them, are drawn by themselves, one call makes all draws.
    """
    torch.manual_seed(0)
    calls = draws if method in ("dinov2", "batch") else 1
    layer = residual(method, torch.ones_like, drop_prob)
    if isinstance(layer, DropPathResidual):
        layer.groups = draws // calls
    x = torch.zeros(batch * draws // calls, 1)
    with torch.no_grad():
        dropped = sum(int((layer(x) == 0).sum()) for _ in range(calls))
    return dropped / (batch * draws)
