"""`python -m conformance.make_golden [FOLDER]`: write the files there, or into vectors/v1."""

import sys
from pathlib import Path

from conformance.make_golden.files import write

if __name__ == "__main__":
    write(*map(Path, sys.argv[1:2]))
