"""keyed: the mask of each layer and call, in every transform, and what is restored."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

import droppath
import droppath_torch
from droppath_flax import DropPath, DropPathResidual, keyed, set_drop_probs
from droppath_flax.streams import LayerKey

KEY = droppath.key(7)
X = jnp.asarray(np.random.default_rng(0).normal(size=(12, 3)), jnp.float32)


class Block(nnx.Module):
    """A block that calls one DropPath for both of its branches, as transformers' do."""

    def __init__(self, p: float, rngs: nnx.Rngs) -> None:
        self.linear = nnx.Linear(3, 3, rngs=rngs)
        self.drop_path = DropPath(p, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = x + self.drop_path(self.linear(x))
        return x + self.drop_path(jnp.sin(x))


class Model(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.blocks = nnx.List([Block(p, rngs) for p in (0.37, 0.1, 0.9)])

    def __call__(self, x: jax.Array) -> jax.Array:
        for block in self.blocks:
            x = block(x)
        return x


@pytest.fixture(params=[True, False], ids=["graph", "tree"])
def model(request):
    """A model, and Flax in either mode: modules as graphs, or as trees."""
    with nnx.set_graph_mode(request.param):
        yield Model(nnx.Rngs(0))


@pytest.fixture(scope="module")
def want() -> jax.Array:
    """The model's output with the masks of the reference given to each call."""
    model, x = Model(nnx.Rngs(0)), X
    for index, block in enumerate(model.blocks):
        key = droppath.fold_in(KEY, index)
        keeps = [
            droppath.keep_mask(k, block.drop_path.drop_prob, 12)
            for k in (key, droppath.fold_in(key, 2))  # KEY-8: call 1 folds in 2
        ]
        assert not all(keep.all() for keep in keeps)
        x = x + block.drop_path(block.linear(x), keep=keeps[0])
        x = x + block.drop_path(jnp.sin(x), keep=keeps[1])
    return x


def close(a, b):
    np.testing.assert_allclose(a, b, rtol=1e-5)


def test_call_c_of_layer_l_draws_by_their_numbers(model, want):
    with keyed(model, KEY):
        close(model(X), want)
    with keyed(model, jax.random.key(7)):
        close(model(X), want)
    with keyed(model, droppath.key(8)):
        assert not np.allclose(model(X), want)


def test_a_second_forward_in_the_block_counts_on():
    model = nnx.Sequential(DropPath(0.5), DropPath(0.5))
    with keyed(model, KEY):
        got = [[layer(jnp.ones(50)) != 0 for layer in model.layers] for _ in range(3)]
    layers = [droppath.fold_in(KEY, index) for index in range(2)]
    keys = [layers, *([droppath.fold_in(key, call + 1) for key in layers] for call in (1, 2))]
    want = [[droppath.keep_mask(key, 0.5, 50) for key in of_call] for of_call in keys]
    np.testing.assert_array_equal(got, want)


def test_a_key_or_a_mask_of_the_call_goes_first_and_a_stream_does_not():
    drop, x = DropPath(0.5), jnp.ones(50)
    other = droppath.key(9)
    with keyed(drop, KEY):
        np.testing.assert_array_equal(drop(x, key=other) != 0, droppath.keep_mask(other, 0.5, 50))
        assert drop(x, keep=jnp.ones(50, bool)).all()
        want = droppath.keep_mask(droppath.fold_in(KEY, 0), 0.5, 50)
        np.testing.assert_array_equal(drop(x, rngs=nnx.Rngs(dropout=0)) != 0, want)


def test_micro_batches_with_their_offsets_are_the_whole_batch():
    model = nnx.Sequential(DropPath(0.5), DropPathResidual(jnp.sin, 0.5, mode="row"))
    with keyed(model, KEY):
        whole = model(X)
    parts = []
    for start in (0, jnp.uint32(8)):
        with keyed(model, KEY, offset=start):
            parts.append(model(X[start : start + 8]))
    close(np.concatenate(parts)[:12], whole)
    with keyed(model, KEY), pytest.raises(ValueError, match="offset must be given to keyed"):
        model.layers[0](X, offset=4)


def test_evaluation_and_a_rate_of_0_draw_nothing():
    model = nnx.Sequential(DropPath(0.0), DropPath(0.5, deterministic=True))
    with keyed(model, KEY):
        np.testing.assert_array_equal(model(X), X)
        assert [int(layer.rngs.count[...]) for layer in model.layers] == [0, 0]


def test_the_masks_are_those_of_pytorch():
    x = np.ones((40, 2), np.float32)
    ours = nnx.Sequential(*[DropPath(p) for p in (0.1, 0.5, 0.9)])
    theirs = torch.nn.Sequential(*[droppath_torch.DropPath(p) for p in (0.1, 0.5, 0.9)])
    with keyed(ours, KEY), droppath_torch.keyed(theirs, KEY):
        for mine, other in zip(ours.layers, theirs, strict=True):
            np.testing.assert_array_equal(mine(x), other(torch.from_numpy(x)))


def test_a_list_of_layers_is_the_order_in_which_they_count():
    model = nnx.Dict({name: DropPath(0.5) for name in "abc"})
    order = ["c", "a", "b"]
    with keyed(model, KEY, layers=order):
        got = [model[name](jnp.ones(50)) != 0 for name in order]
    want = [droppath.keep_mask(droppath.fold_in(KEY, i), 0.5, 50) for i in range(3)]
    np.testing.assert_array_equal(got, want)
    set_drop_probs(model, [0.1, 0.2, 0.3], layers=order)
    assert [model[name].drop_prob for name in "abc"] == [0.2, 0.3, 0.1]


class SomeonesDropPath(nnx.Module):
    pass


@pytest.mark.parametrize(
    ("model", "options", "text"),
    [
        (3, {}, "model must be a flax.nnx.Module, got int"),
        (nnx.Dropout(0.5), {}, "model must hold a DropPath of droppath_flax, got none"),
        (
            nnx.Sequential(DropPath(), SomeonesDropPath()),
            {},
            "model must hold DropPaths of droppath_flax, got SomeonesDropPath at layers.1: put",
        ),
        (DropPath(), {"key": None}, "key must be"),
        (DropPath(), {"offset": -1}, "offset must be"),
        (DropPath(), {"layers": ["a"]}, "layers must name each of 1 DropPaths once, got 'a'"),
    ],
)
def test_what_is_refused_changes_nothing(model, options, text):
    before = nnx.graphdef(model) if isinstance(model, nnx.Module) else None
    with pytest.raises(ValueError, match=f"^{text}"):
        keyed(model, **{"key": KEY, **options}).__enter__()
    assert before is None or nnx.graphdef(model) == before


def test_an_exception_restores_the_streams():
    model = DropPath(0.5)
    block = keyed(model, KEY)
    block.__enter__()
    assert isinstance(model.rngs, LayerKey)
    assert not block.__exit__(KeyError, KeyError("of the model"), None)
    assert model.rngs is None
