"""summary: which layers of a model drop paths, how, and what they skip, as a table in plain text.

Not here: anything that changes the model.
"""

from typing import Any

import torch
from torch import Tensor, nn

from droppath.layers import Layer, Summary, what_skips
from droppath_torch.arguments import check_module
from droppath_torch.foreign import functions_of, is_place, is_theirs
from droppath_torch.functional import is_zero
from droppath_torch.modules import DropPath, DropPathResidual


def summary(model: nn.Module, *example: Any, **kwargs: Any) -> Summary:
    """Return what drops paths in a model: path, class, rate, mode, calls, and what is skipped.

    Listed are DropPaths of ours, those of other libraries, each nn.Identity that `convert` would
    swap, and functions that are seen to be called.

    Args:
      model: any module.
      example, kwargs: arguments of the model. Given some, it is run once, in evaluation and without
        gradients, and the calls of each layer are counted.

    Raises: ValueError for what is no module; what the model raises for the example.

    >>> model = nn.Sequential(DropPath(0.1), DropPathResidual(nn.Tanh(), 0.2))
    >>> print(summary(model, torch.ones(2)))
    path  class             rate   mode      calls  skips
    0     DropPath          0.100  row       1      no: see skip_dropped
    1     DropPathResidual  0.200  balanced  1      rows that are dropped
    """
    check_module(model)
    calls = _counted(model, example, kwargs) if example or kwargs else {}
    lines = []
    for path, module in model.named_modules():
        of, kind = path or "model", type(module).__name__
        count = calls.get(module, 0) if example or kwargs else None
        if isinstance(module, DropPath):
            rate = float(module.drop_prob)
            lines.append(Layer(of, kind, rate, module.mode, count, _skips(module)))
        elif is_theirs(module) or is_place(module, path):
            lines.append(Layer(of, kind, None, None, count, "no: convert(model) swaps it"))
        else:
            for name in functions_of(module):
                text = "no: a function, out of reach of keyed"
                lines.append(Layer(of, f"{name}()", None, None, None, text))
    return Summary(tuple(lines))


def _skips(layer: DropPath) -> str:
    why_not = "the rate is 0" if is_zero(layer.drop_prob) else ""
    why_not = "the rate is a tensor" if isinstance(layer.drop_prob, Tensor) else why_not
    return what_skips(layer, isinstance(layer, DropPathResidual), why_not)


def _counted(model: nn.Module, example: Any, kwargs: Any) -> dict[nn.Module, int]:
    """Return how often a forward in evaluation calls each module."""
    calls: dict[nn.Module, int] = {}

    def count(module: nn.Module, _: Any) -> None:
        calls[module] = calls.get(module, 0) + 1

    training = {module: module.training for module in model.modules()}
    hooks = [module.register_forward_pre_hook(count) for module in training]
    try:
        with torch.no_grad():
            model.eval()(*example, **kwargs)
    finally:
        for hook in hooks:
            hook.remove()
        for module, flag in training.items():
            module.training = flag
    return calls
