"""The suite tested: every clause has a check and a mutant, and every mutant is rejected."""

import re
from pathlib import Path

import pytest

import droppath
from conformance.checks import CHECKS, Subject
from conformance.mutants import MUTANTS, compiling, mutant
from conformance.runner import verdict_on

SPEC = Path(droppath.__file__).with_name("SPEC.md").read_text(encoding="utf-8")
CLAUSES = re.findall(r"^### ([A-Z]+-\d+)  .* · MUST · since", SPEC, re.MULTILINE)
CHECK_OF = {check.clause: check for check in CHECKS}


def test_the_clauses_of_the_spec_are_those_of_the_checks_and_of_the_mutants():
    assert len(CLAUSES) > 40
    assert len(CHECK_OF) == len(CHECKS)
    assert [check.clause for check in CHECKS] == CLAUSES
    assert {clause for mutant in MUTANTS for clause in mutant.clauses} == set(CLAUSES)


def test_every_heading_of_the_spec_is_a_clause():
    headings = [line for line in SPEC.splitlines() if line.startswith("### ")]
    assert len(headings) == len(CLAUSES)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_is_rejected_by_the_clauses_it_names(mutant):
    backend = mutant.backend()
    subject = Subject(backend, backend.info())
    verdicts = [verdict_on(CHECK_OF[clause], subject) for clause in mutant.clauses]
    assert verdicts
    assert [verdict.clause for verdict in verdicts if not verdict.findings] == []
    crashes = [f.got for v in verdicts for f in v.findings if f.want == "a result"]
    assert crashes == []


def test_a_reference_that_claims_a_compiler_is_right_where_no_fault_is_put_in():
    backend = mutant("no fault", "", **compiling()).backend()
    subject = Subject(backend, backend.info())
    verdicts = [verdict_on(CHECK_OF[clause], subject) for clause in CLAUSES]
    assert [v.clause for v in verdicts if v.findings or v.untested] == []
