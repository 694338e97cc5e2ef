"""A residual block in vmap, scan, remat and Flax's own transforms is the plain one."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from droppath_flax import DropPathResidual, drop_path_residual
from droppath_flax.residual_test import MODES, numbers, with_gradients


@pytest.mark.parametrize("mode", MODES)
def test_vmap_gives_each_element_its_own(mode):
    x, keys = numbers(3, 8, 2), jax.random.split(jax.random.key(2), 3)

    def block(x, key):
        return with_gradients(
            lambda x: drop_path_residual(x, jnp.tanh, 0.4, key=key, mode=mode), x, x
        )

    many = jax.jit(jax.vmap(block))(x, keys)
    for i in range(3):
        for a, b in zip(many, block(x[i], keys[i]), strict=True):
            np.testing.assert_allclose(a[i], b, rtol=2e-6, atol=1e-7)


class Layer(nnx.Module):
    def __init__(self, w, drop_prob, mode):
        self.w = nnx.Param(w)
        self.path = DropPathResidual(self.f, drop_prob, mode=mode)

    def f(self, x):
        return self.w * x

    def __call__(self, x, key):
        return self.path(x, key=key)


@pytest.mark.parametrize(("mode", "drop_prob"), [("balanced", 0.375), ("balanced", None),
                                                 ("row", None), ("batch", None)])  # fmt: skip
def test_a_scan_over_rematerialised_layers_is_the_unrolled_loop(mode, drop_prob):
    depth, x = 4, jnp.asarray(numbers(8, 2))
    keys, w = jax.random.split(jax.random.key(3), depth), jnp.float32([0.5, 1, 2, 0.25])
    rates = jnp.float32([0, 0.5, 0.75, 0.875])  # data where drop_prob is None

    def layer(x, w, rate, key):
        p = rate if drop_prob is None else drop_prob
        return drop_path_residual(x, lambda x: w * x, p, key=key, mode=mode)

    def unrolled(x, w):
        for i in range(depth):
            x = layer(x, w[i], rates[i], keys[i])
        return x

    def scanned(x, w):
        one = jax.checkpoint(layer)
        return jax.lax.scan(lambda x, a: (one(x, *a), None), x, (w, rates, keys))[0]

    want = with_gradients(unrolled, x, x, w)
    for a, b in zip(jax.jit(partial(with_gradients, scanned))(x, x, w), want, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    if drop_prob is not None:  # nnx.scan over layers that hold one static rate, with nnx.remat
        layers = nnx.vmap(partial(Layer, drop_prob=drop_prob, mode=mode))(w)

        @nnx.scan(in_axes=(0, nnx.Carry, 0), out_axes=nnx.Carry)
        @nnx.remat
        def step(layer, x, key):
            return drop_path_residual(x, layer.f, drop_prob, key=key, mode=mode)

        np.testing.assert_allclose(step(layers, x, keys), want[0], rtol=1e-5)
