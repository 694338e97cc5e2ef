"""DropPath as a module: timm's forms, torch's draws, checkpointing, compile, and copies."""

import copy
import io
import pickle

import numpy as np
import pytest
import torch
from torch import fx, nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch.utils.checkpoint import checkpoint

import droppath
from droppath_torch import DropPath, DropPathResidual, drop_path, keyed
from droppath_torch.functional_test import same_bits

KEY = droppath.key(6)


@pytest.mark.parametrize(
    ("module", "p", "scale_by_keep"),
    [
        (DropPath(), 0.0, True),
        (DropPath(0.1), 0.1, True),
        (DropPath(drop_prob=0.1), 0.1, True),
        (DropPath(0.1, False), 0.1, False),
        (DropPath(0.1, scale_by_keep=False), 0.1, False),
    ],
)
def test_timms_forms_construct(module, p, scale_by_keep):
    assert (module.drop_prob, module.scale_by_keep) == (p, scale_by_keep)
    assert list(module.parameters()) == list(module.buffers()) == []
    assert module.state_dict() == {}


@pytest.mark.parametrize(
    ("module", "text"),
    [
        (DropPath(), "DropPath(drop_prob=0.000)"),
        (DropPath(0.1), "DropPath(drop_prob=0.100)"),  # as timm prints it
        (DropPath(2 / 3), "DropPath(drop_prob=0.667)"),
        (DropPath(torch.tensor(0.1)), "DropPath(drop_prob=0.100)"),
        (DropPath(0.1, False), "DropPath(drop_prob=0.100, scale_by_keep=False)"),
        (
            DropPath(0.1, mode="balanced", axis=1, groups=2, scale_at="eval"),
            "DropPath(drop_prob=0.100, mode=balanced, scale_at=eval, axis=1, groups=2)",
        ),
    ],
)
def test_it_prints_timms_text_and_what_is_not_the_default(module, text):
    assert repr(module) == text


OPTIONS = [
    {"mode": "row", "axis": 1},
    {"mode": "balanced", "groups": 2},
    {"mode": "batch", "scale_by_keep": False},
    {"scale_at": "eval"},
]


@pytest.mark.parametrize("options", OPTIONS)
def test_every_option_reaches_drop_path(options):
    x, module = torch.randn(8, 8), DropPath(0.37, **options)
    assert same_bits(module(x, key=KEY), drop_path(x, 0.37, key=KEY, **options))
    assert same_bits(module(x, key=KEY, offset=8), drop_path(x, 0.37, key=KEY, offset=8, **options))
    keep = torch.arange(8) < 5
    assert same_bits(module(x, keep=keep), drop_path(x, 0.37, keep=keep, **options))
    generator = torch.Generator().manual_seed(3)
    want = drop_path(x, 0.37, generator=generator, **options)
    generator.manual_seed(3)
    assert same_bits(DropPath(0.37, generator=generator, **options)(x), want)
    torch.manual_seed(3)
    assert same_bits(module(x), want)
    assert same_bits(module.eval()(x), drop_path(x, 0.37, False, **options))


def test_evaluation_and_rate_0_return_x_and_draw_nothing():
    x, before = torch.randn(8), torch.get_rng_state()
    assert DropPath(0.9).eval()(x) is x
    assert DropPath(0.0)(x) is x
    assert torch.equal(torch.get_rng_state(), before)


def test_a_rate_of_0_can_be_scheduled_later():
    model = nn.Sequential(nn.Identity(), DropPath(0.0))
    model[1].drop_prob = 0.3
    torch.manual_seed(0)
    y = model(torch.ones(1000))
    assert set(y.tolist()) == {0.0, torch.tensor(1 / 0.7).item()}
    assert 200 < (y == 0).sum() < 400


def test_pickles_and_copies_are_the_same_module():
    module = DropPath(0.37, False, mode="balanced", groups=2, axis=1)
    x = torch.randn(3, 8)
    for other in (pickle.loads(pickle.dumps(module)), copy.deepcopy(module)):
        assert repr(other) == repr(module)
        assert same_bits(other(x, key=KEY), module(x, key=KEY))
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    assert repr(torch.load(file, weights_only=False)) == repr(module)


