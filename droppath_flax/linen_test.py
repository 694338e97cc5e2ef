"""The Linen twin: linen.Dropout's manners, no silent fallback, lifted transforms."""

import inspect
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

import droppath
from droppath_flax import modules
from droppath_flax.functional import drop_path
from droppath_flax.linen import DropPath, DropPathResidual

BATCH = 32
ONES = jnp.ones((BATCH, 2))
DROPOUT = {"dropout": jax.random.key(5)}


class Stream(nn.Module):
    """Gives the key that a module at the same place draws first."""

    @nn.compact
    def __call__(self, name):
        return jax.random.key_data(self.make_rng(name))


@pytest.mark.parametrize("name", ["dropout", "paths"])
def test_the_mask_is_drawn_from_the_stream_of_rng_collection(name):
    rngs = {"params": jax.random.key(1), name: jax.random.key(5)}
    drop = DropPath(0.37, rng_collection=name)
    key = np.asarray(Stream().apply({}, name, rngs=rngs))
    want = droppath.drop_path(np.asarray(ONES), droppath.keep_mask(key, 0.37, BATCH), 0.37)
    for run in (drop.apply, jax.jit(drop.apply)):
        np.testing.assert_array_equal(run({}, ONES, rngs=rngs), want)


def test_a_key_or_a_mask_needs_no_stream_and_goes_before_one():
    for call in ({"key": droppath.key(3), "offset": 8}, {"keep": np.arange(BATCH) % 3 > 0}):
        want = drop_path(ONES, 0.37, **call)
        for rngs in ({}, DROPOUT):
            y = DropPath(0.37).apply({}, ONES, **call, rngs=rngs)
            np.testing.assert_array_equal(y, want)


@pytest.mark.parametrize("rngs", [{}, {"params": jax.random.key(0)}, {"paths": jax.random.key(0)}])
def test_without_its_stream_training_is_refused_even_where_linen_would_take_another(rngs):
    with pytest.raises(ValueError) as error:
        DropPath(0.37).apply({}, ONES, rngs=rngs)
    assert str(error.value) == (
        'key must be given to drop in training, or keep, or rngs={"dropout": key} to apply, '
        "got none"
    )
    with pytest.raises(ValueError, match=r'or rngs=\{"paths": key\} to apply, got none'):
        DropPathResidual(jnp.negative, 0.37, rng_collection="paths").apply({}, ONES)


def test_init_needs_no_stream_and_makes_no_variables():
    for rngs in ({}, jax.random.key(0), DROPOUT):
        y, variables = DropPath(0.37).init_with_output(rngs, ONES)
        assert variables == {}
        np.testing.assert_array_equal(y, ONES)


def test_evaluation_is_set_at_one_of_two_places():
    for attribute, call in ((True, None), (None, True)):
        drop = DropPath(0.37, deterministic=attribute)
        np.testing.assert_array_equal(drop.apply({}, ONES, deterministic=call), ONES)
    for attribute, call in ((False, None), (None, False), (None, None)):
        drop = DropPath(0.37, deterministic=attribute)
        y = drop.apply({}, ONES, deterministic=call, rngs=DROPOUT)
        assert 0 < (y == 0).sum() < y.size


@pytest.mark.parametrize("both", [True, False])
def test_evaluation_set_at_both_places_is_refused_as_linen_dropout_refuses_it(both):
    texts = []
    for cls in (nn.Dropout, DropPath):
        with pytest.raises(ValueError, match="constructor and at call time") as error:
            cls(0.37, deterministic=both).apply({}, ONES, deterministic=both, rngs=DROPOUT)
        texts.append(str(error.value))
    assert texts[0] == texts[1]


@pytest.mark.parametrize("drop_prob", [0, 0.0])
def test_a_rate_of_zero_draws_nothing(drop_prob, monkeypatch):
    monkeypatch.setattr(DropPath, "make_rng", None)  # a call would raise
    for rngs in ({}, DROPOUT):
        np.testing.assert_array_equal(DropPath(drop_prob).apply({}, ONES, rngs=rngs), ONES)
    with pytest.raises(TypeError, match="not callable"):
        DropPath(0.37).apply({}, ONES, rngs=DROPOUT)


def test_options_are_those_of_drop_path():
    x, key = jnp.ones((2, BATCH)), droppath.key(3)
    for options in (
        {"mode": "balanced", "groups": 4, "axis": 1},
        {"mode": "batch", "scale_by_keep": False},
        {"scale_at": "eval", "axis": -1},
    ):
        for call in ({"key": key, "offset": 8}, {"deterministic": True}):
            y = DropPath(0.37, **options).apply({}, x, **call)
            np.testing.assert_array_equal(y, drop_path(x, 0.37, **options, **call))


