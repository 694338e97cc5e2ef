import pytest
import torch
from torch import nn

from benchmarks.models import torch_build, torch_trial
from benchmarks.models.listed import MODELS, TUNED, UNTUNED, Model
from benchmarks.models.torch_build import build, inputs
from benchmarks.models.torch_step import set_same_rate
from benchmarks.models.torch_trial import try_model
from droppath_torch import convert

MODEL = Model("timm", "small", batch=4, shape=(5,))


class TheirDropPath(nn.Module):  # as timm has it
    def __init__(self, drop_prob):
        super().__init__()
        self.drop_prob, self.scale_by_keep = drop_prob, True

    def forward(self, x):
        if not self.training or not self.drop_prob:
            return x
        mask = x.new_empty(len(x), *[1] * (x.ndim - 1)).bernoulli_(1 - self.drop_prob)
        return x * mask / (1 - self.drop_prob)


class Block(nn.Module):
    def __init__(self, rate, norm=nn.LayerNorm):
        super().__init__()
        self.norm, self.linear, self.scale = norm(5), nn.Linear(5, 5), nn.Parameter(torch.zeros(5))
        self.drop_path = TheirDropPath(rate) if rate else nn.Identity()

    def forward(self, x):
        return x + self.drop_path(self.scale * self.norm(self.linear(x)))


class Two(nn.Module):
    def __init__(self, norm=nn.LayerNorm):
        super().__init__()
        self.blocks = nn.Sequential(Block(0.0), Block(0.2, norm), Block(0.3, norm))

    def forward(self, x):
        return self.blocks(x)


class Noisy(Two):
    def forward(self, x):
        return super().forward(x + torch.rand_like(x))


@pytest.fixture
def row_of(monkeypatch):
    """The row of a module that timm is made to build."""

    def row(make):
        monkeypatch.setitem(torch_build.BUILDERS, "timm", lambda model: make())
        threads = torch.get_num_threads()
        try:
            return try_model(MODEL, True, 0.0, said.append)
        finally:
            torch.set_num_threads(threads)

    said = []
    return row


def test_a_model_of_blocks_passes_every_step_and_is_skipped_whole(row_of):
    row = row_of(Two)
    assert row.errors == {}
    assert (row.layers, row.identities, row.blocks, row.skipped) == (3, 1, 3, 3)
    assert row.difference < 1e-5
    assert row.ratio > 0
    assert row.rounds == 9  # the fewest
    assert row.passes("convert", "rates", "keyed", "skip", "time")


def test_what_mixes_samples_is_not_skipped_and_the_row_says_why(row_of):
    row = row_of(lambda: Two(nn.BatchNorm1d))
    assert (row.errors, row.layers, row.skipped) == ({}, 3, 1)
    assert sum(row.reasons.values()) == 2
    assert all(reason.startswith("BatchNorm1d mixes the samples") for reason in row.reasons)


def test_a_model_that_draws_besides_fails_keyed_and_goes_on(row_of):
    row = row_of(Noisy)
    why = "one key gives two outputs: the model draws at rate 0 too"
    assert row.errors == {"keyed": f"Wrong: {why}"}
    assert not row.passes("keyed")
    assert row.ratio is not None


def test_a_model_without_drop_paths_ends_at_convert(row_of):
    row = row_of(lambda: nn.Linear(5, 5))
    assert [*row.errors] == ["convert"]
    assert row.errors["convert"].startswith("ValueError: model must hold a DropPath of timm")
    assert not row.passes("keyed")


def test_a_model_that_cannot_be_built_says_so(row_of):
    row = row_of(lambda: nn.Linear(5, "x"))
    assert [*row.errors] == ["build"]
    assert row.layers is None


class Alone(nn.Module):  # a key reaches no function
    def __init__(self):
        super().__init__()
        self.drop_path = TheirDropPath(0.2)

    def forward(self, x):
        return x + self.drop_path(torch.zeros_like(x))


def test_a_branch_of_zeros_is_found_out_since_two_keys_agree(row_of):
    assert row_of(Alone).errors["keyed"] == "Wrong: two keys give one output"


def test_skipping_that_differs_from_masking_fails(row_of, monkeypatch):
    def wrong(module, **batch):
        module.blocks[0].scale.data.mul_(2)
        for block in module.blocks:
            block.drop_path.why_masked = ""

    monkeypatch.setattr(torch_trial, "skip_dropped", wrong)
    error = row_of(Two).errors["skip"]
    assert error.startswith("Wrong: skipping differs from masking by ")


def test_rates_that_are_not_set_fail(row_of, monkeypatch):
    monkeypatch.setattr(torch_trial, "set_drop_probs", lambda module, rates: None)
    assert row_of(Two).errors["rates"] == "Wrong: rates by layer are not set"


def test_parameters_that_begin_at_zero_are_random_and_dropout_drops_nothing(monkeypatch):
    made = nn.Sequential(Block(0.2), nn.Dropout(0.3))
    made[0].linear.weight.data.fill_(0.5)
    monkeypatch.setitem(torch_build.BUILDERS, "timm", lambda model: made)
    built = build(MODEL)
    assert built[0].scale.abs().min() > 0
    assert (built[0].linear.weight == 0.5).all()
    assert built[1].p == 0
    assert built.training


def test_the_input_is_named_as_the_forward_has_it():
    batch = inputs(MODEL, Two(), 8)
    assert {name: tuple(x.shape) for name, x in batch.items()} == {"x": (8, 5)}


class StochasticDepth(nn.Module):  # as torchvision has it
    def __init__(self):
        super().__init__()
        self.p, self.mode = 0.2, "row"


def test_where_a_library_has_an_identity_ours_has_rate_0():
    theirs = nn.Sequential(Block(0.0), Block(0.1), StochasticDepth())
    ours = convert(nn.Sequential(Block(0.0), Block(0.1), StochasticDepth()))
    set_same_rate(theirs, ours, 0.4)
    assert (theirs[1].drop_path.drop_prob, theirs[2].p) == (0.4, 0.4)
    rates = ours[0].drop_path.drop_prob, ours[1].drop_path.drop_prob, ours[2].drop_prob
    assert rates == (0.0, 0.4, 0.4)


def test_no_model_is_listed_twice():
    titles = [model.title for model in MODELS]
    assert len(titles) == len(set(titles)) >= 60
    assert len(UNTUNED) >= 15
    assert MODELS == TUNED + UNTUNED
