"""What the reports quote of SPEC.md."""

from pathlib import Path

import droppath
from conformance import report, spec
from conformance.clauses import CHECK_OF

SPEC = Path(droppath.__file__).with_name("SPEC.md").read_text(encoding="utf-8")


def test_the_version_is_the_one_that_the_text_names():
    assert f"\nVersion {spec.version()}. This is the only normative text" in SPEC
    assert f", SPEC {spec.version()}, vectors " in report.heading()


def test_every_clause_has_a_title_and_says_why_it_matters():
    assert [*spec.clauses()] == [*CHECK_OF]
    assert spec.title("MASK-4") == "P(dropped) = p"
    assert all(spec.title(clause) and spec.why(clause) for clause in CHECK_OF)