def test_its_options_and_defaults_are_the_nnx_modules():
    parameters = inspect.signature(modules.DropPath.__init__).parameters.values()
    nnx_defaults = {p.name: p.default for p in parameters if p.name not in ("self", "rngs")}
    defaults = {name: getattr(DropPath(), name) for name in nnx_defaults}
    assert defaults == {**nnx_defaults, "deterministic": None}  # None: given at the call


class Layer(nn.Module):
    @nn.compact
    def __call__(self, x, rate):
        y = DropPath(rate)(x)
        return x + y, y[:, 0] != 0


def layers(x, rates, *, split, remat=False):
    """Scan over one layer for each rate; returns the last x and the layers' masks."""
    layer = nn.remat(Layer) if remat else Layer
    scan = nn.scan(layer, split_rngs={"dropout": split}, in_axes=0)
    return scan().apply({}, x, rates, rngs=DROPOUT)


def test_a_scan_over_layers_drops_by_each_rate_and_draws_for_each_layer_if_rngs_are_split():
    rates = jnp.float32([0, 0.75, 0.75, 0.875, 1])
    x, keep = layers(ONES, rates, split=True)
    keep = np.asarray(keep)
    assert keep[0].all()
    assert (keep[1] != keep[2]).any()
    assert keep[1:4].any(axis=1).all()
    assert not keep[4].any()
    np.testing.assert_array_equal(x[:, 0], np.prod(1 + keep.T * [1, 4, 4, 8, 0], axis=1))
    shared = np.asarray(layers(ONES, rates, split=False)[1])
    np.testing.assert_array_equal(shared[1], shared[2])


def test_remat_changes_no_bit_of_the_gradient():
    rates = jnp.float32([0.5, 0.75, 0.875])

    def gradient(remat):
        return jax.jit(jax.grad(lambda x: layers(x, rates, split=True, remat=remat)[0].sum()))(ONES)

    assert len(np.unique(gradient(False))) > 3  # rows have lost various layers
    np.testing.assert_array_equal(gradient(True), gradient(False))
    drop = nn.remat(DropPath)(0.37)
    dx = jax.grad(lambda x: drop.apply({}, x, rngs=DROPOUT).sum())(ONES)
    np.testing.assert_array_equal(dx, DropPath(0.37).apply({}, ONES, rngs=DROPOUT))


class Branch(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(4)(nn.BatchNorm(use_running_average=False)(x))


@pytest.mark.parametrize("mode", ["row", "balanced", "batch"])
def test_a_residual_block_gives_the_keys_mask_and_leaves_statistics(mode):
    x = np.random.default_rng(0).normal(1, 1, (8, 4)).astype(np.float32)
    block = DropPathResidual(Branch(), 0.5, mode=mode)
    variables = block.init(jax.random.key(0), x)
    assert set(variables["params"]) == {"branch"}
    outcomes = set()
    for seed in range(6):
        y, after = block.apply(variables, x, key=jax.random.key(seed), mutable=["batch_stats"])
        keep = droppath.keep_mask(droppath.key(seed), 0.5, 8, mode=mode)
        np.testing.assert_array_equal((np.asarray(y) != x).any(1), keep)
        mean = after["batch_stats"]["branch"]["BatchNorm_0"]["mean"]
        runs = mode != "batch" or bool(keep[0])
        assert bool(np.any(mean != 0)) == runs
        outcomes.add(runs)
    assert outcomes == ({True, False} if mode == "batch" else {True})
    stream = {"rngs": {"dropout": jax.random.key(1)}, "mutable": ["batch_stats"]}
    drawn = [np.asarray(block.apply(variables, x, **stream)[0]) for _ in range(2)]
    np.testing.assert_array_equal(*drawn)
    with pytest.raises(ValueError, match="key must be given"):
        block.apply(variables, x)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        *(
            ({"drop_prob": p}, f"drop_prob must be a number in [0, 1], got {p!r}")
            for p in (-0.1, 1.5, float("nan"), None, "0.1", True)
        ),
        ({"mode": "rows"}, "mode must be one of 'row', 'balanced', 'batch', got 'rows'"),
        ({"scale_at": "test"}, "scale_at must be one of 'train', 'eval', got 'test'"),
        ({"axis": 0.5}, "axis must be an integer, got 0.5"),
        ({"groups": 0}, "groups must divide the batch, got groups=0 for batch=0"),
        ({"scale_by_keep": "no"}, "scale_by_keep must be True or False, got 'no'"),
        ({"deterministic": 2}, "deterministic must be True or False, got 2"),
        ({"rng_collection": None}, "rng_collection must be a text, got None"),
    ],
)
def test_what_cannot_be_constructed_is_refused(change, text):
    for made in (DropPath, partial(DropPathResidual, jnp.negative)):
        with pytest.raises(ValueError) as error:
            made(**{"drop_prob": 0.1, **change})
        assert str(error.value) == text


def test_a_branch_that_cannot_be_called_is_refused_at_construction():
    with pytest.raises(ValueError, match=r"^branch must be callable, got 5$"):
        DropPathResidual(5)
