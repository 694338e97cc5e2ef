"""`python -m conformance`: the command of command.py, once all that it imports is installed."""

import sys
from collections.abc import Sequence

from conformance.extras import are_installed


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status: 2 if a package is missing, 130 if interrupted."""
    if not are_installed("allpairspy", "jsonschema", "ml_dtypes", "rich", extras="conformance"):
        return 2
    try:
        from conformance import command  # only now: it imports these packages

        return command.main(arguments)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
