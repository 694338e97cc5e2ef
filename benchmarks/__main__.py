"""`python -m benchmarks`: see command.py. The processes that it starts import this file too."""

import sys

from benchmarks.missing import run

if __name__ == "__main__":
    sys.exit(run("benchmarks"))
