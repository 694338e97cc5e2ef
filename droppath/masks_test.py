"""Masks against Python's integers and fractions, and against the promised probabilities."""

import math
import struct
from collections import Counter
from fractions import Fraction
from itertools import combinations, permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from droppath import fold_in, keep_mask, kept_capacity, key, masks, split
from droppath.masks import drop_threshold
from droppath.random_test import cipher

MODES = ["row", "balanced", "batch"]
FULL = 2**23


def threshold(p: float) -> int:
    """T = ceil(float32(p) * 2**23) by fractions; struct rounds to float32."""
    return math.ceil(Fraction(struct.unpack("f", struct.pack("f", p))[0]) * FULL)


def bits(k: tuple[int, int], index: int) -> int:
    a, b = cipher(*k, *divmod(index, 2**32))
    return a ^ b


def slow_mask(k, p, batch, mode, groups=1, offset=0) -> list[bool]:
    """keep_mask in Python's integers, row by row."""
    T = threshold(p)
    if mode == "row":
        return [bits(k, offset + i) >> 9 >= T for i in range(batch)]
    if mode == "batch":
        return [bits(k, 0) >> 9 >= T] * batch
    b, keep = batch // groups, []
    for start in range(offset, offset + batch, b or 1):
        m, rest = divmod(b * T, FULL)
        m += bits(cipher(*k, 0, 1), start // b) >> 9 < rest
        rows = range(start, start + b)
        kept = sorted(rows, key=lambda i: (bits(cipher(*k, 0, 0), i), i))[: b - m]
        keep += [i in kept for i in rows]
    return keep


def is_likely(count: int, n: int, p: float) -> bool:
    """Whether a binomial count is within the Chernoff bound that one in 10**9 exceeds."""
    parts = [(count / n, p), (1 - count / n, 1 - p)]
    return n * sum(q * math.log(q / r) for q, r in parts if q) < math.log(2e9)


word = st.integers(0, 2**32 - 1)
rate = st.floats(0, 1) | st.sampled_from([0.0, 0.1, 0.9, 1e-9, 2**-23, 1 - 2**-24, 1.0])


@given(st.tuples(word, word), rate, st.sampled_from(MODES), *[st.integers(0, 6)] * 2, st.data())
def test_a_mask_is_that_of_pythons_integers(k, p, mode, groups, group, data):
    groups = max(groups, 1)
    batch = groups * group
    top = (2**64 - batch) // max(group, 1)
    offset = data.draw(st.integers(0, 9) | st.integers(0, min(top, 2**64 - 1))) * max(group, 1)
    offset = min(offset, 2**64 - 1)  # reached by empty batches only
    options = {"mode": mode, "groups": groups, "offset": offset}
    got = keep_mask(np.array(k, np.uint32), p, batch, **options)
    assert got.dtype == bool
    assert got.tolist() == slow_mask(k, p, batch, **options)


@pytest.mark.parametrize("mode", MODES)
def test_masks_of_large_batches_are_those_of_pythons_integers(mode):
    for batch in (257, 4096):
        got = keep_mask(key(11), 0.1, batch, mode=mode)
        assert got.tolist() == slow_mask((0, 11), 0.1, batch, mode)


@pytest.mark.parametrize(
    ("p", "T"),
    [
        (0.0, 0),
        (1.0, 2**23),
        (0.1, 838861),  # 0.1 * 2**23 = 838860.8
        (0.9, 7549747),  # 0.9 * 2**23 = 7549747.2, but float32(0.9) * 2**23 = 7549747
        (2**-23, 1),
        (1e-40, 1),  # whatever float32 does not round to 0 may drop
        (1e-46, 0),
        (1 - 2**-24, 2**23),
        (np.float16(0.1), 838656),  # the float16 0.0999755859375 itself
        (np.array(0.1), 838861),
    ],
)
def test_the_threshold_is_the_rate_in_float32_times_2_to_the_23_rounded_up(p, T):
    assert drop_threshold(p) == T == threshold(float(p))


@pytest.mark.parametrize("mode", MODES)
def test_rate_0_keeps_all_and_rate_1_drops_all(mode):
    keys = split(key(0), 50)
    assert keep_mask(keys, 0.0, 6, mode=mode).all()
    assert not keep_mask(keys, 1.0, 6, mode=mode).any()


@pytest.mark.parametrize("mode", MODES)
def test_an_empty_batch_has_an_empty_mask(mode):
    assert keep_mask(key(0), 0.1, 0, mode=mode).shape == (0,)
    assert keep_mask(split(key(0), 3), 0.1, 0, mode=mode).shape == (3, 0)


@pytest.mark.parametrize("mode", MODES)
def test_several_keys_and_rates_at_once_are_as_one_by_one(mode):
    keys, rates = split(key(2), 6).reshape(2, 3, 2), np.array([0.1, 0.5, 0.9])
    options = {"mode": mode, "groups": 2, "offset": 8}
    got = keep_mask(keys, rates, 8, **options)
    want = [[keep_mask(keys[i, j], rates[j], 8, **options) for j in range(3)] for i in range(2)]
    np.testing.assert_array_equal(got, want)
    got = keep_mask(keys[0, 0], rates, 8, **options)
    np.testing.assert_array_equal(got, [keep_mask(keys[0, 0], p, 8, **options) for p in rates])


@pytest.mark.parametrize(("mode", "size"), [("row", 5), ("balanced", 6), ("batch", 5)])
def test_an_offset_gives_a_slice_of_the_global_mask(mode, size):
    whole = keep_mask(key(4), 0.37, 60, mode=mode, groups=60 // 6)
    assert 0 < whole.sum() < 60 or mode == "batch"
    parts = [keep_mask(key(4), 0.37, size, mode=mode, offset=i) for i in range(0, 60, size)]
    assert np.concatenate(parts).tolist() == whole.tolist()
    if mode != "batch":
        assert parts[0].tolist() != parts[1].tolist()


@pytest.mark.parametrize("mode", ["row", "batch"])
@given(word, rate, rate)
def test_a_smaller_rate_drops_a_subset(mode, seed, p, q):
    low, high = (keep_mask(key(seed), r, 20, mode=mode) for r in sorted([p, q]))
    assert (low | ~high).all()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("p", [1e-3, 0.01, 0.1, 0.37, 0.9])
def test_every_row_is_dropped_at_the_rate(mode, p):
    n = 20_000
    dropped = n - keep_mask(split(key(1), n), p, 3, mode=mode).sum(0)
    assert [is_likely(int(count), n, p) for count in dropped] == [True] * 3


def test_rows_are_dropped_independently():
    n, p = 40_000, 0.1
    a, b, c = ~keep_mask(split(key(6), n), p, 3).T
    pairs = [int((x & y).sum()) for x, y in ((a, b), (b, c), (a, c))]
    assert [is_likely(count, n, p * p) for count in pairs] == [True] * 3


@pytest.mark.parametrize("p", [0.1, 0.37, 0.9])
@pytest.mark.parametrize("b", [1, 2, 3])
def test_balanced_by_enumeration_drops_every_row_at_the_exact_rate(monkeypatch, p, b):
    """Every order of the rows, and the draws at both sides of the rounding's threshold."""
    T = threshold(p)
    rest = b * T % FULL
    subsets: Counter = Counter()
    for up, weight in ((0, 1), (rest - 1, rest - 1), (rest, 1), (FULL - 1, FULL - rest - 1)):
        for order in permutations(range(b)):
            source = {tuple(fold_in(key(0), 0)): order, tuple(fold_in(key(0), 1)): [up << 9]}
            monkeypatch.setattr(
                masks,
                "random_bits",
                lambda k, num, offset, source=source: np.array(source[tuple(k)], np.uint32),
            )
            keep = keep_mask(key(0), p, b, mode="balanced")
            subsets[tuple(np.flatnonzero(~keep))] += Fraction(weight, FULL * math.factorial(b))
    assert sum(subsets.values()) == 1
    for row in range(b):
        assert sum(w for dropped, w in subsets.items() if row in dropped) == Fraction(T, FULL)
    sizes = {len(dropped) for dropped in subsets}
    assert sizes == {b * T // FULL, b * T // FULL + 1}
    for m in sizes:  # every subset of a size is equally likely
        assert len({subsets[dropped] for dropped in combinations(range(b), m)}) == 1


@pytest.mark.parametrize("mode", MODES)
def test_a_sample_is_dropped_iff_its_draw_is_below_the_threshold(mode):
    for seed in range(20):
        k = cipher(0, seed, 0, 1) if mode == "balanced" else (0, seed)
        draw = bits(k, 0) >> 9
        assert keep_mask(key(seed), draw / FULL, 1, mode=mode).tolist() == [True]
        assert keep_mask(key(seed), (draw + 1) / FULL, 1, mode=mode).tolist() == [False]


def test_balanced_keeps_the_earlier_of_rows_with_equal_bits_also_of_many(monkeypatch):
    monkeypatch.setattr(masks, "random_bits", lambda k, num, _: np.arange(num, dtype=np.uint32) % 3)
    keep = keep_mask(key(0), 0.25, 400, mode="balanced")  # 134 rows of 0, 133 of 1, 33 of 2
    assert keep.tolist() == [i % 3 < 2 or i // 3 < 33 for i in range(400)]


def test_balanced_keeps_the_earlier_of_rows_with_equal_bits(monkeypatch):
    bits = np.array([7, 3, 7, 3, 7], np.uint32)
    monkeypatch.setattr(masks, "random_bits", lambda k, num, offset: bits[:num])
    # 5 * 0.4 rounds up to T / 2**23 a little above 2: m = 2, plus 1 if 0 < rest, which 7 >> 9 is
    assert keep_mask(key(0), 0.4, 5, mode="balanced").tolist() == [False, True, False, True, False]
    assert keep_mask(key(0), 0.2, 5, mode="balanced").tolist() == [True, True, False, True, False]


@pytest.mark.parametrize(("p", "b"), [(0.1, 1), (0.37, 2), (0.9, 3), (0.25, 8), (0.37, 7)])
def test_balanced_drops_the_floor_or_the_ceiling_in_each_group(p, b):
    T = threshold(p)
    keep = keep_mask(split(key(3), 2000), p, 4 * b, mode="balanced", groups=4)
    dropped = Counter((b - keep.reshape(-1, b).sum(1)).tolist())
    low = b * T // FULL
    assert set(dropped) == ({low, low + 1} if b * T % FULL else {low})
    assert is_likely(dropped[low + 1], 8000, b * T % FULL / FULL) or b * T % FULL == 0
    assert kept_capacity(p, 4 * b, groups=4) == 4 * (b - low)


def test_balanced_drops_every_subset_equally_often():
    n = 30_000
    keep = keep_mask(split(key(8), n), 0.4, 5, mode="balanced")  # two of five, or rarely three
    counts = Counter(tuple(np.flatnonzero(~row)) for row in keep)
    assert {is_likely(counts[pair], n, 0.1) for pair in combinations(range(5), 2)} == {True}


def test_groups_round_independently():
    n = 20_000
    keep = keep_mask(split(key(5), n), 0.1, 2, mode="balanced", groups=2)  # one row a group
    assert is_likely(int((~keep).all(1).sum()), n, 0.01)


@pytest.mark.parametrize(
    ("p", "batch", "groups", "capacity"),
    [
        (0.8, 10, 1, 2),  # 1 - 0.8 is 0.19999999999999996: int(10 * (1 - 0.8)) is 1
        (0.9, 20, 1, 3),  # T/2**23 is 0.9 - 2.4e-8: floor(17.9999995) = 17 are surely dropped
        (0.9, 30, 1, 4),
        (0.9, 100, 1, 11),
        (0.75, 8, 1, 2),
        (0.25, 8, 2, 6),
        (0.1, 32, 1, 29),  # floor(3.2)
        (0.1, 32, 4, 32),  # 4 * (8 - floor(0.8))
        (0.9, 1, 1, 1),
        (0.9, 4, 4, 4),
        (0.0, 7, 1, 7),
        (1.0, 7, 1, 0),
        (0.5, 0, 1, 0),
    ],
)
def test_the_kept_capacity_is_exact(p, batch, groups, capacity):
    b = batch // groups
    exact = groups * (b - math.floor(b * Fraction(threshold(p), FULL)))
    assert kept_capacity(p, batch, groups=groups) == exact
    assert exact == capacity


@pytest.mark.parametrize(
    ("arguments", "options", "text"),
    [
        (
            ([0, 1], 0.1, 4),
            {},
            "key must be uint32 of shape (2,), such as droppath.key(7), got int64 of (2,)",
        ),
        ((key(0), -0.1, 4), {}, "drop_prob must be a number in [0, 1], got -0.1"),
        ((key(0), np.array([0.1, 1.5]), 4), {}, "drop_prob must be a number in [0, 1], got 1.5"),
        ((key(0), None, 4), {}, "drop_prob must be a number in [0, 1], got None"),
        ((key(0), 0.1, -1), {}, "batch must be an integer in [0, 2**31), got -1"),
        (
            (key(0), 0.1, 4),
            {"mode": "x"},
            "mode must be one of 'row', 'balanced', 'batch', got 'x'",
        ),
        ((key(0), 0.1, 4), {"groups": 3}, "groups must divide the batch, got groups=3 for batch=4"),
        (
            (key(0), 0.1, 4),
            {"offset": 2, "mode": "balanced"},
            "offset must be a multiple of the group's 4 rows, got offset=2",
        ),
        (
            (key(0), 0.1, 4),
            {"offset": 2**64 - 3},
            "offset must be an integer in [0, 2**64 - 4 + 1), got 18446744073709551613",
        ),
    ],
)
def test_a_bad_argument_is_named(arguments, options, text):
    with pytest.raises(ValueError) as error:
        keep_mask(*arguments, **options)
    assert str(error.value) == text
