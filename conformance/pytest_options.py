"""The options --backend and --device of the suite under pytest: `-p conformance.pytest_options`.

Asked for by name and never loaded by itself, since other projects have options of these names. No
conftest.py, since pytest reads that of a package too late to know its options.
"""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options."""
    group = parser.getgroup("conformance")
    group.addoption(
        "--backend", action="append", help="as for python -m conformance; default: all of ours"
    )
    group.addoption("--device", help="where the backends run, as their framework names it")
