"""Which network a config names, and what all of them keep to."""

import dataclasses
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from examples.train_flax.model import build_model, layer_rates, title
from examples.train_flax.presets import PRESETS

KEY = jax.random.key(5)
TINY = {
    "preresnet": dataclasses.replace(PRESETS["smoke"], rule="uniform"),
    "resnet": dataclasses.replace(PRESETS["resnet110"], depth=8, width=4),
    "vit": dataclasses.replace(PRESETS["vit"], depth=1, width=12, groups=2, rule="uniform"),
}
IMAGES = jax.random.normal(jax.random.key(1), (6, 8, 8, 1))

networks = pytest.mark.parametrize("network", TINY)


@cache
def logits(network, **changed):
    """Return the initial parameters, and the logits in training for each of two keys."""
    model = build_model(dataclasses.replace(TINY[network], **changed), (8, 8, 1), 10, KEY)
    graphdef, state = nnx.split(model)
    run = jax.jit(lambda key: nnx.merge(graphdef, state, copy=True)(IMAGES, key=key))
    return nnx.state(model, nnx.Param), run(jax.random.key(1)), run(jax.random.key(2))


@networks
def test_two_keys_give_two_results_and_the_weights_depend_on_no_rate(network):
    weights, one, other = logits(network, drop_path_rate=0.9)
    assert not np.array_equal(one, other)
    constant, one, other = logits(network, drop_path_rate=0.0)
    assert np.array_equal(one, other)
    assert len(jax.tree.leaves(weights)) > 15
    assert all(map(np.array_equal, jax.tree.leaves(weights), jax.tree.leaves(constant)))


@networks
def test_with_bfloat16_activations_parameters_and_logits_are_float32(network):
    weights, got, _ = logits(network, drop_path_rate=0.0, dtype="bfloat16")
    assert {leaf.dtype for leaf in [got, *jax.tree.leaves(weights)]} == {jnp.dtype("float32")}
    _, exact, _ = logits(network, drop_path_rate=0.0)
    assert 0 < np.abs(got - exact).max() < 0.05 * np.abs(exact).max()  # it keeps 8 bits


def test_each_branch_of_a_vit_has_its_rate_and_the_two_of_a_block_share_it():
    vit = dataclasses.replace(PRESETS["vit"], depth=3, drop_path_rate=0.2)
    np.testing.assert_allclose(layer_rates(vit), [0, 0, 0.1, 0.1, 0.2, 0.2])
    resnet110 = layer_rates(PRESETS["resnet110"])
    np.testing.assert_allclose(resnet110, [0.5 * layer / 54 for layer in range(1, 55)])


def test_a_title_names_the_network_and_its_depth():
    assert [title(PRESETS[name]) for name in ("digits", "resnet110", "vit")] == [
        "pre-activation ResNet-20",
        "ResNet-110",
        "ViT-9",
    ]
