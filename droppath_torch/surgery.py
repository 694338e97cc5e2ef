"""set_drop_probs and convert: the DropPaths of a model that exists, their rates, and their class.

Not here: how their layers are known (foreign.py), and residual blocks, which need a
DropPathResidual in the model's own code to skip.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch import nn

from droppath.arguments import Mode, check_mode
from droppath.layers import rates_of
from droppath_torch.arguments import check_module
from droppath_torch.foreign import is_place, is_theirs
from droppath_torch.layers import layers_of
from droppath_torch.masks import Rate, check_rate
from droppath_torch.modules import DropPath

# What the layers hold, of timm.layers, of torchvision.ops and of transformers' models.
FORMS = {"drop_prob", "scale_by_keep"}, {"p", "mode"}, {"drop_prob"}


def set_drop_probs(
    model: nn.Module,
    rates: Rate | Sequence[Rate] | NDArray[np.floating],
    *,
    layers: Sequence[str] | None = None,
) -> None:
    """Set the rate of every DropPath of a model, DropPathResiduals included.

    Args:
      rates: a rate for all; or one for each DropPath, in the order of `model.modules()`, where a
        layer that is used twice counts once; or one for each block, which is the module that holds
        a DropPath as its own child, in the order of their first ones. Where there are as many
        blocks as DropPaths this is the same. Rates as in `DropPath`.
      layers: the paths of all DropPaths, in the order of the rates, where it is another one.

    Raises: ValueError, before any rate is set, for a rate outside [0, 1], for another number of
      rates than of DropPaths or of blocks, for other `layers`, and if there is no DropPath.

    >>> import droppath
    >>> model = nn.Sequential(DropPath(), DropPath(), DropPath())
    >>> set_drop_probs(model, droppath.drop_path_rates(0.2, 3))
    >>> [layer.drop_prob for layer in model]
    [0.0, 0.1, 0.2]
    """
    found = layers_of(model, layers)
    checked = rates_of(rates, list(found), check_rate)
    for layer, rate in zip(found.values(), checked, strict=True):
        layer.drop_prob = rate


def convert(model: nn.Module, *, mode: Mode | None = None) -> nn.Module:
    """Return model with the DropPaths of other libraries swapped, in place, for droppath_torch's.

    Swapped is every module whose class is named StochasticDepth or ...DropPath, as in timm,
    torchvision and transformers: for a DropPath of the same rate (None is 0), mode, scale_by_keep
    and training flag. And every nn.Identity that its parent holds as drop_path, drop_path1, ... or
    stochastic_depth, alone or after `_` (attn_drop_path), where such libraries put it for a rate of
    0: for a DropPath of rate 0. So a model built with a rate of 0 has all its
    layers; set their rates by `set_drop_probs`. A layer that is used twice stays one; names in the
    state dict stay. Hooks on the layers are lost. What stays: functions that the model calls, and
    what is left out where a rate is 0. `print(droppath_torch.summary(model))` shows what there is.

    Args:
      model: any module; if it is such a layer itself, the new layer is returned.
      mode: of all that is swapped, "balanced" for `skip_dropped`; None keeps that of torchvision's
        layers, and is "row" for others.

    Raises: ValueError, before anything is swapped, if such a class holds anything but drop_prob,
      drop_prob and scale_by_keep, or p and mode; or values that DropPath refuses; and if model
      holds nothing to swap and no DropPath of ours.

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
    if mode is not None:
        check_mode(mode)
    swaps = {
        module: _ours(module, path or "model")
        for path, module in model.named_modules()
        if is_theirs(module)
    }
    if not (swaps or any(isinstance(m, DropPath) or _places(m) for m in model.modules())):
        raise ValueError(
            "model must hold a DropPath of timm, torchvision or transformers, or of "
            "droppath_torch, got none"
        )
    zeros: dict[nn.Module, DropPath] = {}
    for parent in list(model.modules()):
        for name in _places(parent):
            identity = parent._modules[name]
            assert identity is not None
            setattr(parent, name, zeros.setdefault(identity, DropPath().train(identity.training)))
        for name, child in list(parent._modules.items()):  # named_children gives a shared one once
            if child in swaps:
                setattr(parent, name, swaps[child])
    for ours in (*swaps.values(), *zeros.values()):
        ours.mode = mode or ours.mode
    return swaps.get(model, model)


def _places(parent: nn.Module) -> list[str]:
    """Return the names of the children that stand in place of a DropPath of rate 0."""
    children = parent._modules.items()
    return [name for name, child in children if child is not None and is_place(child, name)]


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
