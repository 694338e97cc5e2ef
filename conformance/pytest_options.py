"""The options --backend and --device of `pytest --pyargs conformance`.

A plugin, since pytest reads the conftest.py of a package too late to know its options; they exist
in runs that name the suite, and nowhere else.
"""

from collections.abc import Sequence

import pytest


def pytest_load_initial_conftests(parser: pytest.Parser, args: Sequence[str]) -> None:
    """Add the options if an argument is the suite, or a part of it."""
    if any("conformance" in arg for arg in args if not arg.startswith("-")):
        group = parser.getgroup("conformance")
        group.addoption(
            "--backend", action="append", help="as for python -m conformance; default: all of ours"
        )
        group.addoption("--device", help="where the backends run, as their framework names it")
