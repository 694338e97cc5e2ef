"""The statistics tested: what they find at all, and that a right black box is not rejected."""

import math
from fractions import Fraction
from importlib import import_module

import numpy as np
import pytest

from conformance.black_box import black_box
from conformance.check import ALPHA, Subject, likely
from conformance.clauses import CHECK_OF
from conformance.clauses.clauses_test import CLAUSES
from conformance.mutant import REFERENCE, mutant
from conformance.numerics import at_least, smallest_error, tail
from conformance.runner import verdict_on
from conformance.statistics import lag, mirrored

AREAS = ("MASK", "BAL", "EVAL", "PURE")


def subject_of(backend):
    return Subject(backend, backend.info())


@pytest.mark.parametrize(("n", "p"), [(1, 0.3), (2, 0.9), (40, 0.1), (64, 0.37), (50, 1e-9)])
def test_a_tail_is_the_sum_of_its_masses(n, p):
    q = Fraction(p)
    masses = [math.comb(n, k) * q**k * (1 - q) ** (n - k) for k in range(n + 1)]
    for count in range(n + 1):
        low, high = float(sum(masses[: count + 1])), float(sum(masses[count:]))
        assert tail(count, n, p) == pytest.approx(min(low, high), rel=1e-9)
        assert at_least(count, n, p) == pytest.approx(high, rel=1e-9)


def test_the_tails_of_the_rates_0_and_1():
    assert (tail(0, 5, 0.0), tail(1, 5, 0.0), tail(5, 5, 1.0), tail(4, 5, 1.0)) == (1, 0, 1, 0)


@pytest.mark.parametrize(("n", "p"), [(60_000, 0.37), (315_000, 0.1), (3_470_000, 0.01)])
def test_the_smallest_error_is_that_of_the_normal_approximation(n, p):
    # 7.03 sigma for 1e-12 and 2.33 for 0.99
    wanted = 9.36 * math.sqrt((1 - p) / p / n)
    assert smallest_error(n, p, 1e-12) == pytest.approx(wanted, rel=0.03)


def test_an_error_of_a_rate_that_few_trials_cannot_show_is_infinite():
    assert smallest_error(20, 0.1, 1e-12) == math.inf  # 0.9**20 is no rare event


def test_pairs_share_no_decision():
    one, two = lag(np.arange(14), 3)
    assert (one.tolist(), two.tolist()) == ([[0, 1, 2], [6, 7, 8]], [[3, 4, 5], [9, 10, 11]])
    one, two = mirrored(np.arange(5))
    assert (one.tolist(), two.tolist()) == ([0, 1], [4, 3])


def test_of_several_counts_the_worst_is_told_and_their_number_counts():
    found = likely("rows", np.array([50, 0, 50]), 100, 0.5)
    assert found
    assert found.case == "rows, number 1"
    bound = next(k for k in range(50, 0, -1) if tail(k, 100, 0.5) < ALPHA)
    assert likely("", bound, 100, 0.5)
    assert not likely("", np.array([bound] + [50] * 999), 100, 0.5)


@pytest.fixture
def tried(monkeypatch):
    """Return a list of what is handed to `likely`: case, trials, p, how many counts, off."""
    cases = []

    def noted(case, count, trials, p, *, off=0.05):
        cases.append((case, trials, p, np.size(count), off))
        return likely(case, count, trials, p, off=off)

    for name in ("clauses.mask", "clauses.bal", "statistics"):
        monkeypatch.setattr(import_module(f"conformance.{name}"), "likely", noted)
    return cases


def test_a_right_black_box_passes_and_each_statistic_finds_the_error_that_it_names(tried):
    subject = subject_of(mutant("right", "", **black_box()).backend())
    verdicts = [verdict_on(CHECK_OF[c], subject) for c in CLAUSES if c.split("-")[0] in AREAS]
    assert [(v.clause, v.findings) for v in verdicts if v.findings] == []
    assert 100 < len(tried) < 400
    assert too_coarse(tried) == []


def test_the_statistics_of_layers_find_the_error_that_they_name(tried):
    assert not verdict_on(CHECK_OF["MASK-6"], subject_of(REFERENCE)).findings
    assert len(tried) > 50
    assert too_coarse(tried) == []


def too_coarse(tried):
    """Return the cases whose number of trials does not find the error that they name."""
    named = [t for t in tried if t[-1] < math.inf and 0 < t[2] < 1]
    found = [(case, smallest_error(n, p, ALPHA / size), off) for case, n, p, size, off in named]
    return [(case, error, off) for case, error, off in found if not error <= off]
