"""What skip_dropped leaves masked and why, and what is as it was after its trial.

Each wrong branch is one that a skip would change. Not here: branches that pass (skipping_test.py),
refusals and per-sample arguments (branches_test.py).
"""

import copy

import pytest
import torch
from torch import nn

import droppath
from droppath_torch import DropPath, DropPathResidual, keyed, skip_dropped
from droppath_torch.functional_test import same_bits
from droppath_torch.skipping_test import (
    CLOSE,
    KEY,
    WIDTH,
    B,
    Block,
    Scale,
    assert_agree,
    example,
    reasons,
    results,
    rows_in,
)


class One(nn.Module):
    """A block of one branch, by what it calls."""

    def __init__(self, *branch, mode="balanced"):
        super().__init__()
        self.norm, self.branch = nn.LayerNorm(WIDTH), nn.Sequential(*branch)
        self.drop_path = DropPath(0.4, mode=mode)

    def forward(self, x):
        return x + self.drop_path(self.branch(self.norm(x)))


class Does(nn.Module):
    """A module that computes a function."""

    def __init__(self, f):
        super().__init__()
        self.f = f

    def forward(self, x):
        return self.f(x)


class OverTokens(nn.Module):
    """BatchNorm over the last axis."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(WIDTH)

    def forward(self, x):
        return self.norm(x.transpose(1, 2)).transpose(1, 2)


def in_windows(x):
    """A map over windows of two samples, where the batch has a multiple of these."""
    pairs = x.reshape(-1, 3, *x.shape[1:]) if len(x) % 3 == 0 else x[None]
    return (pairs + pairs.mean(1, keepdim=True)).reshape(x.shape)


def with_other_gradient(x):
    """The values of each sample alone, and a gradient that is not."""
    return x + (x.mean(0, keepdim=True) - x.mean(0, keepdim=True).detach())


DIFFERS = "from masking's by"
MIXING = {
    "BatchNorm": (OverTokens(), "BatchNorm1d mixes the samples: "),
    "mean": (Does(lambda x: x - x.mean(0, keepdim=True)), DIFFERS),
    "a little of the mean": (Does(lambda x: x + 0.01 * x.mean(0, keepdim=True)), DIFFERS),
    "neighbour": (Does(lambda x: x + x.roll(1, 0)), DIFFERS),
    "softmax": (Does(lambda x: x.softmax(0)), DIFFERS),
    "windows": (Does(in_windows), DIFFERS),
    "size": (Does(lambda x: x * len(x)), DIFFERS),
    "gradient": (Does(with_other_gradient), "gradient of "),
    "fixed batch": (Does(lambda x: x.view(B, -1, WIDTH)), "RuntimeError: shape '[9, -1, 8]'"),
    "nested": (One(nn.Linear(WIDTH, WIDTH)), "the branch holds another DropPath: "),
    "residual": (DropPathResidual(nn.Linear(WIDTH, WIDTH), 0.5), "another DropPath: "),
    "zero": (Does(torch.zeros_like), "is zero, which shows nothing"),
}


@pytest.mark.parametrize("name", MIXING)
@pytest.mark.parametrize("hidden", ["", "behind a factor of 0", "by samples that are alike"])
def test_a_branch_that_mixes_samples_stays_masked_and_says_why(name, hidden):
    torch.manual_seed(0)
    mixes, why = MIXING[name]
    last = Scale(0.0) if hidden == "behind a factor of 0" else nn.Identity()
    masked = nn.Sequential(One(nn.Linear(WIDTH, WIDTH), copy.deepcopy(mixes), last)).double()
    x = example(masked)
    skipped = copy.deepcopy(masked)
    skip_dropped(skipped, torch.zeros_like(x) if "alike" in hidden else x)
    assert why in skipped[0].drop_path.why_masked
    assert rows_in(skipped[0].branch, lambda: skipped(x)) == [B]
    assert not skipped[0]._forward_pre_hooks
    if name not in ("nested", "zero") and not hidden:
        assert_agree(skipped, masked, x)


def test_a_BatchNorm_that_is_frozen_is_no_hindrance():
    norm = OverTokens().eval()
    model = nn.Sequential(One(nn.Linear(WIDTH, WIDTH), norm)).double()
    skip_dropped(model, example(model))
    assert reasons(model) == [""]


class Late(nn.Module):
    """As transformers' Swin: the batch is read before the branch, which a later module goes on."""

    def __init__(self):
        super().__init__()
        self.norm, self.mlp = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 4)
        self.out = nn.Linear(4, WIDTH)
        self.drop_path = DropPath(0.4, mode="balanced")

    def forward(self, x):
        batch = len(x)
        y = self.mlp(self.norm(x).view(batch, -1, WIDTH))
        return x + self.drop_path(self.out(y))