def test_symbolic_trace_records_one_call_whose_mask_is_drawn_at_each_run():
    traced = fx.symbolic_trace(nn.Sequential(DropPath(0.3), DropPath(0.0)))
    assert [node.op for node in traced.graph.nodes].count("call_function") == 2
    torch.manual_seed(1)
    runs = [traced(torch.ones(50)).tolist() for _ in range(2)]
    torch.manual_seed(1)
    assert runs[0] == DropPath(0.3)(torch.ones(50)).tolist() != runs[1]


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("options", OPTIONS)
def test_gradients_with_activation_checkpointing_are_those_without(options, reentrant):
    model = nn.Sequential(nn.Linear(8, 8), DropPath(0.37, **options), nn.Linear(8, 8))
    results = []
    for checkpointed in (False, True):
        torch.manual_seed(4)
        model.zero_grad()
        x = torch.randn(8, 8, requires_grad=True)
        y = checkpoint(model, x, use_reentrant=reentrant) if checkpointed else model(x)
        torch.rand(5)  # other draws between forward and backward
        y.square().sum().backward()
        results.append([y, x.grad, *[p.grad for p in model.parameters()]])
    assert all(same_bits(a, b) for a, b in zip(*results, strict=True))


@pytest.fixture(scope="module")
def compiled():
    """A model with a DropPath of each mode, and its compiled form."""
    torch._dynamo.reset()
    model = nn.Sequential(DropPath(0.3), DropPath(0.2, mode="batch"), DropPath(torch.tensor(0.1)))
    return model, torch.compile(model, fullgraph=True, dynamic=False)


def test_compiled_without_a_key_draws_at_each_call_and_follows_manual_seed(compiled):
    _, f = compiled
    x = torch.ones(64)
    torch.manual_seed(0)
    runs = [f(x).tolist() for _ in range(20)]
    s = 1 / (0.7 * 0.8 * 0.9)
    values = {round(v, 4) for run in runs for v in run}
    assert values == {0.0, round(s, 4)}
    assert len({str(run) for run in runs}) > 5
    torch.manual_seed(0)
    assert [f(x).tolist() for _ in range(20)] == runs


def test_a_rate_in_a_tensor_changes_without_compiling_again():
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("aot_eager")
    module = DropPath(torch.tensor(0.1))
    f = torch.compile(module, fullgraph=True, dynamic=False, backend=counter)
    for p in (0.1, 0.9, 0.5):
        module.drop_prob = torch.tensor(p)
        y = f(torch.ones(2000))
        assert abs((y == 0).sum() / 2000 - p) < 0.08
        assert y.max() == pytest.approx(1 / (1 - p), rel=1e-6)
    assert counter.frame_count == 1


@torch._dynamo.config.patch(recompile_limit=16)  # PyTorch 2.11 makes ten programs here
def test_a_scheduled_float_compiled_is_the_eager_one():
    torch._dynamo.reset()
    module = DropPath(0.0)
    f = torch.compile(module, fullgraph=True, backend="aot_eager")
    keep, x = torch.arange(6) % 3 > 0, torch.randn(6, 2)
    for p in (0.0, 0.3, 0.9, 1.0, 0.1):
        module.drop_prob = p
        assert same_bits(f(x, keep=keep), module(x, keep=keep))
        assert same_bits(f(x, key=KEY), module(x, key=KEY))


BAD_RATES = [-0.1, 1.5, float("nan"), None, "0.1", True]


