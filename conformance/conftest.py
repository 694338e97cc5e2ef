"""Options of the suite: `pytest --pyargs conformance --backend torch --device cuda`."""

import pytest

from conformance.checks import CHECKS
from conformance.runner import installed


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add --backend and --device."""
    group = parser.getgroup("conformance")
    group.addoption(
        "--backend", action="append", help="as for python -m conformance; default: all of ours"
    )
    group.addoption("--device", help="where the backends run, as their framework names it")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Make one test for each backend and clause, and one for each pair of ours."""
    names = metafunc.config.getoption("--backend") or installed()
    if "clause" in metafunc.fixturenames:
        cases = [(name, check.clause) for name in names for check in CHECKS]
        metafunc.parametrize(("backend", "clause"), cases)
    elif "pair" in metafunc.fixturenames:
        pairs = [(a, b) for i, a in enumerate(names) for b in names[i + 1 :]]
        metafunc.parametrize("pair", pairs, ids=" x ".join)
