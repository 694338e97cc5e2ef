"""The article's two DropPaths run, and fail and pass the clauses that docs/peers.md says."""

import pytest

from conformance.adapters import article
from conformance.check import Subject
from conformance.clauses import CHECKS
from conformance.runner import verdict_on

BOTH_FAIL = {"ARG-1", "SCALE-1", "DROP-1", "DROP-2", "GRAD-1", "GRAD-3"}
BOTH_PASS = {"EVAL-1", "MASK-1", "MASK-2", "MASK-3", "GRAD-2", "TYPE-1", "TYPE-2", "PURE-1"}


@pytest.mark.parametrize(
    ("backend", "fails", "passes"),
    [
        (article.backend(), BOTH_FAIL | {"MASK-4"}, BOTH_PASS | {"EVAL-2"}),
        (article.function(), BOTH_FAIL | {"EVAL-2"}, BOTH_PASS | {"MASK-4", "MASK-5"}),
    ],
    ids=["module", "function"],
)
def test_the_article_fails_and_passes_these_clauses(backend, fails, passes):
    subject = Subject(backend, backend.info())
    checks = [check for check in CHECKS if check.clause in fails | passes]
    verdicts = [verdict_on(check, subject) for check in checks]
    assert {verdict.clause for verdict in verdicts if verdict.findings} == fails
    assert {verdict.clause for verdict in verdicts if not verdict.findings} == passes
    assert all(verdict.cases for verdict in verdicts)
