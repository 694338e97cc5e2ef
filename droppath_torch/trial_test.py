"""What stands in for chance in a trial; the rest of trial.py is seen by what is skipped."""

import pytest
import torch
from torch.nn import functional

from droppath_torch.trial import WithoutDropout

X = torch.arange(1.0, 9.0)


@pytest.mark.parametrize(
    "draw",
    [
        lambda x: functional.dropout(x, 0.3),
        lambda x: x * torch.empty(8).bernoulli_(0.7) / 0.7,
        lambda x: x * torch.empty(8).bernoulli_(p=0.7) / 0.7,
        lambda x: x * torch.empty(8).bernoulli_() / 0.5,
        lambda x: x * torch.empty(8).bernoulli_(p=0.5, generator=torch.Generator()) / 0.5,
    ],
)
def test_dropout_keeps_all_however_it_is_drawn(draw):
    with WithoutDropout():
        torch.testing.assert_close(draw(X), X)


def test_a_rate_in_a_tensor_is_drawn():
    with WithoutDropout():
        assert set(torch.empty(50).bernoulli_(torch.full((50,), 0.5)).tolist()) == {0.0, 1.0}
