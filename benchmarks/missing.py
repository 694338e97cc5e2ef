"""Where a command's package is not installed, a line that says so; where a file of ours is, no."""

import sys
from importlib import import_module

OWN = ("benchmarks", "conformance", "droppath", "droppath_flax", "droppath_torch")


def run(command: str) -> int:
    """Run the `main` of a command of ours, `benchmarks` say. Returns its exit status."""
    try:
        module = import_module(f"{command}.command")
    except ModuleNotFoundError as missing:
        install = "pip install -e '.[benchmark]'"
        print(f"python -m {command} needs {package(missing)}: {install}", file=sys.stderr)
        return 2
    status: int = module.main()
    return status


def package(missing: ModuleNotFoundError) -> str:
    """Return the package that is not installed. Raises missing again where a file of ours is."""
    name = (missing.name or "").partition(".")[0]
    if not name or name in OWN:
        raise missing
    return name
