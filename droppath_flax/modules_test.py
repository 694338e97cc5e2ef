"""DropPath as an NNX module: nnx.Dropout's manners, rates as data, transforms, refusals."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import droppath
from droppath_flax.functional import drop_path
from droppath_flax.modules import DropPath

BATCH = 32
ONES = jnp.ones((BATCH, 2))


def mask_of(y):
    """The rows of a result for ONES that are not zero."""
    return (np.asarray(y) != 0).all(axis=1)


def mask_for(seed, *counts):
    """The mask for key(seed), with each count folded in, as an nnx stream does at each draw."""
    key = droppath.key(seed)
    for count in counts:
        key = droppath.fold_in(key, count)
    return droppath.keep_mask(key, 0.37, BATCH)


@pytest.mark.parametrize(
    "rngs",
    [
        nnx.Rngs(dropout=7),
        nnx.Rngs(7),
        nnx.Rngs(7, dropout=jax.random.key(7)),
        nnx.Rngs(params=1, dropout=7).dropout,
    ],
)
def test_a_module_draws_from_a_fork_of_the_stream_a_new_mask_at_each_call(rngs):
    first, second = DropPath(0.37, rngs=rngs), DropPath(0.37, rngs=rngs)
    np.testing.assert_array_equal(mask_of(first(ONES)), mask_for(7, 0, 0))
    np.testing.assert_array_equal(mask_of(first(ONES)), mask_for(7, 0, 1))
    np.testing.assert_array_equal(mask_of(second(ONES)), mask_for(7, 1, 0))


def test_rng_collection_names_the_stream():
    rngs = nnx.Rngs(dropout=1, paths=7)
    drop = DropPath(0.37, rng_collection="paths", rngs=rngs)
    np.testing.assert_array_equal(mask_of(drop(ONES)), mask_for(7, 0, 0))
    drop = DropPath(0.37, rng_collection="paths")
    np.testing.assert_array_equal(mask_of(drop(ONES, rngs=nnx.Rngs(paths=7))), mask_for(7, 0))


def test_the_calls_own_source_takes_precedence():
    drop = DropPath(0.37, rngs=nnx.Rngs(1))
    rngs = nnx.Rngs(dropout=7)
    np.testing.assert_array_equal(mask_of(drop(ONES, rngs=rngs)), mask_for(7, 0))
    np.testing.assert_array_equal(mask_of(drop(ONES, rngs=rngs.dropout)), mask_for(7, 1))
    for key in (jax.random.key(7), droppath.key(7)):
        np.testing.assert_array_equal(mask_of(drop(ONES, rngs=key)), mask_for(7))
        np.testing.assert_array_equal(mask_of(drop(ONES, key=key, rngs=rngs)), mask_for(7))
    keep = np.arange(BATCH) % 3 > 0
    np.testing.assert_array_equal(mask_of(drop(ONES, keep=keep, rngs=rngs)), keep)
    assert drop.rngs.count[...] == 0  # and the module's own stream has given nothing
    assert rngs.dropout.count[...] == 2


def test_evaluation_is_set_at_construction_at_the_call_or_by_a_view():
    drop = DropPath(0.37, rngs=nnx.Rngs(0))
    assert mask_of(drop(ONES, deterministic=True)).all()
    drop.eval()
    assert mask_of(drop(ONES)).all()
    assert not mask_of(drop(ONES, deterministic=False)).all()
    drop.train()
    assert not mask_of(drop(ONES)).all()
    view = nnx.view(drop, deterministic=True)
    assert mask_of(view(ONES)).all()
    assert not mask_of(drop(ONES)).all()
    assert mask_of(DropPath(0.37, deterministic=True)(ONES)).all()


@pytest.mark.parametrize(
    ("drop_prob", "call"),
    [(0.37, {"deterministic": True}), (0.0, {}), (0, {}), (0.37, {"keep": np.ones(BATCH, bool)})],
)
def test_a_stream_is_not_advanced_when_nothing_is_drawn(drop_prob, call):
    drop = DropPath(drop_prob, rngs=nnx.Rngs(0))
    drop(ONES, **call)
    assert drop.rngs.count[...] == 0


def test_options_are_those_of_drop_path():
    x, key = jnp.ones((2, BATCH)), droppath.key(3)
    for options in (
        {"mode": "balanced", "groups": 4, "axis": 1},
        {"mode": "batch", "scale_by_keep": False},
        {"scale_at": "eval", "axis": -1},
    ):
        for call in ({"key": key, "offset": 8}, {"deterministic": True}):
            y = DropPath(0.37, **options)(x, **call)
            np.testing.assert_array_equal(y, drop_path(x, 0.37, **options, **call))


def test_there_are_no_parameters_and_a_float_rate_is_no_state():
    drop = DropPath(0.37)
    assert jax.tree.leaves(nnx.state(drop)) == []
    assert jax.tree.leaves(nnx.state(DropPath(0.37, rngs=nnx.Rngs(0)), nnx.Param)) == []
    assert jax.tree.leaves(nnx.state(DropPath(jnp.float32(0.37)))) == [jnp.float32(0.37)]
    assert nnx.split(drop)[0] != nnx.split(DropPath(0.9))[0]


def test_a_rate_of_zero_can_be_scheduled():
    drop = DropPath(0.0, rngs=nnx.Rngs(0))
    assert mask_of(drop(ONES)).all()
    for rate in (0.9, jnp.float32(0.9), 0.1, jnp.float32(0.1)):
        drop.drop_prob = rate
        kept = mask_of(drop(ONES)).sum()
        assert kept < 16 if rate > 0.5 else kept > 16


@pytest.mark.parametrize("graph", [True, False])
def test_a_rate_that_is_a_jax_scalar_changes_without_recompiling_and_a_float_recompiles(graph):
    traces = []

    @nnx.jit
    def run(drop, key):
        traces.append(None)
        return drop(ONES, key=key)

    with nnx.set_graph_mode(graph):
        drop = DropPath(0.0)
        for rate in (jnp.float32(0.37), jnp.float32(0.9)):
            drop.drop_prob = rate
            want = droppath.keep_mask(droppath.key(7), float(rate), BATCH)
            np.testing.assert_array_equal(mask_of(run(drop, jax.random.key(7))), want)
        assert len(traces) == 1
        for rate in (0.37, 0.9):
            run(DropPath(rate), jax.random.key(7))
        assert len(traces) == 3


@pytest.mark.parametrize("graph", [True, False])
def test_jit_draws_eagers_masks_and_advances_the_stream(graph):
    with nnx.set_graph_mode(graph):
        drop = DropPath(0.37, rngs=nnx.Rngs(7))
        run = nnx.jit(lambda drop: drop(ONES))
        for count in range(3):
            np.testing.assert_array_equal(mask_of(run(drop)), mask_for(7, 0, count))


def test_split_and_merge_keep_the_rate_and_the_stream():
    drop = DropPath(jnp.float32(0.37), rngs=nnx.Rngs(7))
    drop(ONES)
    graphdef, state = nnx.split(drop)
    run = jax.jit(lambda state: nnx.merge(graphdef, state)(ONES))
    np.testing.assert_array_equal(mask_of(run(state)), mask_for(7, 0, 1))
    again = nnx.merge(graphdef, state)
    assert again.drop_prob == jnp.float32(0.37)
    np.testing.assert_array_equal(mask_of(again(ONES)), mask_for(7, 0, 1))


class Block(nnx.Module):
    def __init__(self, rate, w):
        self.w = nnx.Param(w)
        self.drop_path = DropPath(rate)

    def __call__(self, x, key):
        return x + self.drop_path(self.w * x, key=key)


@pytest.mark.parametrize("graph", [True, False])
def test_a_scan_over_rematerialised_blocks_of_traced_rates_is_the_unrolled_loop(graph):
    depth, x = 4, jnp.linspace(-3, 5, BATCH * 2).reshape(BATCH, 2)
    keys, w = jax.random.split(jax.random.key(3), depth), jnp.float32([0.5, 1, 2, 0.25])
    # w and 1/(1-p) are powers of 2: XLA fuses products into sums, and these round alike.
    rates = jnp.float32([0, 0.5, 0.75, 0.875])

    def unrolled(x):
        for i in range(depth):
            x = Block(rates[i], w[i])(x, keys[i])
        return x

    @jax.jit
    def scanned(state, x):
        step = nnx.scan(in_axes=(0, nnx.Carry, 0), out_axes=nnx.Carry)(nnx.remat(Block.__call__))
        return step(nnx.merge(graphdef, state), x, keys)

    y, pull = jax.vjp(unrolled, x)
    with nnx.set_graph_mode(graph):
        blocks = nnx.vmap(Block)(rates, w)
        graphdef, state = nnx.split(blocks)
        y_scanned, pull_scanned = jax.vjp(partial(scanned, state), x)
        np.testing.assert_array_equal(y_scanned, y)
        np.testing.assert_array_equal(pull_scanned(x)[0], pull(x)[0])
    assert len({*np.asarray((y / x).round(3)).flat}) > 3  # rows have lost various blocks


@pytest.mark.parametrize("rate", [np.array(0.37), np.float32(0.37), np.float64(0.37)])
def test_a_rate_of_numpy_becomes_a_float_also_where_it_is_assigned(rate):
    drop = DropPath(0.1)
    for _ in range(2):
        drop.drop_prob = rate
        assert type(drop.drop_prob) is float
        assert drop.drop_prob == DropPath(rate).drop_prob
        drop.drop_prob = jnp.float32(0.1)
    drop.drop_prob = rate
    want = droppath.keep_mask(droppath.key(7), float(rate), BATCH)
    np.testing.assert_array_equal(mask_of(drop(ONES, key=droppath.key(7))), want)
