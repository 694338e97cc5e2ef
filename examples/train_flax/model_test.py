"""Which network a config names, and what all of them keep to."""

import dataclasses
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from examples.train_flax.model import build_model, layer_rates, mean_rates, ramp_at, rates_at, title
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


RATES = 0, 0.1, 0.2  # of the smoke preset's three branches; it has 4 epochs, here of 10 steps


@pytest.mark.parametrize(
    ("ramp", "shares"),  # at the steps 0, 10, 19, 20 and 39 of 40, the ramp ending at 20
    [("none", [1, 1, 1, 1, 1]), ("early", [1, 0.5, 0.05, 0, 0]), ("late", [0, 0, 0, 1, 1])],
)
def test_a_ramp_gives_each_step_its_share_of_every_rate(ramp, shares):
    cfg = dataclasses.replace(PRESETS["smoke"], ramp=ramp, ramp_end=0.5)
    got = rates_at(cfg, 10, np.array([0, 10, 19, 20, 39]))
    np.testing.assert_allclose(got, [[share * p for p in RATES] for share in shares], atol=1e-15)
    assert got.dtype == np.float64
    assert got[-1].tolist() == [0, 0, 0] if ramp == "early" else layer_rates(cfg)  # to the bit


def test_the_mean_rate_is_that_of_the_steps_done():
    cfg = dataclasses.replace(PRESETS["smoke"], ramp="early", ramp_end=0.5)
    # shares 1, 0.95, ..., 0.05, whose sum is 20 * 1.05 / 2 = 10.5, then 20 times 0
    np.testing.assert_allclose(mean_rates(cfg, 10, np.arange(40)), np.array(RATES) * 10.5 / 40)
    late = dataclasses.replace(cfg, ramp="late")
    np.testing.assert_allclose(mean_rates(late, 10, np.arange(30)), np.array(RATES) * 10 / 30)
    still = dataclasses.replace(cfg, ramp="none")
    assert mean_rates(still, 10, np.arange(7)) == layer_rates(still)


@pytest.mark.parametrize(("end", "step"), [(1 / 6, 50), (0.1, 30), (0.01, 3), (1.0, 300)])
def test_a_ramp_ends_at_a_share_of_all_steps(end, step):
    cfg = dataclasses.replace(PRESETS["digits"], epochs=300, ramp="late", ramp_end=end)
    shares = ramp_at(dataclasses.replace(cfg, steps=299), 1, np.arange(300))
    assert shares.tolist() == [0] * step + [1] * (300 - step)


def test_a_title_names_the_network_and_its_depth():
    assert [title(PRESETS[name]) for name in ("digits", "resnet110", "vit")] == [
        "pre-activation ResNet-20",
        "ResNet-110",
        "ViT-9",
    ]
