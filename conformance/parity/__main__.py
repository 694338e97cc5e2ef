"""`python -m conformance.parity`: the command of command.py, once what it needs is installed."""

import sys
from collections.abc import Sequence

from conformance.extras import are_installed

EXTRAS = "torch,flax,conformance,example"  # example: optax


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status, or 2 if a package is missing."""
    if not are_installed("flax", "jax", "optax", "rich", "torch", extras=EXTRAS):
        return 2
    from conformance.parity import command  # only now: it imports these packages

    return command.main(arguments)


if __name__ == "__main__":
    sys.exit(main())
