"""`python -m benchmarks`: see command.py. The processes that it starts import this file too."""

import sys

from benchmarks.missing import package

if __name__ == "__main__":
    try:
        from benchmarks.command import main
    except ModuleNotFoundError as missing:
        install = "pip install -e '.[benchmark]'"
        print(f"python -m benchmarks needs {package(missing)}: {install}", file=sys.stderr)
        sys.exit(2)
    sys.exit(main())
