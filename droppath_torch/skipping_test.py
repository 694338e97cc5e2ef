"""skip_dropped: what runs, and that the numbers are masking's, on small models of others' form.

The blocks are written as timm, transformers and torchvision write theirs. Not here: what is
refused or stays masked (proof_test.py); compiled and recomputed (skipping_traced_test.py).
"""

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention

import droppath
from droppath_torch import DropPath, keyed, set_drop_probs, skip_dropped
from droppath_torch.functional_test import same_bits
from droppath_torch.trial import fixed_masks

B, TOKENS, WIDTH, HEADS, P = 9, 5, 8, 2, 0.4
KEY = droppath.key(3)
CLOSE = {"rtol": 1e-12, "atol": 1e-12}  # float64; sums over other shapes round otherwise


class Attention(nn.Module):
    def __init__(self, dropout=0.0):
        super().__init__()
        self.qkv, self.dropout = nn.Linear(WIDTH, 3 * WIDTH), dropout

    def forward(self, x, mask=None, tables=None, bias=None):
        batch, tokens, _ = x.shape
        qkv = self.qkv(x).view(batch, tokens, 3, HEADS, -1).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind()
        if tables is not None:  # two of [B, tokens, width of a head]
            q, k = (y * tables[0][:, None] + y.roll(1, -1) * tables[1][:, None] for y in (q, k))
        if bias is not None:  # [heads, tokens, tokens]
            mask = bias[None]
        dropout = self.dropout if self.training else 0.0
        y = scaled_dot_product_attention(q, k, v, mask, dropout)
        return y.transpose(1, 2).reshape(x.shape)


class Scale(nn.Module):
    def __init__(self, init=1e-5):
        super().__init__()
        self.gamma = nn.Parameter(init * torch.ones(WIDTH))

    def forward(self, x):
        return x * self.gamma


class Block(nn.Module):
    """As in timm: an attention and a perceptron, each behind a norm, with a DropPath of its own."""

    def __init__(self, p=P, mode="balanced", dropout=0.0, **options):
        super().__init__()
        self.norm1, self.attn, self.ls1 = nn.LayerNorm(WIDTH), Attention(dropout), Scale()
        self.drop_path1 = DropPath(p, mode=mode, **options)
        self.norm2 = nn.LayerNorm(WIDTH)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 16), nn.GELU(), nn.Dropout(dropout))
        self.out = nn.Linear(16, WIDTH)
        self.drop_path2 = DropPath(p, mode=mode, **options)

    def forward(self, x, **options):
        x = x + self.drop_path1(self.ls1(self.attn(self.norm1(x), **options)))
        return x + self.drop_path2(self.out(self.mlp(self.norm2(x))))


class Twice(nn.Module):
    """As in transformers: one DropPath, two branches, and a factor that is no module's."""

    def __init__(self, p=P):
        super().__init__()
        self.norm1, self.attn, self.norm2 = nn.LayerNorm(WIDTH), Attention(), nn.LayerNorm(WIDTH)
        self.mlp, self.drop_path = nn.Linear(WIDTH, WIDTH), DropPath(p, mode="balanced")
        self.gamma = nn.Parameter(1e-5 * torch.ones(WIDTH))

    def forward(self, x):
        hidden = self.drop_path(self.gamma * self.attn(self.norm1(x))) + x
        return self.drop_path(self.mlp(self.norm2(hidden))) + hidden


class InPlace(nn.Module):
    """As in torchvision's ConvNeXt: the sum is written into what the DropPath returns."""

    def __init__(self, p=P):
        super().__init__()
        self.block = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.GELU())
        self.stochastic_depth = DropPath(p, mode="balanced")

    def forward(self, x):
        y = self.stochastic_depth(self.block(x))
        y += x
        return y


