"""A model of a library as listed, and its input. Not here: what is tried with it (torch_trial.py).

Nothing is downloaded: timm and torchvision build without weights, transformers from configurations.
"""

import importlib
import inspect
import warnings
from typing import Any

import torch
from torch import nn

from benchmarks.models.listed import Model
from conformance.adapters.torch_module import import_torchvision

RATE = 0.3  # above 0, so that the library puts its own DropPath wherever its schedule is not 0
SMALL = 0.01  # parameters that begin below: LayerScale, the last norm of a branch, biases
SPREAD = 0.1  # of what they are set to


def build(model: Model) -> nn.Module:
    """Return the model in training mode: no parameter near zero, no Dropout that drops."""
    import_torchvision()  # timm and transformers import it too
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of libraries, about one another's versions
        built: nn.Module = BUILDERS[model.library](model).train()
    for module in built.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.p = 0.0  # it draws from torch's generator, which `keyed` leaves alone
    with torch.no_grad():
        for p in built.parameters():
            if p.numel() and p.abs().max() < SMALL:  # else a branch gives 0, and any mask would do
                p.normal_(std=SPREAD)
    return built


def inputs(model: Model, module: nn.Module, batch: int) -> dict[str, Any]:
    """Return what a batch of the model is: its first argument by name, of random numbers."""
    name = next(iter(inspect.signature(module.forward).parameters))
    generator = torch.Generator().manual_seed(1)
    return {name: torch.randn(batch, *model.shape, generator=generator)}


def _timm(model: Model) -> Any:
    import timm

    return timm.create_model(
        model.name, pretrained=False, drop_path_rate=RATE, num_classes=10, **model.options
    )


def _torchvision(model: Model) -> Any:
    options = {"stochastic_depth_prob": RATE, "num_classes": 10, **model.options}
    place, _, name = f"torchvision.models.{model.name}".rpartition(".")
    return getattr(importlib.import_module(place), name)(**options)


def _transformers(model: Model) -> Any:
    place, _, name = f"transformers.{model.name}".rpartition(".")
    made = getattr(importlib.import_module(place), name)
    return made(made.config_class(drop_path_rate=RATE, **model.options))


BUILDERS = {"timm": _timm, "torchvision": _torchvision, "transformers": _transformers}
