"""How the drop paths of other libraries are known: no such library is imported.

A layer is known by the name of its class. Not seen: nnx.Dropout with broadcast_dims, which may be
any dropout, and functions.
"""

from collections.abc import Mapping

from flax import nnx

from droppath_flax.layers import dotted
from droppath_flax.modules import DropPath
from droppath_flax.order import Path


def is_theirs(module: nnx.Module) -> bool:
    """Return whether module is a DropPath of another library, by the name of its class."""
    name = type(module).__name__
    named = name.endswith("DropPath") or name == "StochasticDepth"
    return named and not isinstance(module, DropPath)


def check_draws(modules: Mapping[Path, nnx.Module]) -> None:
    """Raise unless all that is seen to draw, of a model's modules, is a DropPath of ours."""
    for path, module in modules.items():
        if is_theirs(module):
            raise ValueError(
                f"model must hold DropPaths of droppath_flax, got {type(module).__name__} at "
                f"{dotted(path) or 'model'}: put a droppath_flax.DropPath in its place"
            )
