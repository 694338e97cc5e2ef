"""The modules of a model in the order of their definition, which Flax does not keep.

Flax sorts attributes by name whenever it splits and merges a model. So the order is that in which
the code of a class assigns its attributes, be it `__init__` or another method: the same for every
instance, copy and trace. What no code names, such as keys of a dict, goes by name, numbers by
value.
"""

import dis
import inspect
import re
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from functools import cache
from types import FunctionType
from typing import Any, TypeAlias

import jax
from flax import nnx

Path: TypeAlias = tuple[int | str, ...]  # from a model to a module of it

# Modules may be shared, also in the mode without graphs, which Flax 0.12.3 does not have yet.
GRAPH: dict[str, Any] = (
    {"graph": True} if "graph" in inspect.signature(nnx.split).parameters else {}
)


def modules_of(model: nnx.Module) -> dict[Path, nnx.Module]:
    """Return the modules of a model, itself included, by their paths; a shared one once."""
    return {path: node for path, node in _walk(model, (), set()) if isinstance(node, nnx.Module)}


def _walk(node: Any, path: Path, seen: set[int]) -> Iterator[tuple[Path, Any]]:
    if id(node) in seen:
        return
    seen.add(id(node))
    yield path, node
    for name, child in _children(node):
        if isinstance(child, nnx.Pytree) or _is_container(child):
            yield from _walk(child, (*path, name), seen)


def _is_container(value: Any) -> bool:
    """Return whether JAX looks into a value; a variable of Flax holds arrays alone."""
    if isinstance(value, jax.Array | str | int | float | nnx.Variable):
        return False
    return not jax.tree_util.all_leaves([value])


def _children(node: Any) -> list[tuple[Any, Any]]:
    if isinstance(node, list | tuple | nnx.List):
        return list(enumerate(node))
    if not isinstance(node, dict | nnx.Pytree):  # a dataclass that is registered, say
        given = jax.tree_util.tree_leaves_with_path(node, is_leaf=lambda value: value is not node)
        return [(jax.tree_util.keystr(path, simple=True), value) for path, value in given]
    of: Any = type(node)
    held, assigned = (node, {}) if isinstance(node, dict) else (vars(node), _assigned(of))

    def place(name: Any) -> tuple[int, list[Any]]:
        if name in assigned:
            return assigned[name], []
        parts = re.split(r"(\d+)", str(name))  # texts and digits by turns
        return len(assigned), [int(p) if p.isdecimal() else p for p in parts]

    return [(name, held[name]) for name in sorted(held, key=place)]


@cache
def _assigned(of: Any) -> dict[str, int]:
    """Return the place of each attribute that the code of a class assigns, its bases' first."""
    names: list[str] = []
    for base in reversed(of.__mro__):
        if base.__module__.partition(".")[0] in ("flax", "builtins"):
            continue
        if is_dataclass(base):
            names += [field.name for field in fields(base)]
        methods = [inspect.unwrap(m) for m in vars(base).values() if isinstance(m, FunctionType)]
        for method in sorted(methods, key=lambda method: method.__name__ != "__init__"):
            steps = dis.get_instructions(method)
            names += [step.argval for step in steps if step.opname == "STORE_ATTR"]
    return {name: place for place, name in enumerate(dict.fromkeys(names))}
