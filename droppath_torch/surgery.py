"""set_drop_probs and convert: the DropPaths of a model that exists, their rates, and their class.

Other libraries are not imported: their layers are known by the name of the class and by what it
holds. Not here: residual blocks, which need a DropPathResidual in the model's own code to skip.
"""

from collections.abc import Iterable, Sequence
from typing import cast

import numpy as np
from numpy.typing import NDArray
from torch import nn

from droppath.schedules import TEXT
from droppath_torch.arguments import check_module
from droppath_torch.masks import Rate, check_rate
from droppath_torch.modules import DropPath

# What the layers hold, of timm.layers, of torchvision.ops and of transformers' models.
FORMS = {"drop_prob", "scale_by_keep"}, {"p", "mode"}, {"drop_prob"}


def set_drop_probs(model: nn.Module, rates: Rate | Sequence[Rate] | NDArray[np.floating]) -> None:
    """Set the rate of every DropPath of a model, DropPathResiduals included.

    Args:
      rates: a rate for all; or one for each, in the order of `model.modules()`, where a layer that
        is used twice counts once, and a block may hold two. Rates as in `DropPath`.

    Raises: ValueError, before any rate is set, for a rate outside [0, 1], for another number of
      rates than of DropPaths, and if there is no DropPath.

    >>> import droppath
    >>> model = nn.Sequential(DropPath(), DropPath(), DropPath())
    >>> set_drop_probs(model, droppath.drop_path_rates(0.2, 3))
    >>> [layer.drop_prob for layer in model]
    [0.0, 0.1, 0.2]
    """
    check_module(model)
    layers = [module for module in model.modules() if isinstance(module, DropPath)]
    if not layers:
        raise ValueError("model must hold a DropPath of droppath_torch, got none")
    for layer, rate in zip(layers, _rates(rates, len(layers)), strict=True):
        layer.drop_prob = rate


def _rates(rates: Rate | Sequence[Rate] | NDArray[np.floating], count: int) -> Sequence[Rate]:
    """Return the rate of each of `count` layers, all of them checked."""
    several = isinstance(rates, Sequence) and not isinstance(rates, TEXT)
    if not (several or getattr(rates, "ndim", None)):
        return [check_rate(cast(Rate, rates), "rates")] * count
    given = list(cast(Iterable[object], rates))
    if len(given) != count:
        raise ValueError(f"rates must be {count}, one for each DropPath, got {len(given)}")
    return [check_rate(cast(Rate, rate), f"rates[{i}]") for i, rate in enumerate(given)]


def convert(model: nn.Module) -> nn.Module:
    """Return model with the DropPaths of other libraries swapped, in place, for droppath_torch's.

    Swapped is every module whose class is named StochasticDepth or ...DropPath, as in timm,
    torchvision and transformers: for a DropPath of the same rate (None is 0), mode, scale_by_keep
    and training flag. A layer that is used twice stays one; names in the state dict stay. Hooks on
    the layers are lost. What stays: functions that the model calls, and the nn.Identity that many
    models hold in place of a DropPath of rate 0, which nothing tells from any other. Build such a
    model with a small rate, convert it, then call `set_drop_probs`.

    Args:
      model: any module; if it is such a layer itself, the new layer is returned.

    Raises: ValueError, before anything is swapped, if such a class holds anything but drop_prob,
      drop_prob and scale_by_keep, or p and mode; or values that DropPath refuses.

    >>> class SwinDropPath(nn.Module):  # as in transformers
    ...     def __init__(self, drop_prob):
    ...         super().__init__()
    ...         self.drop_prob = drop_prob
    >>> convert(nn.Sequential(nn.Tanh(), SwinDropPath(0.1)))
    Sequential(
      (0): Tanh()
      (1): DropPath(drop_prob=0.100)
    )
    """
    check_module(model)
    swaps = {
        module: _ours(module, path or "model")
        for path, module in model.named_modules()
        if _is_theirs(module)
    }
    for parent in list(model.modules()):
        for name, child in list(parent._modules.items()):  # named_children gives a shared one once
            if child in swaps:
                setattr(parent, name, swaps[child])
    return swaps.get(model, model)


def _is_theirs(module: nn.Module) -> bool:
    name = type(module).__name__
    named = name.endswith("DropPath") or name == "StochasticDepth"
    return named and not isinstance(module, DropPath)


def _ours(module: nn.Module, path: str) -> DropPath:
    """Return the DropPath that does what a layer of another library does."""
    options = {k: v for k, v in vars(module).items() if k != "training" and not k.startswith("_")}
    held = {*options, *module._parameters, *module._buffers, *module._modules}
    if held not in FORMS:
        raise ValueError(
            f"{path} must hold drop_prob, drop_prob and scale_by_keep, or p and mode, got "
            f"{type(module).__name__} with {', '.join(sorted(held)) or 'nothing'}"
        )
    rate = options.pop("p" if "p" in options else "drop_prob")
    try:
        ours = DropPath(0.0 if rate is None else rate, **options)
    except ValueError as error:
        raise ValueError(f"{path} must be a DropPath: {error}") from error
    return ours.train(module.training)
