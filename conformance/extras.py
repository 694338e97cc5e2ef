"""Says which extra holds a package that is missing. It needs the standard library only."""

import sys
from importlib.util import find_spec


def are_installed(*modules: str, extras: str) -> bool:
    """Return whether all modules are there; if not, say in one line on stderr what to install."""
    absent = [module for module in modules if find_spec(module) is None]
    if absent:
        names = ", ".join(absent)
        print(f"{names} must be installed: pip install 'droppath[{extras}]'", file=sys.stderr)
    return not absent
