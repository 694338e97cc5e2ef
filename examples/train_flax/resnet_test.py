"""The ResNets: their sizes, their blocks by hand, and what a closed block leaves alone."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import droppath
from examples.train_flax.model import build_model, layer_rates
from examples.train_flax.presets import PRESETS
from examples.train_flax.resnet import (
    Block,
    convolve,
    convolve_by_matmul,
    convolve_by_xla,
    shortcut,
)

PRE = dataclasses.replace(PRESETS["smoke"], drop_path_rate=0.9, rule="uniform")
POST = dataclasses.replace(PRESETS["resnet110"], depth=8, width=4, drop_path_rate=0.4)
KEY = jax.random.key(5)
IMAGES = jax.random.normal(jax.random.key(1), (6, 8, 8, 1))


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [7, 8])
def test_the_convolution_by_matmul_is_the_convolution(stride, size):
    x = jax.random.normal(jax.random.key(2), (2, size, size, 3))
    kernel = jax.random.normal(jax.random.key(3), (3, 3, 3, 5))
    want = convolve_by_xla(x, kernel, stride)
    np.testing.assert_allclose(convolve_by_matmul(x, kernel, stride), want, rtol=0, atol=1e-5)


def test_the_way_to_convolve_is_that_of_the_platform_that_a_program_is_compiled_for():
    x, kernel = jnp.ones((2, 8, 8, 3)), jnp.ones((3, 3, 3, 5))
    traced = jax.jit(partial(convolve, stride=1)).trace(x, kernel)
    for platform, way in (("cpu", "dot_general"), ("cuda", "convolution"), ("tpu", "convolution")):
        text = traced.lower(lowering_platforms=(platform,)).as_text()
        found = [name for name in ("dot_general", "convolution") if f"stablehlo.{name}" in text]
        assert found == [way]


def test_a_branch_that_may_not_run_says_how_its_batch_is_shared(block):
    """XLA for GPUs would gather the whole batch; XLA for a CPU shares it anyway."""
    graphdef, state = nnx.split(block)
    with jax.set_mesh(jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))):

        def step(state, x):
            return nnx.merge(graphdef, state)(x, key=KEYS[True])

        text = jax.jit(step).lower(state, X).as_text()
    branch = text.partition("stablehlo.case")[2]
    assert branch.count("sdy.sharding_constraint") == 2


def parameters(preset, image_shape):
    model = nnx.eval_shape(lambda: build_model(PRESETS[preset], image_shape, 10, KEY))
    return jax.tree.leaves(nnx.state(model, nnx.Param))


def test_depth_counts_convolutions_and_the_last_layer():
    params = parameters("digits", (8, 8, 1))
    kernels = [p.shape for p in params if len(p.shape) == 4]
    assert len(kernels) + 1 == PRESETS["digits"].depth
    # stem 9*16; 3 blocks a stage: 6*9*16^2, then 9*(c*2c + 5*4c^2) for c = 16 and 32; BN and head
    convolutions = 144 + 54 * 256 + 9 * (512 + 5 * 1024) + 9 * (2048 + 5 * 4096)
    norms = 2 * (6 * 16 + (16 + 5 * 32) + (32 + 5 * 64) + 64)
    assert sum(p.size for p in params) == convolutions + norms + 64 * 10 + 10


def test_resnet110_has_the_papers_size():
    params = parameters("resnet110", (32, 32, 3))
    assert len([p.shape for p in params if len(p.shape) == 4]) + 1 == 110
    # 36 convolutions a stage, the first of a later one from half the channels; a bias and BN's two
    # for each channel of each convolution, the stem's too
    kernels = 9 * (3 * 16 + 36 * 16**2 + (0.5 + 35) * 32**2 + (0.5 + 35) * 64**2)
    channels = 16 + 36 * (16 + 32 + 64)
    assert sum(p.size for p in params) == kernels + 3 * channels + 64 * 10 + 10 == 1_732_010


def test_a_shortcut_averages_and_fills_up_with_zeros():
    x = jnp.arange(16.0).reshape(1, 4, 4, 1)
    np.testing.assert_array_equal(shortcut(x, 1, 1), x)
    y = shortcut(x, 2, 3)
    assert y[..., 0].tolist() == [[[2.5, 4.5], [10.5, 12.5]]]  # (0 + 1 + 4 + 5) / 4, ...
    np.testing.assert_array_equal(y[..., 1:], np.zeros((1, 2, 2, 2)))


def test_layer_l_drops_the_samples_that_its_folded_key_says():
    graphdef, state = nnx.split(build_model(PRE, (8, 8, 1), 10, KEY))
    keys = [droppath.fold_in(droppath.key(5), layer) for layer in range(3)]

    @jax.jit
    def layer_by_layer(words):
        model, whole = nnx.merge(graphdef, state, copy=True), []
        x = model.stem(IMAGES)
        for block, key in zip(model.blocks, words, strict=True):
            y = block(x, key=key)
            whole.append((y == shortcut(x, block.stride, block.c_out)).all((1, 2, 3)))
            x = y
        logits = model.head(nnx.relu(model.norm(x)).mean((1, 2)))
        return whole, logits, nnx.merge(graphdef, state, copy=True)(IMAGES, key=jax.random.key(5))

    whole, want, got = layer_by_layer(np.array(keys))
    for passed_on, key, p in zip(whole, keys, layer_rates(PRE), strict=True):
        keep = droppath.keep_mask(key, p, len(IMAGES))
        assert passed_on.tolist() == (~keep).tolist()
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-6)


def test_evaluation_needs_no_key_and_drops_nothing():
    model = build_model(PRE, (8, 8, 1), 10, KEY)
    constant = build_model(dataclasses.replace(PRE, drop_path_rate=0.0), (8, 8, 1), 10, KEY)
    model.eval()
    constant.eval()
    both = jax.jit(lambda: (model(IMAGES), constant(IMAGES)))()
    np.testing.assert_allclose(*both, rtol=0, atol=1e-6)


@pytest.fixture(params=[(4, 4, 1), (4, 8, 2)], ids=["same shape", "first of a stage"])
def block(request):
    return Block(*request.param, 0.4, POST, nnx.Rngs(0))


X = jax.random.normal(jax.random.key(2), (6, 8, 8, 4))
KEYS = {droppath.keep_mask(droppath.key(i), 0.4, 1)[0]: jax.random.key(i) for i in range(8)}


def test_an_open_block_is_conv_bn_relu_conv_bn_the_addition_then_relu(block):
    branch = nnx.clone(block.residual.branch)
    f = branch.norm2(branch.conv2(nnx.relu(branch.norm1(branch.conv1(X)))))
    want = nnx.relu(shortcut(X, block.stride, block.c_out) + f)  # no 1/(1-p) in training
    np.testing.assert_allclose(block(X, key=KEYS[True]), want, rtol=0, atol=1e-6)


def test_a_closed_block_is_relu_of_the_shortcut_and_its_statistics_do_not_move(block):
    before = jax.tree.map(jnp.copy, nnx.state(block, nnx.BatchStat))
    y = block(X, key=KEYS[False])
    np.testing.assert_array_equal(y, nnx.relu(shortcut(X, block.stride, block.c_out)))
    pairs = list(zip(*map(jax.tree.leaves, (before, nnx.state(block, nnx.BatchStat))), strict=True))
    assert len(pairs) == 4  # mean and variance of two
    assert all(np.array_equal(a, b) for a, b in pairs)
    block(X, key=KEYS[True])
    moved = jax.tree.leaves(nnx.state(block, nnx.BatchStat))
    assert not any(np.array_equal(a, b) for (a, _), b in zip(pairs, moved, strict=True))


@pytest.mark.parametrize("network", ["preresnet", "resnet"])
def test_in_balanced_mode_a_block_runs_on_the_images_that_are_kept(network):
    cfg = dataclasses.replace(POST, network=network, mode="balanced", scale_at="train")
    block, key = Block(4, 4, 1, 0.5, cfg, nnx.Rngs(0)), jax.random.key(3)
    kept = np.flatnonzero(droppath.keep_mask(droppath.key(3), 0.5, 6, mode="balanced"))
    assert len(kept) == droppath.kept_capacity(0.5, 6) == 3  # no spare row
    branch = nnx.clone(block.residual.branch)
    want = X.at[kept].add(2 * branch(None, X[kept]))  # BatchNorm sees these alone
    y = block(X, key=key)
    want = nnx.relu(want) if network == "resnet" else want
    np.testing.assert_allclose(y, want, rtol=0, atol=1e-5)
    pairs = zip(
        *(jax.tree.leaves(nnx.state(m, nnx.BatchStat)) for m in (block.residual.branch, branch)),
        strict=True,
    )
    for got, alone in pairs:
        np.testing.assert_allclose(got, alone, rtol=1e-5)


def test_a_closed_block_that_is_computed_moves_its_statistics():
    masked = Block(4, 4, 1, 0.4, dataclasses.replace(POST, skip=False), nnx.Rngs(0))
    before = jax.tree.map(jnp.copy, nnx.state(masked, nnx.BatchStat))
    masked(X, key=KEYS[False])
    pairs = zip(*map(jax.tree.leaves, (before, nnx.state(masked, nnx.BatchStat))), strict=True)
    assert not any(np.array_equal(a, b) for a, b in pairs)


def test_evaluation_weighs_a_branch_by_the_probability_that_it_was_open(block):
    block.eval()
    f = block.residual.branch(None, X)
    want = nnx.relu(shortcut(X, block.stride, block.c_out) + 0.6 * f)
    np.testing.assert_allclose(block(X, key=None), want, rtol=0, atol=1e-6)
