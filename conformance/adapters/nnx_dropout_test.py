"""nnx.Dropout runs, and fails and passes the clauses that docs/peers.md says."""

from conformance.adapters import nnx_dropout
from conformance.check import Subject
from conformance.clauses import CHECKS
from conformance.runner import verdict_on

FAILS = {"ARG-1", "ARG-2", "SCALE-1"}
PASSES = {"EVAL-1", "EVAL-2", "MASK-1", "DROP-1", "DROP-2", "GRAD-2", "GRAD-3", "PURE-1"}


def test_nnx_dropout_fails_and_passes_these_clauses():
    backend = nnx_dropout.backend()
    subject = Subject(backend, backend.info())
    checks = [check for check in CHECKS if check.clause in FAILS | PASSES]
    verdicts = [verdict_on(check, subject) for check in checks]
    assert {verdict.clause for verdict in verdicts if verdict.findings} == FAILS
    assert {verdict.clause for verdict in verdicts if not verdict.findings} == PASSES
    assert all(verdict.cases for verdict in verdicts)
