"""The DropPaths of a model by their paths, in the order in which they count."""

from collections.abc import Mapping, Sequence

from flax import nnx

from droppath.layers import in_order
from droppath_flax.modules import DropPath
from droppath_flax.order import Path, modules_of


def layers_of(
    model: nnx.Module,
    layers: Sequence[str] | None = None,
    modules: Mapping[Path, nnx.Module] | None = None,
) -> dict[str, DropPath]:
    """Return the DropPaths of a model by their paths, in the order of their definition.

    layers: their paths in another order. modules: the model's, where they are known. Raises
    ValueError unless it has each of them once, for what is no module, and if there is no DropPath.
    """
    check_module(model)
    found = drops_of(modules_of(model) if modules is None else modules)
    if not found:
        raise ValueError("model must hold a DropPath of droppath_flax, got none")
    return found if layers is None else {path: found[path] for path in in_order(found, layers)}


def drops_of(modules: Mapping[Path, nnx.Module]) -> dict[str, DropPath]:
    """Return those modules that are DropPaths, with their paths as texts."""
    return {dotted(path): m for path, m in modules.items() if isinstance(m, DropPath)}


def dotted(path: Path) -> str:
    """Return a path as a text: `blocks.0.drop_path`."""
    return ".".join(map(str, path))


def check_module(model: object) -> None:
    """Raise unless model is an nnx.Module."""
    if not isinstance(model, nnx.Module):
        raise ValueError(f"model must be a flax.nnx.Module, got {type(model).__name__}")
