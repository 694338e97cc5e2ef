"""The runner: verdicts and reports."""

from contextlib import nullcontext
from dataclasses import replace

import pytest

from conformance import runner
from conformance.adapters.reference import Reference
from conformance.clauses import CHECKS
from conformance.loading import load
from conformance.protocol import Info
from conformance.runner import run_checks


class Bare(Reference):
    """A right DropPath that claims nothing but to need a key."""

    def info(self):
        return Info("bare", frozenset({"stateless"}))


def test_the_reference_conforms_in_every_clause():
    report = run_checks("reference", load("reference"))
    assert report.conforms
    assert [verdict.clause for verdict in report.verdicts] == [check.clause for check in CHECKS]
    untested = {verdict.clause for verdict in report.verdicts if verdict.untested}
    assert untested == {"COMP-1", "COMP-2", "DIST-2"}  # NumPy has no compiler
    assert all(verdict.cases for verdict in report.verdicts if not verdict.untested)


def test_what_is_not_claimed_is_not_tested_and_not_a_failure():
    report = run_checks("bare", Bare())
    untested = {verdict.clause for verdict in report.verdicts if verdict.untested}
    assert untested == {check.clause for check in CHECKS if check.needs or check.needs_any}
    assert report.conforms


@pytest.mark.parametrize(("compiles", "checks"), [(False, 1), (True, 4)])
def test_a_check_may_take_four_times_as_long_where_the_backend_compiles(
    compiles, checks, monkeypatch
):
    class Compiling(Reference):
        def info(self):
            return replace(super().info(), compiles=compiles)

    asked = []
    monkeypatch.setattr(runner, "limit", lambda _, n: asked.append(n) or nullcontext())
    run_checks("compiling", Compiling(), ("EVAL-1",))
    assert asked == [checks]
