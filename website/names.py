"""The public names of the packages, read as text: no framework is imported."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1]
FILES = {
    "droppath": "droppath/__init__.py",
    "droppath_torch": "droppath_torch/__init__.py",
    "droppath_flax": "droppath_flax/__init__.py",
    "droppath_flax.linen": "droppath_flax/linen.py",
}


def public_names(package: str) -> list[str]:
    """Return the names in the __all__ of a package; without one, its public classes."""
    tree = ast.parse((ROOT / FILES[package]).read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return list(ast.literal_eval(node.value))
    return [node.name for node in tree.body if isinstance(node, ast.ClassDef)]


def links_within(package: str) -> dict[str, str]:
    """Return what a docstring of a package may call a public name, and its full path."""
    full = {f"{p}.{name}": f"{p}.{name}" for p in FILES for name in public_names(p)}
    return full | {name: f"{package}.{name}" for name in public_names(package)}