def test_what_can_be_skipped_of_a_branch_is():
    masked = nn.Sequential(Late()).double()
    x, skipped = example(masked), copy.deepcopy(masked)
    skip_dropped(skipped, x)
    assert reasons(skipped) == [""]
    assert skipped[0].drop_path.skips_from == ("0.mlp",)
    assert rows_in(skipped[0].norm, lambda: skipped(x)) == [B]
    assert rows_in(skipped[0].mlp, lambda: skipped(x))[0] < B
    assert_agree(skipped, masked, x)


def test_an_end_without_weights_is_not_worth_it():
    class Ends(One):
        def forward(self, x):
            return x + self.drop_path(self.scale(self.branch(self.norm(x))))

    model = nn.Sequential(Ends(nn.Linear(WIDTH, WIDTH), OverTokens()))
    model[0].scale = Scale()
    skip_dropped(model.double(), example(model))
    assert reasons(model)[0].startswith("BatchNorm1d mixes the samples: ")
    assert model[0].drop_path.skips_from == ()


def test_one_DropPath_of_several_blocks_is_skipped_where_it_may_be():
    torch.manual_seed(0)
    masked = nn.Sequential(*[One(nn.Linear(WIDTH, WIDTH)) for _ in range(3)]).double()
    masked[1].branch.append(OverTokens().double())
    masked[1].drop_path = masked[2].drop_path = masked[0].drop_path
    x, skipped = example(masked), copy.deepcopy(masked)
    skip_dropped(skipped, x)
    assert reasons(skipped)[0].startswith("BatchNorm1d mixes the samples: ")
    rows = [rows_in(block.branch, lambda: skipped(x))[0] for block in skipped]
    assert rows[1] == B
    assert max(rows[0], rows[2]) < B
    assert_agree(skipped, masked, x)


def test_modes_and_calls_that_cannot_be_skipped_are_named():
    class Keyed(One):
        def forward(self, x):
            return x + self.drop_path(self.branch(self.norm(x)), key=KEY)

    class Bare(One):
        def forward(self, x):
            return x + self.drop_path(torch.tanh(x))

    linear = nn.Linear(WIDTH, WIDTH)
    blocks = One(linear, mode="batch"), Keyed(linear), Bare(), DropPath(0.5)
    model = nn.Sequential(*blocks).double()
    model[2].unused = DropPath(0.5)
    skip_dropped(model, example(model))
    assert reasons(model) == [
        "mode is 'batch'",
        "its call is given where its mask comes from",
        "its block calls no module with these rows before",
        "the example does not call it",
        reasons(model)[4],
    ]
    assert reasons(model)[4]


class Counting(nn.Module):
    """A module with a state of each kind, and a draw of its own."""

    def __init__(self):
        super().__init__()
        self.calls = 0
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self.register_buffer("latest", torch.zeros(WIDTH, dtype=torch.double))

    def forward(self, x):
        self.calls += 1
        self.steps += 1
        self.latest = x.detach().mean((0, 1))
        return x + torch.rand(())


def test_after_the_trial_all_but_the_hooks_is_as_it_was():
    torch.manual_seed(0)
    blocks = Block(dropout=0.1), One(nn.Linear(WIDTH, WIDTH), OverTokens())
    model = nn.Sequential(Counting(), *blocks).double()
    x = example(model[1]).requires_grad_()
    model(x).square().sum().backward()
    model[2].drop_path.generator = torch.Generator().manual_seed(5)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    grads = [p.grad.clone() for p in model.parameters()]
    attributes = [held(m) for m in model.modules()]
    parameters, chance = list(model.parameters()), torch.get_rng_state()
    skip_dropped(model, x)
    assert torch.equal(torch.get_rng_state(), chance)
    assert model.state_dict().keys() == state.keys()
    assert all(same_bits(value, state[name]) for name, value in model.state_dict().items())
    assert all(a is b for a, b in zip(model.parameters(), parameters, strict=True))
    assert all(map(same_bits, [p.grad for p in parameters], grads))
    assert [held(m) for m in model.modules()] == attributes
    assert model[0].calls == 1
    assert model[2].drop_path.generator.initial_seed() == 5
    assert torch.equal(x.detach(), x)
    assert x.grad is not None


ASKED = "why_masked", "skips_from"  # what skip_dropped tells


def held(module):
    return {k: v for k, v in vars(module).items() if not k.startswith("_") and k not in ASKED}


def test_a_forward_that_breaks_off_leaves_nothing_behind():
    model, x = nn.Sequential(One(nn.Linear(WIDTH, WIDTH))).double(), example(Block())
    skip_dropped(model, x)

    def fail(module, args):
        raise KeyboardInterrupt

    handle = model[0].branch.register_forward_pre_hook(fail)
    with pytest.raises(KeyboardInterrupt):
        model(x)
    handle.remove()
    masked = skip_dropped(copy.deepcopy(model), undo=True)
    both = []
    for each in (model, masked):
        with keyed(each, KEY):
            both.append(results(each, x[:6]))  # another batch size
    for got, want in zip(*both, strict=True):
        torch.testing.assert_close(got, want, **CLOSE)
    assert droppath.kept_capacity(0.4, 6) < 6
