"""The suite tested: every clause has a check and a mutant, and every mutant is rejected."""

import importlib
import re
from pathlib import Path

import pytest

import droppath
from conformance.check import Subject
from conformance.clauses import AREAS, CHECK_OF, CHECKS
from conformance.mutant import compiling, mutant
from conformance.runner import verdict_on, whole

SPEC = Path(droppath.__file__).with_name("SPEC.md").read_text(encoding="utf-8")
CLAUSES = re.findall(r"^### ([A-Z]+-\d+)  .* · MUST · since", SPEC, re.MULTILINE)
MUTANTS_OF = {
    area: importlib.import_module(f"conformance.clauses.{area.lower()}_mutants").MUTANTS
    for area in AREAS
}
MUTANTS = [mutant for mutants in MUTANTS_OF.values() for mutant in mutants]


def test_the_clauses_of_the_spec_are_those_of_the_checks_and_of_the_mutants():
    assert len(CLAUSES) > 40
    assert len(CHECK_OF) == len(CHECKS)
    assert [check.clause for check in CHECKS] == CLAUSES
    assert {clause for mutant in MUTANTS for clause in mutant.clauses} == set(CLAUSES)


@pytest.mark.parametrize("area", AREAS)
def test_an_area_has_a_file_of_checks_and_one_of_mutants(area):
    checks = [check for check in CHECKS if check.clause.startswith(f"{area}-")]
    assert checks
    assert {check.test.__module__ for check in checks} == {f"conformance.clauses.{area.lower()}"}
    assert MUTANTS_OF[area]
    assert all(mutant.clauses[0].startswith(f"{area}-") for mutant in MUTANTS_OF[area])


def test_no_name_is_that_of_two_mutants():
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS) > 60


def test_every_heading_of_the_spec_is_a_clause():
    headings = [line for line in SPEC.splitlines() if line.startswith("### ")]
    assert len(headings) == len(CLAUSES)


def verdict(check, subject):
    """The check's own verdict, or that of its vectors and combinations too, which take longer."""
    alone = verdict_on(check, subject)
    return alone if alone.findings else verdict_on(whole(check), subject)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_is_rejected_by_the_clauses_it_names(mutant):
    backend = mutant.backend()
    subject = Subject(backend, backend.info())
    verdicts = [verdict(CHECK_OF[clause], subject) for clause in mutant.clauses]
    assert verdicts
    assert [verdict.clause for verdict in verdicts if not verdict.findings] == []
    crashes = [f.got for v in verdicts for f in v.findings if f.want == "a result"]
    assert crashes == []


def test_a_reference_that_claims_a_compiler_is_right_where_no_fault_is_put_in():
    backend = mutant("no fault", "", **compiling()).backend()
    subject = Subject(backend, backend.info())
    verdicts = [verdict_on(CHECK_OF[clause], subject) for clause in CLAUSES]
    assert [v.clause for v in verdicts if v.findings or v.untested] == []
