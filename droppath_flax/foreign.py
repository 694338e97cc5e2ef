"""How the drop paths of other libraries are known: no such library is imported.

A layer is known by the name of its class. Not seen: nnx.Dropout with broadcast_dims, which may be
any dropout, and functions.
"""

from flax import nnx

from droppath_flax.layers import check_module, dotted
from droppath_flax.modules import DropPath
from droppath_flax.order import modules_of


def is_theirs(module: nnx.Module) -> bool:
    """Return whether module is a DropPath of another library, by the name of its class."""
    name = type(module).__name__
    named = name.endswith("DropPath") or name == "StochasticDepth"
    return named and not isinstance(module, DropPath)


def check_draws(model: nnx.Module) -> None:
    """Raise unless all that is seen to draw in model is a DropPath of ours."""
    check_module(model)
    for path, module in modules_of(model).items():
        if is_theirs(module):
            raise ValueError(
                f"model must hold DropPaths of droppath_flax, got {type(module).__name__} at "
                f"{dotted(path) or 'model'}: put a droppath_flax.DropPath in its place"
            )
