"""`python -m benchmarks.models`: see command.py. The processes it starts import this too."""

import sys

from benchmarks.missing import run

if __name__ == "__main__":
    sys.exit(run("benchmarks.models"))
