"""Torch's own draws: at the exact rate, every subset equally often."""

import math
from collections import Counter
from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from droppath_torch.on_cpu import WORTH_NUMPY
from droppath_torch.sampling import sample_mask

MODES = ["row", "balanced", "batch"]
RATES = [1e-3, 0.01, 0.1, 0.37, 0.9]


def is_likely(count: int, n: int, p: float) -> bool:
    """Whether a binomial count is within the Chernoff bound that one in 10**9 exceeds."""
    parts = [(count / n, p), (1 - count / n, 1 - p)]
    return n * sum(q * math.log(q / r) for q, r in parts if q) < math.log(2e9)


@pytest.mark.parametrize("p", RATES)
@pytest.mark.parametrize("form", [float, torch.tensor])
def test_torchs_own_draws_drop_at_the_rate(p, form):
    n = 200_000
    generator = torch.Generator().manual_seed(1)
    dropped = n - int(sample_mask(form(p), n, generator=generator).sum())
    assert is_likely(dropped, n, p)


@pytest.mark.parametrize("form", [float, torch.tensor])
def test_torchs_own_draws_of_rate_0_and_1_are_certain(form):
    for mode in MODES:
        assert sample_mask(form(0.0), 1000, mode=mode).all()
        assert not sample_mask(form(1.0), 1000, mode=mode).any()
        assert sample_mask(form(0.1), 0, mode=mode).shape == (0,)


@pytest.mark.parametrize("form", [float, torch.tensor])
@pytest.mark.parametrize(("p", "b"), [(0.1, 1), (0.37, 2), (0.9, 3), (0.25, 8)])
def test_torchs_own_balanced_draws_drop_the_floor_or_the_ceiling_at_the_rate(p, b, form):
    groups = 20_000
    generator = torch.Generator().manual_seed(2)
    options = {"mode": "balanced", "groups": groups, "generator": generator}
    keep = sample_mask(form(p), groups * b, **options).view(groups, b)
    counts = Counter((b - keep.sum(1)).tolist())
    low = math.floor(b * p)
    assert set(counts) == ({low} if b * p == low else {low, low + 1})
    assert is_likely(counts[low + 1], groups, b * p - low) or b * p == low
    assert all(is_likely(groups - int(row.sum()), groups, p) for row in keep.T)


def test_torchs_own_balanced_draws_drop_every_subset_equally_often():
    n = 30_000
    options = {"mode": "balanced", "groups": n, "generator": torch.Generator().manual_seed(3)}
    keep = sample_mask(0.5, 4 * n, **options).view(n, 4)
    counts = Counter(tuple(np.flatnonzero(~row)) for row in keep.numpy())
    assert all(is_likely(counts[pair], n, 1 / 6) for pair in combinations(range(4), 2))


@given(
    st.integers(0, 2**32),
    st.sampled_from([0.0, 1e-7, 0.05, 0.4, 0.5, 0.9, 1.0]),
    st.sampled_from([1, 2, 5, WORTH_NUMPY, WORTH_NUMPY + 1]),
    st.sampled_from([1, 2, 7, 32, 150]),
)
def test_torchs_own_balanced_draw_is_that_of_a_rate_in_a_tensor(seed, p, groups, group):
    def draw(p):  # a number is compared on the host, by NumPy or PyTorch; a tensor is not read
        options = {"groups": groups, "generator": torch.Generator().manual_seed(seed)}
        return sample_mask(p, groups * group, mode="balanced", **options)

    assert draw(p).tolist() == draw(torch.tensor(p)).tolist()


def test_torchs_own_batch_draw_is_one_for_all_rows():
    keeps = torch.stack([sample_mask(0.1, 5, mode="batch") for _ in range(2000)])
    assert (keeps == keeps[:, :1]).all()
    assert is_likely(2000 - int(keeps[:, 0].sum()), 2000, 0.1)
