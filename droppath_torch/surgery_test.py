"""set_drop_probs and convert, on stand-ins for other libraries' layers and on a model of timm."""

import copy
import re

import numpy as np
import pytest
import torch
from torch import fx, nn

import droppath
from droppath_torch import DropPath, DropPathResidual, convert, drop_path, keyed, set_drop_probs
from droppath_torch.functional_test import same_bits

KEY = droppath.key(7)


def layer(name, **held):
    """A layer of another library: an instance of a class of that name that holds these."""
    module = type(name, (nn.Module,), {})()
    for attribute, value in held.items():
        setattr(module, attribute, value)
    return module


def drop_probs(model):
    return [m.drop_prob for m in model.modules() if isinstance(m, DropPath)]


def three():
    branch = nn.Sequential(nn.Linear(4, 4), DropPath(0.1))
    return nn.Sequential(DropPath(0.2), DropPathResidual(branch, 0.3))


def test_one_rate_is_every_layers():
    model = three()
    for rate in (0.7, 0, 1, np.float32(0.5)):
        set_drop_probs(model, rate)
        assert drop_probs(model) == [rate] * 3
        assert {type(p) for p in drop_probs(model)} == {float}


@pytest.mark.parametrize("make", [list, tuple, np.array])
def test_several_rates_go_in_the_order_of_modules(make):
    model = three()
    set_drop_probs(model, make([0.0, 0.25, 0.5]))
    assert [model[0].drop_prob, model[1].drop_prob, model[1].branch[1].drop_prob] == [0, 0.25, 0.5]


def test_a_tensor_stays_a_tensor_that_can_be_written_to():
    model, rate = three(), torch.tensor(0.5)
    set_drop_probs(model, rate)
    rate.fill_(0.25)
    assert drop_probs(model) == [0.25] * 3
    set_drop_probs(model, torch.tensor([0.125, 0.25, 0.5]))
    assert drop_probs(model) == [0.125, 0.25, 0.5]


def test_a_layer_that_is_used_twice_counts_once():
    shared = DropPath()
    model = nn.ModuleList([shared, DropPath(), shared])
    set_drop_probs(model, [0.1, 0.2])
    assert [m.drop_prob for m in model] == [0.1, 0.2, 0.1]


def test_a_rate_that_is_set_is_the_one_that_draws():
    model = nn.Sequential(DropPath())
    set_drop_probs(model, 0.37)
    with keyed(model, KEY):
        kept = model(torch.ones(64)) != 0
    assert kept.tolist() == droppath.keep_mask(droppath.fold_in(KEY, 0), 0.37, 64).tolist()


class Block(nn.Module):
    """A block of two branches, as in timm: the module that holds both DropPaths."""

    def __init__(self, inner=None):
        super().__init__()
        self.inner, self.drop_path1, self.drop_path2 = inner, DropPath(), DropPath()


def test_as_many_rates_as_blocks_give_each_block_its_own():
    model = nn.Sequential(Block(), Block(), DropPath())
    set_drop_probs(model, [0.1, 0.2, 0.3])  # the Sequential is the last one's block
    assert drop_probs(model) == [0.1, 0.1, 0.2, 0.2, 0.3]
    set_drop_probs(model, [0.1, 0.2, 0.3, 0.4, 0.5])
    assert drop_probs(model) == [0.1, 0.2, 0.3, 0.4, 0.5]


def test_blocks_are_counted_in_the_order_of_their_first_layers():
    set_drop_probs(model := Block(Block()), torch.tensor([0.25, 0.5]))
    assert drop_probs(model) == [0.25, 0.25, 0.5, 0.5]
    shared = DropPath()
    model = nn.ModuleList([nn.Sequential(shared, DropPath()), nn.Sequential(shared, DropPath())])
    set_drop_probs(model, [0.1, 0.2])
    assert drop_probs(model) == [0.1, 0.1, 0.2]


def test_where_each_block_holds_one_layer_both_readings_are_the_same():
    within = nn.ModuleList([nn.Sequential(DropPath()), DropPath()])
    model = nn.ModuleList([within, nn.Sequential(DropPath())])
    set_drop_probs(model, [0.1, 0.2, 0.3])
    assert drop_probs(model) == [0.1, 0.2, 0.3]
    assert [within[0][0].drop_prob, within[1].drop_prob] == [0.1, 0.2]
    set_drop_probs(layer := DropPath(), [0.4])
    assert layer.drop_prob == 0.4