class Parallel(nn.Module):
    """As in timm: each branch is a Sequential that ends in its DropPath; a module goes before."""

    def __init__(self, p=P):
        super().__init__()
        self.before = nn.Linear(WIDTH, WIDTH)
        branches = [(nn.LayerNorm(WIDTH), Attention(), DropPath(p, mode="row")) for _ in range(2)]
        self.branches = nn.ModuleList([nn.Sequential(*branch) for branch in branches])

    def forward(self, x):
        x = self.before(x)
        return x + torch.stack([branch(x) for branch in self.branches]).sum(0)


def example(block, batch=B):
    shape = (batch, 3, 6, 6) if isinstance(block, InPlace) else (batch, TOKENS, WIDTH)
    return torch.randn(shape, dtype=torch.double)


def made(make, **options):
    torch.manual_seed(0)
    return nn.Sequential(make(**options), make(**options)).double()


def reasons(model):
    return [m.why_masked for m in model.modules() if isinstance(m, DropPath)]


def results(model, x, *given, **named):
    """What a step gives: the output, and the gradients of x and of all parameters."""
    x = x.clone().requires_grad_()
    model.zero_grad()
    y = model(x, *given, **named)
    (y * torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view(y.shape)).sum().backward()
    return [y.detach(), x.grad, *[p.grad for p in model.parameters()]]


def assert_agree(skipped, masked, x, *given, **named):
    pairs = []
    for model in (skipped, masked):
        with fixed_masks(model):
            pairs.append(results(model, x, *given, **named))
    assert len(pairs[0]) > 2
    for got, want in zip(*pairs, strict=True):
        torch.testing.assert_close(got, want, **CLOSE)
    assert pairs[1][0].ne(x).any()


def rows_in(module, run):
    """The batch sizes that a module is given."""
    seen = []
    handle = module.register_forward_pre_hook(lambda _, args: seen.append(len(args[0])))
    run()
    handle.remove()
    return seen


STARTS = {
    Block: ["norm1", "norm2"],
    Twice: ["norm1", "norm2"],
    InPlace: ["block"],
    Parallel: ["branches.0.0", "branches.1.0"],
}


@pytest.mark.parametrize("make", STARTS)
def test_a_branch_is_skipped_and_the_numbers_are_those_of_masking(make):
    masked = made(make)
    skipped, x = copy.deepcopy(masked), example(masked[0])
    assert skip_dropped(skipped, x) is skipped
    assert reasons(skipped) == [""] * len(reasons(masked))
    assert reasons(masked)[0] is None
    begins = [name for m in skipped.modules() for name in getattr(m, "skips_from", ())]
    assert begins == [f"{i}.{name}" for i in range(2) for name in STARTS[make]]
    assert_agree(skipped, masked, x)


@pytest.mark.parametrize("make", [Block, Parallel])
@pytest.mark.parametrize("mode", ["row", "balanced"])
@pytest.mark.parametrize("options", [{}, {"scale_by_keep": False}, {"scale_at": "eval"}])
def test_within_keyed_the_masks_are_those_of_masking(make, mode, options):
    masked = made(make)
    for drop in masked.modules():
        if isinstance(drop, DropPath):
            drop.__init__(P, mode=mode, **options)
    skipped, x = skip_dropped(copy.deepcopy(masked), example(masked[0])), example(masked[0])
    for training in (True, False):
        both = []
        for model in (skipped.train(training), masked.train(training)):
            with keyed(model, KEY):
                both.append(results(model, x))
        for got, want in zip(*both, strict=True):
            torch.testing.assert_close(got, want, **CLOSE)


def test_the_branch_runs_on_the_rows_that_are_kept():
    model, x = made(Block), example(Block())
    skip_dropped(model, x)
    layer = 0  # the first in the order of modules
    for seed in range(5):
        key = droppath.key(seed)
        keep = droppath.keep_mask(droppath.fold_in(key, layer), P, B, mode="balanced")

        def run(key=key):
            with keyed(model, key):
                model(x)

        assert rows_in(model[0].attn, run) == [keep.sum()]
        assert 0 < keep.sum() < B
    unkeyed = {rows_in(model[1].mlp, lambda: model(x))[0] for _ in range(20)}
    assert unkeyed == {5, 6}  # 9 * 0.4 = 3.6 are dropped


