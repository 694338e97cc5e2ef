"""The network: its size, its convolution, and which key a layer draws from."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import droppath
from examples.train_flax.config import PRESETS
from examples.train_flax.model import (
    build_model,
    convolve_by_matmul,
    convolve_by_xla,
    layer_rates,
    shortcut,
)

CFG = dataclasses.replace(PRESETS["smoke"], drop_path_rate=0.9, rule="uniform")
KEY = jax.random.key(5)
IMAGES = jax.random.normal(jax.random.key(1), (6, 8, 8, 1))


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [7, 8])
def test_the_convolution_by_matmul_is_the_convolution(stride, size):
    x = jax.random.normal(jax.random.key(2), (2, size, size, 3))
    kernel = jax.random.normal(jax.random.key(3), (3, 3, 3, 5))
    want = convolve_by_xla(x, kernel, stride)
    np.testing.assert_allclose(convolve_by_matmul(x, kernel, stride), want, rtol=0, atol=1e-5)


def test_depth_counts_convolutions_and_the_last_layer():
    model = nnx.eval_shape(lambda: build_model(PRESETS["digits"], (8, 8, 1), 10, KEY))
    params = jax.tree.leaves(nnx.state(model, nnx.Param))
    kernels = [p.shape for p in params if len(p.shape) == 4]
    assert len(kernels) + 1 == PRESETS["digits"].depth
    # stem 9*16; 3 blocks a stage: 6*9*16^2, then 9*(c*2c + 5*4c^2) for c = 16 and 32; BN and head
    convolutions = 144 + 54 * 256 + 9 * (512 + 5 * 1024) + 9 * (2048 + 5 * 4096)
    norms = 2 * (6 * 16 + (16 + 5 * 32) + (32 + 5 * 64) + 64)
    assert sum(p.size for p in params) == convolutions + norms + 64 * 10 + 10


def test_one_key_gives_one_set_of_weights_at_every_rate():
    constant = build_model(dataclasses.replace(CFG, drop_path_rate=0.0), (8, 8, 1), 10, KEY)
    stochastic = build_model(CFG, (8, 8, 1), 10, KEY)
    pairs = zip(
        jax.tree.leaves(nnx.state(constant, nnx.Param)),
        jax.tree.leaves(nnx.state(stochastic, nnx.Param)),
        strict=True,
    )
    assert all(np.array_equal(a, b) for a, b in pairs)


def test_layer_l_drops_the_samples_that_its_folded_key_says():
    model = build_model(CFG, (8, 8, 1), 10, KEY)
    words = droppath.key(5)
    x = model.stem(IMAGES)
    for layer, (block, p) in enumerate(zip(model.blocks, layer_rates(CFG), strict=True)):
        key = droppath.fold_in(words, layer)
        y = block(x, key=jnp.asarray(key), train=True)
        whole = np.equal(y, shortcut(x, y.shape)).all((1, 2, 3))
        keep = droppath.keep_mask(key, p, len(x))
        assert whole.tolist() == (~keep).tolist()
        x = y
    model = build_model(CFG, (8, 8, 1), 10, KEY)
    want = model.head(nnx.relu(model.norm(x, use_running_average=False)).mean((1, 2)))
    got = build_model(CFG, (8, 8, 1), 10, KEY)(IMAGES, key=jax.random.key(5), train=True)
    np.testing.assert_array_equal(got, want)


def test_evaluation_needs_no_key_and_drops_nothing():
    model = build_model(CFG, (8, 8, 1), 10, KEY)
    constant = build_model(dataclasses.replace(CFG, drop_path_rate=0.0), (8, 8, 1), 10, KEY)
    np.testing.assert_array_equal(model(IMAGES, train=False), constant(IMAGES, train=False))
