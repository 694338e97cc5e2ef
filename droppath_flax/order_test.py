"""The number of a module: it stays with it, and is no difference between models that are alike."""

import copy
import pickle

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from droppath_flax import DropPath
from droppath_flax.layers import layers_of


class Pair(nnx.Module):
    """Two parts, by the alphabet in another order than they are defined in."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.encoder = nnx.List([DropPath(0.5, rngs=rngs), DropPath(0.5, rngs=rngs)])
        self.decoder = DropPath(0.5, rngs=rngs)
        self.arm = nnx.Sequential(nnx.Linear(2, 2, rngs=rngs), DropPath(0.5, rngs=rngs))


ORDER = ["encoder.0", "encoder.1", "decoder", "arm.layers.1"]


def merged(model):
    return nnx.merge(*nnx.split(model))


def pickled(model):
    return pickle.loads(pickle.dumps(model))


@pytest.fixture(params=[True, False], ids=["graph", "tree"])
def model(request):
    with nnx.set_graph_mode(request.param):
        yield Pair(nnx.Rngs(0))


@pytest.mark.parametrize("change", [lambda m: m, merged, nnx.clone, copy.deepcopy, pickled])
def test_layers_count_in_the_order_of_definition(model, change):
    assert list(layers_of(change(model))) == ORDER


def test_a_program_compiled_for_one_part_leaves_the_order_of_others(model):
    traces = []

    @nnx.jit
    def draw(drop, x):
        traces.append(x)
        return drop(x)

    for drop in (model.encoder[1], model.decoder, model.encoder[0], model.arm.layers[1]):
        draw(drop, jnp.ones(4))
    assert len(traces) == 1  # one program for all: Flax writes the first one's attributes to each
    assert list(layers_of(model)) == ORDER
    assert list(layers_of(merged(model))) == ORDER


def test_models_that_are_built_alike_are_alike(model):
    other = Pair(nnx.Rngs(0))
    graphdefs = nnx.graphdef(model), nnx.graphdef(other)
    assert graphdefs[0] == graphdefs[1]
    assert hash(graphdefs[0]) == hash(graphdefs[1])
    jax.tree.map(lambda a, b: (a, b), model, other)


def test_copies_of_one_block_go_by_their_index():
    class Block(nnx.Module):
        def __init__(self):
            self.second, self.first = DropPath(), DropPath()

    block = Block()
    model = nnx.List([nnx.clone(block) for _ in range(11)])
    want = [f"{i}.{name}" for i in range(11) for name in ("second", "first")]
    assert list(layers_of(model)) == want


def test_a_layer_that_two_parts_share_counts_once():
    drop = DropPath()
    model = nnx.Dict(b=nnx.List([drop]), a=nnx.List([drop, DropPath()]))
    assert len(layers_of(model)) == 2


def test_the_number_is_no_part_of_what_is_shown_or_saved(model):
    assert "_number" not in repr(model)
    assert not any("_number" in map(str, path) for path, _ in nnx.to_flat_state(nnx.state(model)))
