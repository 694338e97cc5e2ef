"""One line in place of a traceback where a package of an extra is not installed."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

OWN = ("droppath", "droppath_flax", "examples")


@contextmanager
def needs_extra(extra: str, module: str) -> Iterator[None]:
    """Exit with status 2 if an import within lacks a package, and say how to install it.

    module: the caller's __name__. Where it is imported and not run, the error is the importer's; so
    it is where a file of ours is missing.
    """
    try:
        yield
    except ModuleNotFoundError as missing:
        package = (missing.name or "").partition(".")[0]
        spec = sys.modules["__main__"].__spec__
        if module != "__main__" or spec is None or not package or package in OWN:
            raise
        program = spec.name.removesuffix(".__main__")
        print(f"python -m {program} needs {package}: pip install -e '.[{extra}]'", file=sys.stderr)
        sys.exit(2)
