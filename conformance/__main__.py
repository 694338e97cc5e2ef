"""`python -m conformance`: the command of command.py, once all that it imports is installed."""

import sys
from collections.abc import Sequence

from conformance.extras import are_installed


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status, or 2 if a package is missing."""
    if not are_installed("jsonschema", "ml_dtypes", "rich", extras="conformance"):
        return 2
    from conformance import command  # only now: it imports these packages

    return command.main(arguments)


if __name__ == "__main__":
    sys.exit(main())