def test_a_rate_of_0_and_evaluation_run_all_rows_and_a_rate_of_1_runs_one():
    model, x = made(Block), example(Block())
    skip_dropped(model, x)
    assert rows_in(model[0].attn, lambda: model.eval()(x)) == [B]
    set_drop_probs(model.train(), 0.0)
    assert rows_in(model[0].attn, lambda: model(x)) == [B]
    set_drop_probs(model, 1.0)
    assert rows_in(model[0].attn, lambda: model(x)) == [1]
    assert same_bits(model(x), x)
    set_drop_probs(model, torch.tensor(0.9))
    masked = skip_dropped(copy.deepcopy(model), undo=True)
    with keyed(model, KEY), keyed(masked, KEY):
        torch.testing.assert_close(model(x), masked(x), **CLOSE)


def test_a_branch_with_dropout_is_skipped_and_keeps_its_dropout():
    model = made(Block, dropout=0.3)
    skip_dropped(model, example(model[0]))
    assert reasons(model) == [""] * 4
    x, seen = example(model[0]), []
    model[0].mlp.register_forward_hook(lambda _, __, y: seen.append(y))
    model(x)
    assert (seen[0] == 0).any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_in_autocast_and_in_low_precision_it_is_skipped_too(dtype):
    masked = made(Block).to(dtype)
    x = example(masked[0]).to(dtype)
    skipped = copy.deepcopy(masked)
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.float32):
        skip_dropped(skipped, x)
        assert reasons(skipped) == [""] * 4
        with keyed(skipped, KEY), keyed(masked, KEY):
            got, want = skipped(x), masked(x)
    assert got.dtype == want.dtype
    torch.testing.assert_close(got, want, rtol=0.02, atol=0.02)


def test_channels_last_goes_through():
    model = made(InPlace)
    x = example(model[0]).to(memory_format=torch.channels_last)
    skip_dropped(model, x)
    seen = []
    model[0].stochastic_depth.register_forward_hook(lambda _, args, y: seen.extend([args[0], y]))
    model(x)
    assert [len(y) for y in seen] in ([5, B], [6, B])
    assert all(y.is_contiguous(memory_format=torch.channels_last) for y in seen)


def test_a_copy_and_a_pickle_skip_by_themselves_and_the_state_dict_stays():
    model = made(Block)
    names, x = list(model.state_dict()), example(model[0])
    skip_dropped(model, x)
    assert list(model.state_dict()) == names
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        hook = next(iter(other[0].norm1._forward_pre_hooks.values()))
        assert hook.drop is other[0].drop_path1
        assert reasons(other) == [""] * 4
        assert rows_in(other[0].attn, lambda m=other: m(x))[0] < B
        assert_agree(other, model, x)
        skip_dropped(other, undo=True)
        assert rows_in(other[0].attn, lambda m=other: m(x)) == [B]
    assert rows_in(model[0].attn, lambda: model(x))[0] < B


def test_undone_it_is_as_it_was_and_can_be_skipped_again():
    model, x = made(Block), example(Block())
    before = [dict(vars(m)) for m in model.modules()]
    hooks = [len(m._forward_pre_hooks) + len(m._forward_hooks) for m in model.modules()]
    assert skip_dropped(skip_dropped(model, x), undo=True) is model
    assert [m.keys() - vars(n).keys() for m, n in zip(before, model.modules(), strict=True)] == [
        set()
    ] * len(before)
    now = [len(m._forward_pre_hooks) + len(m._forward_hooks) for m in model.modules()]
    assert now == hooks
    assert not any(m._forward_pre_hooks_with_kwargs for m in model.modules())
    assert reasons(skip_dropped(model, x)) == [""] * 4
