"""The DropPaths of a model by their paths, in the order in which they count."""

from collections.abc import Hashable, Sequence

from flax import nnx

from droppath.layers import in_order
from droppath_flax.modules import DropPath


def layers_of(model: nnx.Module, layers: Sequence[str] | None = None) -> dict[str, DropPath]:
    """Return the DropPaths of a model by their paths, in the order of their definition.

    layers: their paths in another order. Raises ValueError unless it has each of them once, for
    what is no module, and if there is no DropPath.
    """
    check_module(model)
    held = {path: m for path, m in nnx.iter_modules(model) if isinstance(m, DropPath)}
    if not held:
        raise ValueError("model must hold a DropPath of droppath_flax, got none")
    first = dict[tuple[Hashable, ...], int]()  # the smallest number of what lies under a path
    for path, drop in held.items():
        for part in (path[:n] for n in range(len(path) + 1)):
            first[part] = min(drop._number.value, first.get(part, drop._number.value))

    def place(path: tuple[Hashable, ...]) -> list[tuple[int, bool, Hashable]]:
        """By what was defined first, part by part; copies of one module go by their index."""
        parts = [(first[path[: n + 1]], name) for n, name in enumerate(path)]
        return [
            (number, not isinstance(name, int), name if isinstance(name, int) else str(name))
            for number, name in parts
        ]

    found = {dotted(path): held[path] for path in sorted(held, key=place)}
    return found if layers is None else {path: found[path] for path in in_order(found, layers)}


def dotted(path: tuple[Hashable, ...]) -> str:
    """Return a path as a text: `blocks.0.drop_path`."""
    return ".".join(map(str, path))


def check_module(model: object) -> None:
    """Raise unless model is an nnx.Module."""
    if not isinstance(model, nnx.Module):
        raise ValueError(f"model must be a flax.nnx.Module, got {type(model).__name__}")
