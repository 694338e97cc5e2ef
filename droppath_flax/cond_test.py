"""A condition with a gradient of its own is lax.cond, whatever goes in."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from droppath_flax.cond import cond
from droppath_flax.residual_test import numbers

W = numbers(4, 4, seed=1)
COUNT = jnp.int32(3)  # closed over, and no number to differentiate by


def run(x, rest):
    return {"y": jnp.sin(x @ rest["w"]) * COUNT, "n": rest["n"] + 1}


def stay(x, rest):
    return {"y": x, "n": rest["n"]}


@pytest.mark.parametrize("runs", [True, False])
def test_values_and_gradients_are_those_of_lax_cond_also_of_the_gradient(runs):
    rest = {"w": W, "n": jnp.arange(2), "key": jax.random.key(0)}

    def loss(which, x, w, runs):
        return (which(runs, run, stay, x, rest | {"w": w})["y"] ** 2).sum()

    def steepness(which, x, w, runs):
        return sum((g**2).sum() for g in jax.grad(partial(loss, which), (0, 1))(x, w, runs))

    x = numbers(3, 4)
    for of in (loss, steepness):
        got, want = (
            jax.jit(jax.value_and_grad(partial(of, which), (0, 1)))(x, W, runs)
            for which in (cond, lax.cond)
        )
        for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6)
    n = jax.jit(lambda runs: cond(runs, run, stay, x, rest)["n"])(runs)
    assert n.tolist() == ([1, 2] if runs else [0, 1])


def test_what_is_closed_over_has_its_gradient_and_a_side_that_does_not_run_has_none():
    def loss(w, runs):
        return cond(runs, lambda x: x @ w, lambda x: x, numbers(3, 4)).sum()

    gradient = jax.jit(jax.grad(loss))
    np.testing.assert_allclose(
        gradient(W, True), numbers(3, 4).sum(0)[:, None].repeat(4, 1), rtol=1e-6
    )
    assert not np.asarray(gradient(W, False)).any()


def test_one_condition_for_each_element_of_a_vmap():
    x, runs = numbers(5, 4), jnp.arange(5) % 2 == 0
    y = jax.vmap(lambda x, runs: cond(runs, jnp.sin, lambda x: x, x))(x, runs)
    np.testing.assert_array_equal(y, jnp.where(runs[:, None], jnp.sin(x), x))
