"""Two backends against each other: equal ones agree, others are found."""

from conformance.clauses.mask_mutants import MUTANTS
from conformance.cross import cross_check
from conformance.loading import load

SWAPPED = next(mutant for mutant in MUTANTS if mutant.name == "keep and drop swapped")


def test_a_cross_check_finds_another_mask_and_another_value():
    report = cross_check(("reference", "x"), load("reference"), SWAPPED.backend())
    assert not report.conforms
    assert all(verdict.findings for verdict in report.verdicts)


def test_the_reference_agrees_with_itself():
    assert cross_check(("reference", "x"), load("reference"), load("reference")).conforms
