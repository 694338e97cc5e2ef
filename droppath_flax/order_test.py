"""The order of a model's layers: that of the code of its classes, in every copy and trace."""

import copy
import dataclasses
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import droppath
from droppath_flax import DropPath, DropPathResidual, keyed, set_drop_probs, summary
from droppath_flax.layers import layers_of
from droppath_flax.order import modules_of


class Branch(nnx.Module):
    """Assigns by two methods, a loop and a tuple; what the loop makes goes by name."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.second, self.first = DropPath(0.5, rngs=rngs), DropPath(0.5, rngs=rngs)
        for i in (10, 9):
            setattr(self, f"stage{i}", DropPath(0.5, rngs=rngs))
        self.build(rngs)

    def build(self, rngs: nnx.Rngs) -> None:
        self.built = DropPath(0.5, rngs=rngs)


class Pair(nnx.Module):
    """Parts that are made in another order than they are assigned in, and named in another."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        decoder = DropPath(0.5, rngs=rngs)
        self.encoder = nnx.List([DropPath(0.5, rngs=rngs) for _ in range(11)])
        self.decoder = decoder
        self.arm = nnx.Sequential(nnx.Linear(2, 2, rngs=rngs), Branch(rngs))


ORDER = [
    *(f"encoder.{i}" for i in range(11)),
    "decoder",
    *(f"arm.layers.1.{name}" for name in ("second", "first", "built", "stage9", "stage10")),
]


def merged(model):
    return nnx.merge(*nnx.split(model))


def pickled(model):
    return pickle.loads(pickle.dumps(model))


def put_anew(model):
    model.encoder[1] = DropPath(0.5)
    model.arm.layers[1].second = DropPath(0.5)
    return model


@pytest.fixture(params=[True, False], ids=["graph", "tree"])
def model(request):
    with nnx.set_graph_mode(request.param):
        yield Pair(nnx.Rngs(0))


@pytest.mark.parametrize(
    "change", [lambda m: m, merged, nnx.clone, copy.deepcopy, pickled, put_anew]
)
def test_layers_count_in_the_order_in_which_the_code_assigns_them(model, change):
    assert list(layers_of(change(model))) == ORDER
    assert list(layers_of(merged(change(model)))) == ORDER


def test_a_program_compiled_for_one_model_draws_alike_for_another(model):
    @nnx.jit
    def draw(model, key):
        with keyed(model, key):
            return [layer(jnp.ones(16)) != 0 for layer in layers_of(model).values()]

    key = droppath.key(1)
    want = [droppath.keep_mask(droppath.fold_in(key, i), 0.5, 16) for i in range(len(ORDER))]
    for each in (model, merged(model), Pair(nnx.Rngs(1)), put_anew(Pair(nnx.Rngs(2)))):
        np.testing.assert_array_equal(draw(each, key), want)


def test_models_that_are_built_alike_are_alike(model):
    other = Pair(nnx.Rngs(0))
    assert nnx.graphdef(model) == nnx.graphdef(other)
    jax.tree.map(lambda a, b: (a, b), model, other)


@dataclasses.dataclass
class Fields(nnx.Module):
    """A dataclass assigns in the order of its fields."""

    z: DropPath
    a: DropPath


class Child(Branch):
    """What a base assigns comes first, as it does by super().__init__."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.alpha = DropPath(0.5)
        super().__init__(rngs)


def test_dataclasses_bases_residuals_and_containers_have_an_order_too():
    assert list(layers_of(Fields(DropPath(), DropPath()))) == ["z", "a"]
    assert list(layers_of(Child(nnx.Rngs(0))))[:3] == ["second", "first", "built"]
    nested = DropPathResidual(nnx.Sequential(DropPath()), 0.5)
    assert list(layers_of(nested)) == ["", "branch.layers.0"]  # as in PyTorch
    by_name = nnx.Dict({"b10": DropPath(), "b9": DropPath(), "a": DropPath()})
    assert list(layers_of(by_name)) == ["a", "b9", "b10"]


def test_a_layer_that_two_parts_share_counts_once_where_it_is_first(model):
    shared = DropPath(0.25)
    model.arm.layers[1].second = shared
    model.decoder = shared
    want = [path for path in ORDER if path != "arm.layers.1.second"]
    assert list(layers_of(model)) == want
    assert [line.path for line in summary(model).layers] == want
    set_drop_probs(model, [i / 100 for i in range(len(want))])
    assert shared.drop_prob == 0.11


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Registered:
    drop: DropPath
    rest: tuple[DropPath, ...]


def test_modules_in_containers_of_jax_are_found(model):
    model.held = nnx.data({"b": Registered(DropPath(), (DropPath(),)), "a": [DropPath()]})
    want = ["held.a.0", "held.b.drop", "held.b.rest.0"]
    assert list(layers_of(model)) == [*ORDER, *want]
    flax = {id(module) for _, module in nnx.iter_modules(model, graph=True)}
    assert {id(module) for module in modules_of(model).values()} == flax


def test_all_modules_are_found_once(model):
    flax = {id(module) for _, module in nnx.iter_modules(model, graph=True)}
    assert {id(module) for module in modules_of(model).values()} == flax
    assert len(modules_of(model)) == len(flax)
