"""Depth plans against Madow's rule in exact fractions, and by their statistics."""

import math
from collections import Counter
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from droppath import (
    drop_path_rates,
    fold_in,
    keep_mask,
    key,
    layer_plan,
    planned_depth,
    random_bits,
    split,
)

RATES = st.lists(st.floats(0, 1), min_size=1, max_size=20)
MANY = split(key(3), 40_000)


@given(rates=RATES, seed=st.integers(0, 2**32 - 1))
def test_a_plan_is_madows_systematic_sample_of_a_random_order(rates, seed):
    drawn = [int(word) for word in random_bits(fold_in(key(seed), 0), len(rates))]
    u = int(random_bits(fold_in(key(seed), 1), 1)[0]) >> 9
    begin, dropped = u, set()
    for _, layer in sorted(zip(drawn, range(len(rates)), strict=True)):
        end = begin + math.ceil(float(np.float32(rates[layer])) * 2**23)
        if end // 2**23 > begin // 2**23:  # a mark falls on it
            dropped.add(layer)
        begin = end
    want = [layer not in dropped for layer in range(len(rates))]
    assert layer_plan(key(seed), rates).tolist() == want
    assert planned_depth(rates) - 1 <= sum(want) <= planned_depth(rates)


@pytest.mark.parametrize("rates", [drop_path_rates(0.5, 12), [0.9, 0.01, 0.5, 0.5, 0.3]])
def test_every_layer_is_dropped_at_its_rate(rates):
    dropped = ~layer_plan(MANY, rates)
    expected = np.array(rates)
    sigma = np.sqrt(expected * (1 - expected) / len(MANY))
    assert (np.abs(dropped.mean(0) - expected) <= 4.5 * sigma).all()


def test_whole_rates_leave_no_spare_layer():
    rates = drop_path_rates(0.5, 12, whole=True)
    assert planned_depth(rates) == 9
    assert {*layer_plan(MANY, rates).sum(1).tolist()} == {9}


def test_rates_whose_sum_is_not_whole_drop_one_more_at_times():
    ran = layer_plan(MANY, [0.3] * 8).sum(1)
    assert planned_depth([0.3] * 8) == 6
    assert {*ran.tolist()} == {5, 6}
    assert ran.mean() == pytest.approx(8 * 0.7, abs=0.01)


def test_subsets_of_layers_of_one_rate_are_equally_likely():
    plans = layer_plan(MANY, [0.5] * 4)
    counts = Counter(map(tuple, np.argwhere(~plans)[:, 1].reshape(-1, 2).tolist()))
    assert counts.keys() == {*combinations(range(4), 2)}
    sigma = math.sqrt(len(MANY) * 5 / 36)
    assert all(abs(n - len(MANY) / 6) < 4.5 * sigma for n in counts.values())


def test_one_layer_is_dropped_as_a_batch_is_by_the_word_that_a_plan_takes():
    for i in range(50):
        (runs,) = layer_plan(key(i), [0.4])
        assert runs == (not keep_mask(fold_in(key(i), 1), 1 - 0.4, 1)[0])  # u >= 2^23 - T


def test_stages_have_plans_of_their_own():
    rates = [[0.5, 0.5], [], [0.5, 1.0, 0.0]]
    plans = layer_plan(key(7), rates)
    assert [plan.tolist() for plan in plans] == [
        layer_plan(fold_in(key(7), 0), rates[0]).tolist(),
        [],
        layer_plan(fold_in(key(7), 2), rates[2]).tolist(),
    ]
    assert planned_depth(rates) == 1 + 0 + 2
    assert planned_depth([rates[0]]) == 1


@pytest.mark.parametrize(
    ("rates", "text"),
    [
        ([], "rates must have a layer, got []"),
        ([[], []], "rates must have a layer, got [[], []]"),
        (0.5, "rates must be a list, or one for each stage, got 0.5"),
        ("0.5", "rates must be a list, or one for each stage, got '0.5'"),
        ([[0.1], 0.2], "rates must be a list, or one for each stage, got 0.2"),
        ([0.1, 1.5], "rates must be a number in [0, 1], got 1.5"),
        ([0.1, math.nan], "rates must be a number in [0, 1], got nan"),
        ([[0.1], [True]], "rates must be a number in [0, 1], got True"),
    ],
)
@pytest.mark.parametrize("of", [lambda rates: layer_plan(key(0), rates), planned_depth])
def test_other_rates_are_refused(of, rates, text):
    with pytest.raises(ValueError, match="rates") as error:
        of(rates)
    assert str(error.value) == text