NUMBERS = "rates must be 3, one for each DropPath, or 2, one for each block that holds DropPaths"


@pytest.mark.parametrize(
    ("rates", "text"),
    [
        ([0.5] * 4, f"{NUMBERS}, got 4"),
        ([0.5], f"{NUMBERS}, got 1"),
        ([], f"{NUMBERS}, got 0"),
        ([0.5, 1.5], "rates[1] must be a number in [0, 1], got 1.5"),
        ([0.5, 0.5, 1.5], "rates[2] must be a number in [0, 1], got 1.5"),
        ([[0.5], [0.5], [0.5]], "rates[0] must be a number in [0, 1], got [0.5]"),
        (float("nan"), "rates must be a number in [0, 1], got nan"),
        (None, "rates must be a number in [0, 1], got None"),
        (torch.tensor(1), "rates must be a floating scalar, got int64 of shape ()"),
    ],
)
def test_bad_rates_are_named_and_none_is_set(rates, text):
    model = three()
    with pytest.raises(ValueError) as error:
        set_drop_probs(model, rates)
    assert str(error.value) == text
    assert drop_probs(model) == [0.2, 0.3, 0.1]


def test_a_model_without_a_DropPath_is_refused():
    with pytest.raises(ValueError) as error:
        set_drop_probs(nn.Sequential(layer("DropPath", drop_prob=0.1)), 0.5)
    assert str(error.value) == "model must hold a DropPath of droppath_torch, got none"


THEIRS = [
    (layer("DropPath", drop_prob=0.1, scale_by_keep=True), DropPath(0.1)),
    (layer("DropPath", drop_prob=0.1, scale_by_keep=False), DropPath(0.1, False)),
    (layer("StochasticDepth", p=0.9, mode="row"), DropPath(0.9)),
    (layer("StochasticDepth", p=0.9, mode="batch"), DropPath(0.9, mode="batch")),
    (layer("SwinDropPath", drop_prob=0.1), DropPath(0.1)),
    (layer("BeitDropPath", drop_prob=None, _is_hf_initialized=True), DropPath(0.0)),
]


@pytest.mark.parametrize(("theirs", "want"), THEIRS)
def test_each_librarys_layer_is_swapped_for_the_same_rate_and_meaning(theirs, want):
    theirs = copy.deepcopy(theirs)
    model = nn.Sequential(nn.Tanh(), nn.ModuleDict({"deep": theirs}))
    assert convert(model) is model
    ours = model[1]["deep"]
    x = torch.randn(16, 3)
    for module in (ours, convert(theirs)):
        assert type(module) is DropPath
        assert repr(module) == repr(want)
        assert same_bits(module(x, key=KEY), want(x, key=KEY))


def test_a_mode_is_given_to_all_that_is_swapped_and_to_nothing_else():
    model = nn.ModuleDict(
        {
            "a": layer("StochasticDepth", p=0.1, mode="batch"),
            "b": layer("SwinDropPath", drop_prob=0.2),
            "drop_path": nn.Identity(),
            "ours": DropPath(0.3),
        }
    )
    with pytest.raises(ValueError, match=r"mode must be .* got 'rows'"):
        convert(model, mode="rows")
    assert isinstance(model["drop_path"], nn.Identity)
    convert(model, mode="balanced")
    assert [model[name].mode for name in model] == ["balanced"] * 3 + ["row"]
    assert [model[name].drop_prob for name in model] == [0.1, 0.2, 0, 0.3]


def test_training_flags_shared_layers_and_the_order_of_modules_are_kept():
    shared, evaluating = layer("DropPath", drop_prob=0.1), layer("XDropPath", drop_prob=0.2).eval()
    block = nn.ModuleDict({"a": shared, "b": nn.Linear(2, 2), "c": shared})
    model = nn.ModuleList([evaluating, block, shared, None])
    names = [name for name, _ in model.named_modules(remove_duplicate=False)]
    convert(model)
    assert [name for name, _ in model.named_modules(remove_duplicate=False)] == names
    assert block["a"] is block["c"] is model[2]
    assert (model[0].training, model[2].training) == (False, True)
    assert drop_probs(model) == [0.2, 0.1]