@pytest.mark.parametrize("p", BAD_RATES)
def test_a_bad_rate_is_refused_at_construction_and_at_the_call(p):
    text = f"drop_prob must be a number in [0, 1], got {p!r}"
    with pytest.raises(ValueError) as error:
        DropPath(p)
    assert str(error.value) == text
    module = DropPath(0.1)
    module.drop_prob = p
    for training in (True, False):
        with pytest.raises(ValueError) as error:
            module.train(training)(torch.ones(3))
        assert str(error.value) == text


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: DropPath(mode="x"), "mode must be one of 'row', 'balanced', 'batch', got 'x'"),
        (lambda: DropPath(scale_at=0), "scale_at must be one of 'train', 'eval', got 0"),
        (
            lambda: DropPath(torch.ones(2)),
            "drop_prob must be a floating scalar, got float32 of shape (2,)",
        ),
        (lambda: DropPath(0.1)(torch.ones(())), "x must have the batch axis 0, got shape ()"),
        (
            lambda: DropPath(0.1, groups=3)(torch.ones(4)),
            "groups must divide the batch, got groups=3 for batch=4",
        ),
    ],
)
def test_a_bad_argument_is_named(call, text):
    with pytest.raises(ValueError) as error:
        call()
    assert str(error.value) == text


@pytest.mark.parametrize("make", [DropPath, lambda p: DropPathResidual(nn.Linear(3, 3), p)])
def test_a_copy_made_within_keyed_draws_from_torch_and_not_from_its_key(make):
    model, x = nn.Sequential(make(0.5)), torch.randn(64, 3)
    with keyed(model, KEY):
        copies = [copy.deepcopy(model), pickle.loads(pickle.dumps(model))]
        keyed_masks = [mask(layer, x) for layer in (model, *copies)]
    assert keyed_masks[0] == mask(model, x, key=droppath.fold_in(KEY, 0))
    for other, drawn in zip(copies, keyed_masks[1:], strict=True):
        assert other[0].layer_key is None
        assert drawn != keyed_masks[0]
        assert mask(other, x) != mask(other, x)
    assert mask(model, x) != mask(model, x)


def mask(model, x, **options):
    """What of x a model of one layer changes, row by row."""
    y = model[0](x, **options)
    return ((y != x) if isinstance(model[0], DropPathResidual) else (y != 0)).any(1).tolist()


class Block(nn.Module):
    def __init__(self, by_lambda=False):
        super().__init__()
        self.linear = nn.Linear(3, 3)
        inner = (lambda x: self.linear(x)) if by_lambda else self.inner
        self.residual = DropPathResidual(inner, 0.4)

    def inner(self, x):
        return self.linear(x)


def test_a_copy_of_a_block_computes_with_weights_of_its_own():
    for block in (Block(), nn.Sequential(DropPathResidual(nn.Linear(3, 3), 0.4))):
        other, x = copy.deepcopy(block), torch.ones(4, 3)
        with torch.no_grad():
            for weight in other.parameters():
                weight.zero_()
        residuals = [m for m in other.modules() if isinstance(m, DropPathResidual)]
        assert torch.equal(residuals[0].eval()(x), x)
    assert torch.equal(copy.deepcopy(DropPathResidual(torch.neg)).eval()(x), torch.zeros(4, 3))


def test_a_copy_of_a_function_that_holds_a_module_is_refused_with_the_way_out():
    text = "^branch must be a module or a bound method to be copied: a function that holds modules"
    linear = nn.Linear(3, 3)
    for branch in (
        lambda x, linear=linear: linear(x),
        lambda x, *, linear=linear: linear(x),
        (lambda held: lambda x: held[0](x))([linear]),
        (lambda held: lambda x: held["a"](x))({"a": linear}),
    ):
        with pytest.raises(ValueError, match=text):
            copy.deepcopy(DropPathResidual(branch, 0.1))
    with pytest.raises(ValueError, match=text):
        copy.deepcopy(Block(by_lambda=True))


@pytest.mark.parametrize("generator", [5, "torch", np.random.default_rng(), torch.Generator])
def test_a_generator_of_another_kind_is_refused_also_where_it_would_be_ignored(generator):
    text = f"generator must be a torch.Generator or None, got {generator!r}"
    x = torch.ones(4)
    for call in (
        lambda: DropPath(0.1, generator=generator),
        lambda: DropPathResidual(torch.neg, generator=generator),
        lambda: drop_path(x, 0.1, key=KEY, generator=generator),
        lambda: drop_path(x, 0.0, generator=generator),
        lambda: drop_path(x, 0.1, False, generator=generator),
    ):
        with pytest.raises(ValueError) as error:
            call()
        assert str(error.value) == text
