"""A layer that is called again: its masks (KEY-8), which forward it is in, and compiling."""

import copy
import pickle

import numpy as np
import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch.utils.checkpoint import checkpoint

import droppath
from droppath_torch import DropPath, DropPathResidual, keyed
from droppath_torch.calls import NAME
from droppath_torch.functional_test import same_bits

BROKEN = pytest.mark.filterwarnings("ignore:The .grad attribute")  # Dynamo's, after a graph break
KEY = droppath.key(7)
X = torch.randn(16, 4, generator=torch.Generator().manual_seed(1))


class Block(nn.Module):
    """A block as in transformers' Beit: one DropPath for both branches."""

    def __init__(self, p=0.37, checkpointed=(), reentrant=False, **options):
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)
        self.drop_path = DropPath(p, **options)
        self.checkpointed, self.reentrant = checkpointed, reentrant

    def first(self, x):
        return x + self.drop_path(self.a(x).tanh())

    def second(self, x):
        return x + self.drop_path(self.b(x).tanh())

    def both(self, x):
        return self.second(self.first(x))

    def run(self, name, x):
        if name not in self.checkpointed:
            return getattr(self, name)(x)
        return checkpoint(getattr(self, name), x, use_reentrant=self.reentrant)

    def forward(self, x):
        if "both" in self.checkpointed:
            return self.run("both", x)
        return self.run("second", self.run("first", x))


class Twice(nn.Module):
    """Calls a layer so many times, each by itself, and returns what it keeps of ones."""

    def __init__(self, *layers, times=3):
        super().__init__()
        self.layers, self.times = nn.ModuleList(layers), times

    def forward(self, x):
        return [[layer(x) for layer in self.layers] for _ in range(self.times)]


def want(layer, c, key=KEY, index=0, batch=16, offset=0):
    own = droppath.fold_in(key, index)
    own = droppath.fold_in(own, c + 1) if c else own
    options = {"mode": layer.mode, "groups": layer.groups, "offset": offset}
    return droppath.keep_mask(own, float(layer.drop_prob), batch, **options).tolist()


def kept(y):
    return (y[:, 0] != 0).tolist()


@pytest.mark.parametrize("p", [0.37, torch.tensor(0.37)])
@pytest.mark.parametrize("key", [KEY, torch.from_numpy(KEY.astype(np.int64))])
@pytest.mark.parametrize("offset", [0, 16])
def test_call_c_draws_from_the_layers_key_with_c_plus_1_folded_in(p, key, offset):
    layers = [DropPath(p), DropPath(p, mode="balanced", groups=2), DropPath(0.9, mode="batch")]
    model = Twice(*layers)
    with keyed(model, key, offset=offset):
        got = model(torch.ones(16, 4))
    assert [[kept(y) for y in ys] for ys in got] == [
        [want(layer, c, index=i, offset=offset) for i, layer in enumerate(layers)] for c in range(3)
    ]
    assert len({str(kept(ys[0])) for ys in got}) == 3


def test_a_residual_that_is_called_again_draws_again():
    block = DropPathResidual(torch.ones_like, 0.37)
    model = Twice(block)
    with keyed(model, KEY):
        got = model(torch.zeros(16, 4))
    assert [kept(y) for (y,) in got] == [want(block, c) for c in range(3)]


def test_another_batch_size_counts_on():
    layer = DropPath(0.37)

    class Sizes(Twice):
        def forward(self, x):
            return [layer(x), layer(x[:8]), layer(x)]

    model = Sizes(layer)
    with keyed(model, KEY):
        got = model(torch.ones(16, 4))
    assert [kept(y) for y in got] == [want(layer, c, batch=b) for c, b in enumerate((16, 8, 16))]


SECOND = (
    "key must serve one forward of model, got a call of a DropPath in a second: enter keyed again "
    "with another key for another forward"
)
OUTSIDE = (
    "key must serve one call of each DropPath outside a forward, got a second: call the model "
    "itself that keyed was given, or enter keyed again with another key"
)


@pytest.mark.parametrize("p", [0.37, torch.tensor(0.37)])
def test_a_second_forward_is_refused_whoever_calls_the_model(p):
    model = Block(p)
    for outer in (model, nn.Sequential(model)):
        with keyed(model, KEY):
            outer(X)
            with pytest.raises(ValueError) as error:
                outer(X)
            assert str(error.value) == SECOND
        with keyed(model, KEY):
            outer(X)