def test_the_state_dict_stays():
    branch = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), layer("DropPath", drop_prob=0.1))
    model = nn.Sequential(branch, nn.Linear(2, 2))
    before = {k: v.clone() for k, v in model.state_dict().items()}
    after = convert(model).state_dict()
    assert list(after) == list(before)
    assert all(same_bits(after[k], before[k]) for k in before)


def test_what_is_no_DropPath_and_what_is_ours_stays():
    layers = [nn.Identity(), nn.Dropout(0.1), layer("DropPathway", a=1), *three(), DropPath(0.5)]
    model = nn.Sequential(*layers)
    assert convert(convert(model)) is model
    assert all(a is b for a, b in zip(model, layers, strict=True))
    assert convert(layers[-1]) is layers[-1]


def test_a_layer_within_a_residual_of_ours_is_swapped():
    model = DropPathResidual(nn.Sequential(layer("DropPath", drop_prob=0.1)), 0.2)
    assert drop_probs(convert(model)) == [0.2, 0.1]


FORMS = "must hold drop_prob, drop_prob and scale_by_keep, or p and mode, got"


@pytest.mark.parametrize(
    ("odd", "text"),
    [
        (layer("XDropPath"), f"{FORMS} XDropPath with nothing"),
        (layer("StochasticDepth", p=0.1), f"{FORMS} StochasticDepth with p"),
        (layer("DropPath", drop_prob=0.1, dim=1), f"{FORMS} DropPath with dim, drop_prob"),
        (
            layer("DropPath", drop_prob=0.1, proj=nn.Tanh(), w=nn.Parameter(torch.ones(2))),
            f"{FORMS} DropPath with drop_prob, proj, w",
        ),
        (
            layer("StochasticDepth", p=0.1, mode="column"),
            "must be a DropPath: mode must be one of 'row', 'balanced', 'batch', got 'column'",
        ),
        (
            layer("DropPath", drop_prob=1.5),
            "must be a DropPath: drop_prob must be a number in [0, 1], got 1.5",
        ),
    ],
)
def test_a_layer_that_is_not_understood_is_named_and_nothing_is_swapped(odd, text):
    first = layer("DropPath", drop_prob=0.1)
    model = nn.Sequential(first, nn.ModuleDict({"odd": odd}))
    with pytest.raises(ValueError, match=f"^{re.escape('1.odd ' + text)}$"):
        convert(model)
    assert model[0] is first
    with pytest.raises(ValueError, match=f"^{re.escape('model ' + text)}$"):
        convert(odd)


def test_a_converted_model_is_traced_and_compiled_as_one_of_ours():
    model = convert(nn.Sequential(layer("DropPath", drop_prob=0.5), nn.Tanh()))
    traced = fx.symbolic_trace(model)
    assert [node.target for node in traced.graph.nodes if node.op == "call_function"] == [drop_path]
    torch._dynamo.reset()
    compiled, x = torch.compile(model, fullgraph=True, backend="aot_eager"), torch.ones(64)
    with keyed(model, KEY):
        want = model(x)
    with keyed(model, KEY):
        assert same_bits(compiled(x), want)
    assert (want == 0).any()


def test_a_model_of_timm_is_converted_and_computes_the_same_in_evaluation():
    torch_module = pytest.importorskip("conformance.adapters.torch_module")
    torch_module.import_torchvision()
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    options = {"img_size": 16, "patch_size": 8, "embed_dim": 8, "depth": 3, "num_heads": 2}
    model = timm.models.VisionTransformer(**options, num_classes=3, drop_path_rate=0.2).eval()
    x, names = torch.randn(2, 3, 16, 16), list(model.state_dict())
    want = model(x)
    assert convert(model) is model
    assert list(model.state_dict()) == names
    assert drop_probs(model) == pytest.approx([0.0, 0.0, 0.1, 0.1, 0.2, 0.2])
    assert same_bits(model(x), want)
    set_drop_probs(model, 1.0)
    model.train()
    stream = model.blocks[0](torch.randn(2, 5, 8))
    assert same_bits(model.blocks[2](model.blocks[1](stream)), stream)
