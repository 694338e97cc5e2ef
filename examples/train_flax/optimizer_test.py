"""The learning rate over the steps, by hand, and what decays."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from examples.train_flax.optimizer import learning_rate, optimizer
from examples.train_flax.presets import PRESETS

CFG = PRESETS["smoke"]


def test_the_learning_rate_falls_from_the_first_step_to_zero_after_the_last():
    schedule = learning_rate(CFG, 10)
    assert float(schedule(0)) == pytest.approx(CFG.learning_rate)
    assert float(schedule(20)) == pytest.approx(CFG.learning_rate / 2)
    assert float(schedule(40)) == pytest.approx(0)


def test_the_papers_learning_rate_is_divided_by_ten_at_half_and_three_quarters():
    schedule = learning_rate(PRESETS["resnet110"], 351)
    got = [float(schedule(351 * 500 * quarters // 4 + i)) for quarters in (2, 3) for i in (-1, 0)]
    np.testing.assert_allclose([schedule(0), *got], [0.1, 0.1, 0.01, 0.01, 0.001], rtol=1e-6)


def test_warm_up_rises_from_zero_to_the_learning_rate():
    cfg = dataclasses.replace(CFG, warmup_epochs=1)
    schedule = learning_rate(cfg, 10)
    got = [float(schedule(step)) for step in (0, 5, 10, 25, 40)]
    np.testing.assert_allclose(got, [0, 0.05, 0.1, 0.05, 0], atol=1e-7)


def test_adamw_decays_matrices_alone_and_sgd_all():
    stacked = {"kernel": jnp.ones((3, 2, 2)), "scale": jnp.ones((3, 2))}  # layers under a plan
    params = {"kernel": jnp.ones((2, 2)), "scale": jnp.ones(2), "layers": stacked}
    still = jax.tree.map(jnp.zeros_like, params)
    for name, kernel, scale in (("adamw", -1e-3, 0), ("sgd", -1.9e-3, -1.9e-3)):
        cfg = dataclasses.replace(CFG, optimizer=name, weight_decay=0.01)
        tx = optimizer(cfg, 10)
        updates, _ = tx.update(still, tx.init(params), params)
        np.testing.assert_allclose(updates["kernel"], kernel, rtol=1e-5)  # sgd: 1 + 0.9, Nesterov
        np.testing.assert_allclose(updates["scale"], scale, rtol=1e-5)
        np.testing.assert_allclose(updates["layers"]["kernel"], kernel, rtol=1e-5)
        np.testing.assert_allclose(updates["layers"]["scale"], scale, rtol=1e-5)
