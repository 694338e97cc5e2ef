"""Schedules against numbers by hand and exact fractions."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from droppath import drop_path_rates, expected_depth, ramp

RULES = ["linear", "paper", "exclusive", "uniform"]


@pytest.mark.parametrize(
    ("rule", "rates"),
    [
        ("linear", [0.0, 0.2, 0.4, 0.6]),
        ("paper", [0.15, 0.3, 0.45, 0.6]),
        ("exclusive", [0.0, 0.15, 0.3, 0.45]),
        ("uniform", [0.6, 0.6, 0.6, 0.6]),
    ],
)
def test_the_rates_of_four_blocks_at_0_6(rule, rates):
    assert drop_path_rates(0.6, 4, rule=rule) == pytest.approx(rates, rel=0, abs=1e-15)


@pytest.mark.parametrize(
    ("rule", "one"), [("linear", 0.3), ("paper", 0.3), ("exclusive", 0.0), ("uniform", 0.3)]
)
def test_no_block_has_no_rate_and_a_single_one_under_linear_the_full_rate(rule, one):
    assert drop_path_rates(0.3, 0, rule=rule) == []
    assert drop_path_rates(0.3, 1, rule=rule) == [one]


def test_linear_is_the_default_and_its_last_rate_is_the_given_one():
    rates = drop_path_rates(0.1, 24)
    assert rates == drop_path_rates(0.1, 24, rule="linear")
    assert (rates[0], rates[-1]) == (0.0, 0.1)  # float32 linspace gives 0.10000000149
    assert {type(p) for p in rates} == {float}


@pytest.mark.parametrize("rule", RULES)
def test_nested_depths_give_the_flat_rates_in_stages(rule):
    stages = [2, 0, 3, 1]
    nested = drop_path_rates(0.2, stages, rule=rule)
    assert [len(stage) for stage in nested] == stages
    assert [p for stage in nested for p in stage] == drop_path_rates(0.2, 6, rule=rule)
    assert drop_path_rates(0.2, tuple(stages), rule=rule) == nested
    assert drop_path_rates(0.2, [3], rule=rule) == [drop_path_rates(0.2, 3, rule=rule)]
    assert drop_path_rates(0.2, [], rule=rule) == []


@pytest.mark.parametrize(
    ("rule", "depth"), [("paper", 40.25), ("linear", 40.5), ("exclusive", 40.75), ("uniform", 27)]
)
def test_the_expected_depth_of_the_papers_54_blocks_at_0_5(rule, depth):
    # the paper: (3L - 1) / 4 = 161 / 4; others by the sum of an arithmetic series
    assert expected_depth(drop_path_rates(0.5, 54, rule=rule)) == depth
    assert expected_depth(drop_path_rates(0.5, [18, 18, 18], rule=rule)) == depth


def test_the_expected_depth_of_no_blocks_is_0_and_rates_may_be_of_either_form():
    assert expected_depth([]) == 0
    assert expected_depth([0.25, [0.5, 1.0], 0]) == 2.25
    assert expected_depth(iter([0.25])) == 0.75


@pytest.mark.parametrize(
    ("step", "linear", "cosine"),
    [
        (-5, 0.25, 0.25),
        (10, 0.25, 0.25),
        (15, 0.375, 0.25 + 0.5 * (2 - math.sqrt(2)) / 4),  # u = 1/4: cos(pi/4) = sqrt(2) / 2
        (20, 0.5, 0.5),
        (25, 0.625, 0.75 - 0.5 * (2 - math.sqrt(2)) / 4),
        (30, 0.75, 0.75),
        (1e9, 0.75, 0.75),
    ],
)
def test_a_ramp_from_step_10_to_30(step, linear, cosine):
    ends = {"begin": 10, "end": 30, "start": 0.25, "stop": 0.75}
    assert ramp(step, **ends) == linear
    assert ramp(step, **ends, shape="cosine") == pytest.approx(cosine, rel=1e-15)
    assert type(ramp(step, **ends)) is float


@pytest.mark.parametrize("shape", ["linear", "cosine"])
@given(st.floats(0, 1), st.floats(0, 1), st.integers(0, 10**6), st.integers(1, 10**6))
def test_a_ramp_lands_exactly_and_is_continuous_at_both_ends(shape, start, stop, begin, length):
    def at(step):
        return ramp(step, begin=begin, end=end, start=start, stop=stop, shape=shape)

    end = begin + length
    assert (at(begin - 1), at(begin), at(end), at(end + 1)) == (start, start, stop, stop)
    nudge = length * 1e-9
    assert abs(at(begin + nudge) - start) < 1e-8
    assert abs(at(end - nudge) - stop) < 1e-8


def test_a_ramp_of_an_array_is_that_of_each_step():
    steps = np.array([[0, 3], [7, 20]])
    got = ramp(steps, begin=1, end=9, stop=0.3)
    assert (got.dtype, got.shape) == (np.float64, (2, 2))
    assert got.tolist() == [[ramp(int(s), begin=1, end=9, stop=0.3) for s in r] for r in steps]
    assert got[0, 1] == pytest.approx(float(Fraction(3, 10) * Fraction(2, 8)), rel=1e-15)


def test_a_ramp_of_no_length_jumps_to_its_stop():
    assert [ramp(step, begin=5, end=5, start=0.1, stop=0.9) for step in (4, 5, 6)] == [
        0.1,
        0.9,
        0.9,
    ]


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: drop_path_rates(1.5, 3), "drop_path_rate must be a number in [0, 1], got 1.5"),
        (lambda: drop_path_rates(True, 3), "drop_path_rate must be a number in [0, 1], got True"),
        (lambda: drop_path_rates(0.1, -1), "depth must be an integer in [0, 2**32), got -1"),
        (lambda: drop_path_rates(0.1, [2, -1]), "depth must be an integer in [0, 2**32), got -1"),
        (lambda: drop_path_rates(0.1, 2.0), "depth must be an integer, got 2.0"),
        (lambda: drop_path_rates(0.1, "12"), "depth must be an integer, got '12'"),
        (
            lambda: drop_path_rates(0.1, 3, rule="cosine"),
            "rule must be one of 'linear', 'paper', 'exclusive', 'uniform', got 'cosine'",
        ),
        (lambda: ramp(0, begin=2, end=1), "begin must be at most end, got begin=2, end=1"),
        (
            lambda: ramp(0, begin=float("nan"), end=1),
            "begin must be a finite number, got nan",
        ),
        (
            lambda: ramp(0, begin=0, end=1, shape="step"),
            "shape must be one of 'linear', 'cosine', got 'step'",
        ),
        (lambda: expected_depth([0.1, [-0.1]]), "rates must be a number in [0, 1], got -0.1"),
    ],
)
def test_a_bad_argument_is_named(call, text):
    with pytest.raises(ValueError) as error:
        call()
    assert str(error.value) == text


@given(
    rate=st.floats(0, 1),
    depth=st.one_of(st.integers(0, 60), st.lists(st.integers(0, 9), max_size=4)),
    rule=st.sampled_from(RULES),
)
def test_whole_rates_are_in_proportion_and_sum_up_to_the_nearest_whole_number(rate, depth, rule):
    made = [drop_path_rates(rate, depth, rule=rule, whole=whole) for whole in (False, True)]
    stages = zip(*made, strict=True) if isinstance(depth, list) else [made]
    for by_rule, rates in stages:
        total = sum(map(Fraction, rates))
        assert total.denominator == 1
        assert abs(total - math.fsum(by_rule)) <= 0.5 + 1e-8
        assert all(0 <= p <= 1 and p * 2**23 == int(p * 2**23) for p in rates)
        below_1 = [(p, q) for p, q in zip(by_rule, rates, strict=True) if q < 1]
        assert all(q == 0 for p, q in below_1 if p == 0)
        factor = max((q / p for p, q in below_1 if p > 1e-3), default=0)
        assert all(abs(q - factor * p) < 2**-10 for p, q in below_1)


def test_a_sum_between_two_whole_numbers_goes_to_the_smaller():
    assert (
        drop_path_rates(0.5, 5, rule="uniform", whole=True) == [pytest.approx(0.4, abs=2**-23)] * 5
    )
    assert sum(drop_path_rates(0.5, 10, whole=True)) == 2
