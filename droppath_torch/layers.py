"""The DropPaths of a model by their paths, in the order in which they count."""

from collections.abc import Sequence

from torch import nn

from droppath.layers import in_order
from droppath_torch.arguments import check_module
from droppath_torch.modules import DropPath


def layers_of(model: nn.Module, layers: Sequence[str] | None = None) -> dict[str, DropPath]:
    """Return the DropPaths of a model by their paths, in the order of `model.modules()`.

    layers: their paths in another order. Raises ValueError unless it has each of them once, for
    what is no module, and if there is no DropPath.
    """
    check_module(model)
    found = {path: m for path, m in model.named_modules() if isinstance(m, DropPath)}
    if not found:
        raise ValueError("model must hold a DropPath of droppath_torch, got none")
    return found if layers is None else {path: found[path] for path in in_order(found, layers)}
