"""A training step of any model, and one rate for a model and its converted copy."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from droppath_torch import DropPath
from droppath_torch.foreign import is_theirs


def step(module: nn.Module, batch: dict[str, Any]) -> list[Tensor]:
    """Run forward and backward. Returns the outputs, then the gradient of each parameter."""
    outputs = floats(module(**batch))
    loss = torch.stack([y.square().mean() for y in outputs]).sum()
    parameters = [p for p in module.parameters() if p.requires_grad]
    gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
    return outputs + [torch.zeros(()) if dp is None else dp for dp in gradients]


def floats(output: Any) -> list[Tensor]:
    """Return the tensors of an output that are floating, in whatever they are wrapped."""
    return [y for y in tree_leaves(output) if isinstance(y, Tensor) and y.is_floating_point()]


def set_same_rate(theirs: nn.Module, ours: nn.Module, drop_prob: float) -> None:
    """Set the rate of a model's own layers, and of those in their places in its converted copy.

    Where the model has an nn.Identity it drops nothing, and so the copy's rate there is 0.
    """
    places = set()
    for path, module in theirs.named_modules():
        if is_theirs(module):
            places.add(path)
            setattr(module, "p" if hasattr(module, "p") else "drop_prob", drop_prob)
    for path, module in ours.named_modules():
        if isinstance(module, DropPath):
            module.drop_prob = drop_prob if path in places else 0.0
