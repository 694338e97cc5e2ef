"""How the drop paths of other libraries are known: no such library is imported.

A layer is known by the name of its class, the nn.Identity in place of one by its own name in its
parent, a function by its name, where it is recorded by torch.fx or loaded by a module's code. Not
here: what is put in their place (surgery.py).
"""

import dis
import re
from collections.abc import Iterator
from functools import cache
from types import FunctionType
from typing import Any

from torch import fx, nn

from droppath_torch.arrays import is_compiling
from droppath_torch.functional import drop_path
from droppath_torch.modules import DropPath
from droppath_torch.traced import ScriptedDropPath

# Where timm and transformers hold nn.Identity for a rate of 0, and torchvision's forks do.
PLACES = re.compile(r"(.*_)?(drop_path\d*|stochastic_depth)")
FUNCTIONS = "drop_path", "stochastic_depth"  # of timm and transformers, of torchvision


def is_theirs(module: nn.Module) -> bool:
    """Return whether module is a DropPath of another library, by the name of its class."""
    name = type(module).__name__
    named = name.endswith("DropPath") or name == "StochasticDepth"
    return named and not isinstance(module, DropPath | ScriptedDropPath)


def is_place(module: nn.Module, path: str) -> bool:
    """Return whether module is an nn.Identity where such libraries put a DropPath."""
    return type(module) is nn.Identity and bool(PLACES.fullmatch(path.rpartition(".")[2]))


def check_draws(model: nn.Module) -> None:
    """Raise unless all that is seen to draw in model is a DropPath of ours.

    Not seen: functions under another name, and those that a module's code finds in another module.
    """
    for path, module in model.named_modules():
        where = path or "model"
        if is_theirs(module):
            raise ValueError(
                f"model must hold DropPaths of droppath_torch, got {type(module).__name__} at "
                f"{where}: swap it by convert"
            )
        # torch.compile cannot read code objects
        for name in () if is_compiling() else functions_of(module):
            raise ValueError(
                f"model must draw by DropPath modules, got a call of the function {name} in "
                f"{where}, which keyed does not reach"
            )


def functions_of(module: nn.Module) -> Iterator[str]:
    """Yield the functions that drop paths and that module is seen to call without a key."""
    if isinstance(module, fx.GraphModule):
        for node in module.graph.nodes:
            called = node.target if node.op == "call_function" else None
            given = [node.kwargs.get(name) for name in ("key", "keep")]
            if getattr(called, "__name__", "") in FUNCTIONS and given == [None, None]:
                yield node.target.__name__
    elif not isinstance(module, DropPath):
        of: Any = type(module)
        yield from _functions_of_class(of)


@cache
def _functions_of_class(of: Any) -> tuple[str, ...]:
    """Return the functions of other libraries that the methods of a class load by their names."""
    found = []
    for base in of.__mro__[: of.__mro__.index(nn.Module)]:
        for method in filter(lambda each: isinstance(each, FunctionType), vars(base).values()):
            for step in dis.get_instructions(method):
                if step.opname == "LOAD_GLOBAL" and step.argval in FUNCTIONS:
                    called = method.__globals__.get(step.argval)
                    if isinstance(called, FunctionType) and called is not drop_path:
                        found.append(step.argval)
    return tuple(found)
