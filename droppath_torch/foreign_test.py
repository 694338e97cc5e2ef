"""What is seen of other libraries: keyed refuses what else draws, convert finds a rate of 0."""

import pytest
import torch
from torch import fx, nn
from torch.nn import functional

import droppath
from droppath_torch import DropPath, convert, drop_path, keyed, set_drop_probs
from droppath_torch.surgery_test import drop_probs, layer

KEY = droppath.key(7)
NONE = "model must hold a DropPath of droppath_torch, got none"


def foreign_drop_path(x, drop_prob=0.1, training=True):
    return functional.dropout(x, drop_prob, training)


foreign_drop_path.__name__ = "drop_path"
stochastic_depth = foreign_drop_path


class ByFunction(nn.Module):
    """A block that calls torchvision's function, found among the file's names."""

    def __init__(self):
        super().__init__()
        self.drop_path = DropPath(0.1)

    def forward(self, x):
        return x + self.branch(x)

    def branch(self, x):
        return self.drop_path(stochastic_depth(x))


class Ours(nn.Module):
    """A block that calls our function with a key, and a layer of that name."""

    def __init__(self):
        super().__init__()
        self.stochastic_depth = DropPath(0.1)

    def forward(self, x):
        return self.stochastic_depth(drop_path(x, 0.1, key=KEY))


def recorded(**given):
    """A module of torch.fx that calls our function with these arguments."""
    graph = fx.Graph()
    graph.output(graph.call_function(drop_path, (graph.placeholder("x"), 0.1), given))
    return fx.GraphModule(nn.Module(), graph)


def enter(model):
    with keyed(model, KEY):
        pass


def function(name, where):
    return (
        f"model must draw by DropPath modules, got a call of the function {name} in {where}, "
        "which keyed does not reach"
    )


def theirs(name, where):
    return f"model must hold DropPaths of droppath_torch, got {name} at {where}: swap it by convert"


@pytest.mark.parametrize(
    ("model", "text"),
    [
        (nn.Linear(2, 2), NONE),
        (nn.Sequential(nn.Identity()), NONE),
        (layer("DropPath", drop_prob=0.1), theirs("DropPath", "model")),
        (
            nn.Sequential(DropPath(0.1), layer("SwinDropPath", drop_prob=0.1)),
            theirs("SwinDropPath", "1"),
        ),
        (ByFunction(), function("stochastic_depth", "model")),
        (nn.Sequential(DropPath(0.1), ByFunction()), function("stochastic_depth", "1")),
        (fx.symbolic_trace(nn.Sequential(DropPath(0.1))), function("drop_path", "model")),
        (
            nn.Sequential(DropPath(0.1), fx.symbolic_trace(nn.Sequential(DropPath(0.1)))),
            function("drop_path", "1"),
        ),
    ],
)
def test_a_model_that_draws_by_other_means_or_not_at_all_is_refused(model, text):
    with pytest.raises(ValueError) as error:
        enter(model)
    assert str(error.value) == text


def test_our_function_with_a_key_and_a_layer_named_as_a_function_are_no_hindrance():
    enter(Ours())
    enter(nn.Sequential(DropPath(0.1), recorded(keep=(True, False))))
    with pytest.raises(ValueError, match="the function drop_path in 1"):
        enter(nn.Sequential(DropPath(0.1), recorded(mode="batch")))


def test_a_subclass_of_ours_may_call_what_it_likes():
    class XDropPath(DropPath):
        def forward(self, x):
            return stochastic_depth(super().forward(x))

    enter(nn.Sequential(XDropPath(0.1)))


def test_a_model_that_torch_fx_traced_around_the_layers_is_keyed():
    class Tracer(fx.Tracer):
        def is_leaf_module(self, module, path):
            return isinstance(module, DropPath) or super().is_leaf_module(module, path)

    model = nn.Sequential(DropPath(0.37), nn.Tanh())
    traced = fx.GraphModule(model, Tracer().trace(model))
    x = torch.ones(64)
    with keyed(model, KEY):
        want = model(x)
    with keyed(traced, KEY):
        assert torch.equal(traced(x), want)
    assert drop_probs(traced) == [0.37]


PLACES = "drop_path", "drop_path1", "drop_path3", "attn_drop_path", "stochastic_depth"


@pytest.mark.parametrize("name", PLACES)
def test_an_identity_in_place_of_a_DropPath_is_swapped_for_one_of_rate_0(name):
    block = nn.ModuleDict({"norm": nn.Identity(), name: nn.Identity(), "drop": nn.Identity()})
    model = nn.Sequential(block, nn.Linear(2, 2)).eval()
    names, x = list(model.state_dict()), torch.randn(64, 2)
    assert convert(model) is model
    assert repr(block[name]) == "DropPath(drop_prob=0.000)"
    assert (type(block["norm"]), type(block["drop"])) == (nn.Identity, nn.Identity)
    assert not block[name].training
    assert list(model.state_dict()) == names
    assert block[name].train()(x) is x
    set_drop_probs(model, 0.37)
    with keyed(block[name], KEY):
        assert (block[name](x)[:, 0] == 0).any()


def test_what_is_in_such_a_place_and_no_plain_Identity_stays_and_a_shared_one_stays_one():
    class Named(nn.Identity):
        pass

    one, shared = nn.ModuleDict({"drop_path": Named()}), nn.Identity()
    both = nn.ModuleDict({"drop_path1": shared, "drop_path2": shared, "drop_path_norm": shared})
    model = convert(nn.Sequential(one, nn.ModuleDict({"drop_path": nn.Dropout(0.1)}), both))
    assert type(one["drop_path"]) is Named
    assert both["drop_path1"] is both["drop_path2"]
    assert both["drop_path_norm"] is shared
    assert drop_probs(model) == [0.0]


def test_a_model_with_nothing_to_convert_is_refused():
    for model in (nn.Sequential(nn.Linear(2, 2), nn.Identity()), nn.Identity()):
        with pytest.raises(ValueError) as error:
            convert(model)
        assert str(error.value) == (
            "model must hold a DropPath of timm, torchvision or transformers, or of "
            "droppath_torch, got none"
        )
