"""Checks of the arguments that PyTorch alone has: devices, generators, models, copied branches.

All others are checked by droppath/arguments.py, and their forms as tensors in masks.py.
"""

import torch
from torch import Tensor, nn

from droppath_torch.arrays import Device, is_captured


def as_device(device: Device) -> torch.device | None:
    """Return device as PyTorch holds it. Raises ValueError for what names no device."""
    if device is None:
        return None
    try:
        return torch.device(device)
    except (RuntimeError, TypeError):
        raise ValueError(f"device must be a torch.device or its name, got {device!r}") from None


def check_generator(generator: object) -> None:
    """Raise unless generator is a torch.Generator or None."""
    if not (generator is None or isinstance(generator, torch.Generator)):
        raise ValueError(f"generator must be a torch.Generator or None, got {generator!r}")


def check_captured(device: torch.device | None, **sources: object) -> None:
    """Raise where a CUDA graph records the call, if a source of its mask is the host's."""
    given = [(name, source) for name, source in sources.items() if source is not None]
    if not given or not is_captured(device):
        return
    for name, source in given:
        if not (isinstance(source, Tensor | torch.Generator) and source.device.type == "cuda"):
            raise ValueError(
                f"{name} must be on {device} within a CUDA graph, which would repeat at each "
                "replay what the host draws: give key as a tensor there, and write the next key "
                "into it between replays"
            )


def check_module(model: object) -> None:
    """Raise unless model is a torch.nn.Module."""
    if not isinstance(model, nn.Module):
        raise ValueError(f"model must be a torch.nn.Module, got {type(model).__name__}")


def check_copied(branch: object) -> None:
    """Raise if branch is a function that holds modules or tensors: a copy would share them.

    Seen is what its closure and its defaults hold, and not what it finds in global variables.
    """
    held = [cell.cell_contents for cell in getattr(branch, "__closure__", None) or ()]
    held += getattr(branch, "__defaults__", None) or ()
    held += (getattr(branch, "__kwdefaults__", None) or {}).values()
    held += [item for value in held if isinstance(value, list | tuple) for item in value]
    held += [item for value in held if isinstance(value, dict) for item in value.values()]
    if any(isinstance(value, nn.Module | Tensor) for value in held):
        raise ValueError(
            "branch must be a module or a bound method to be copied: a function that holds "
            f"modules computes with the original's, got {branch!r}"
        )


def check_nothing_given(**given: object) -> None:
    """Raise if a call whose branch has begun is given what its mask would have come from."""
    for name, value in given.items():
        if value is not None and not (isinstance(value, int) and value == 0):
            raise ValueError(f"{name} must not be given where a branch is skipped, got {value!r}")
