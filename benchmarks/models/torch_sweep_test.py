import pytest
import torch

from benchmarks.models import torch_build, torch_sweep
from benchmarks.models.torch_sweep import point
from benchmarks.models.torch_trial_test import MODEL, Two


@pytest.fixture
def tiny(monkeypatch):
    """timm builds two blocks that drop and one that does not; what is compiled runs as it is."""
    monkeypatch.setitem(torch_build.BUILDERS, "timm", lambda model: Two())
    monkeypatch.setattr(torch_sweep, "compiled", lambda module: module)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def test_rows_are_the_mean_over_all_layers(tiny):
    found = point(MODEL, 0.5, 0.0, lambda _: None)
    assert found.rows == pytest.approx((1 + 0.5 + 0.5) / 3)  # of a batch of 4, 2 are kept
    assert found.drop_prob == 0.5
    assert found.rounds == 9  # the fewest
    assert found.eager > 0
    assert found.compiled > 0