def test_a_second_call_outside_a_forward_is_refused():
    model = Block()
    with keyed(model, KEY):
        model.first(X)
        with pytest.raises(ValueError) as error:
            model.second(X)
        assert str(error.value) == OUTSIDE
    with keyed(model, KEY):
        model(X)
        with pytest.raises(ValueError) as error:
            model.first(X)
        assert str(error.value) == SECOND


def test_a_wrapper_that_calls_its_model_for_each_crop_is_one_forward():
    class Crops(nn.Module):
        def __init__(self):
            super().__init__()
            self.backbone = DropPath(0.37)

        def forward(self, x):
            return [self.backbone(x), self.backbone(x)]

    crops = Crops()
    with keyed(crops, KEY):
        assert [kept(y) for y in crops(torch.ones(16, 4))] == [
            want(crops.backbone, c) for c in range(2)
        ]
    with keyed(crops.backbone, KEY), pytest.raises(ValueError, match="one forward of model"):
        crops(X)


def test_a_forward_in_evaluation_and_one_that_failed_at_its_begin_count_for_nothing():
    model = Block()
    with keyed(model, KEY):
        model.eval()(X)
        model.train()
        with pytest.raises(RuntimeError):
            model(X[:, :3])
        y = model(X)
    with keyed(model, KEY):
        assert same_bits(model(X), y)


def test_the_model_has_no_hook_after_it_and_a_copy_within_it_is_a_model_of_its_own():
    model = Block()
    with keyed(model, KEY):
        with keyed(model, droppath.key(8)):
            model(X)
        twin = copy.deepcopy(model)
        pickle.dumps(model)
        model(X)
    hooks = model._forward_pre_hooks, model._forward_hooks, model._forward_hooks_always_called
    assert [*map(dict, hooks)] == [{}, {}, {}]
    assert NAME not in vars(model)
    assert NAME in twin._forward_pre_hooks
    with keyed(twin, KEY):
        y = twin(X)
    with keyed(model, KEY):
        assert same_bits(model(X), y)


def test_a_replica_of_data_parallel_is_refused():
    layer = DropPath(0.37)
    model = nn.Sequential(layer)
    with keyed(model, KEY):
        replica = layer._replicate_for_data_parallel()
        with pytest.raises(ValueError, match=r"^model must not be replicated by nn.DataParallel"):
            replica(X)


@pytest.mark.parametrize("in_place", [True, False])
def test_calls_are_counted_in_a_program_and_another_key_compiles_nothing(in_place):
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("aot_eager")
    model, eager = Block(), Block()
    eager.load_state_dict(model.state_dict())
    options = {"fullgraph": True, "dynamic": False, "backend": counter}
    f = model if in_place else torch.compile(model, **options)
    if in_place:
        model.compile(**options)
    for step in range(20):
        key = droppath.fold_in(KEY, step)
        with keyed(model, key):
            y = f(X)
        with keyed(eager, key):
            assert same_bits(y, eager(X))
    assert counter.frame_count == 1


@BROKEN
def test_a_compiled_second_forward_is_refused():
    torch._dynamo.reset()
    model = Block()
    f = torch.compile(model, backend="aot_eager")
    with keyed(model, KEY):
        f(X)
        with pytest.raises(ValueError, match=r"^key must serve one"):
            f(X)
    torch._dynamo.reset()
    whole = torch.compile(model, backend="aot_eager", fullgraph=True)
    with keyed(model, KEY):
        whole(X)
        with pytest.raises(torch._dynamo.exc.Unsupported, match="outside_the_program"):
            whole(X)


@BROKEN
def test_a_graph_break_between_two_calls_keeps_the_count():
    class Broken(Block):
        def both(self, x):
            x = self.first(x)
            torch._dynamo.graph_break()
            return self.second(x)

        def forward(self, x):
            return self.both(x)

    torch._dynamo.reset()
    model = Broken()
    f = torch.compile(model, backend="aot_eager")
    for step in range(3):
        key = droppath.fold_in(KEY, step)
        with keyed(model, key):
            y = f(X)
        with keyed(model, key):
            assert same_bits(y, model(X))
