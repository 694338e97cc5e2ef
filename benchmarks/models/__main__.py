"""`python -m benchmarks.models`: see command.py. The processes it starts import this too."""

import sys

from benchmarks.missing import package

if __name__ == "__main__":
    try:
        from benchmarks.models.command import main
    except ModuleNotFoundError as missing:
        install = "pip install -e '.[benchmark]'"
        print(f"python -m benchmarks.models needs {package(missing)}: {install}", file=sys.stderr)
        sys.exit(2)
    sys.exit(main())
