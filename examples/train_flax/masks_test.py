"""Masks drawn again: they are what the steps drew, and NumPy draws them too."""

import dataclasses

import jax
import numpy as np
import pytest

import droppath
from droppath_flax import keep_mask
from examples.train_flax.config import STREAMS
from examples.train_flax.masks import depths, kept, skipped_share
from examples.train_flax.model import layer_rates
from examples.train_flax.presets import PRESETS
from examples.train_flax.step import stream

CFG = dataclasses.replace(PRESETS["smoke"], drop_path_rate=0.9)


def test_the_masks_drawn_again_are_those_of_the_steps():
    drawn = kept(CFG, 10, np.arange(2))
    assert drawn.shape == (2, 3, 128)
    for step in range(2):
        key = jax.random.fold_in(stream(CFG, "masks"), step)
        for layer, p in enumerate(layer_rates(CFG)):
            mask = keep_mask(jax.random.fold_in(key, layer), p, CFG.batch, mode=CFG.mode)
            np.testing.assert_array_equal(drawn[step, layer], mask)
    assert drawn[:, 0].all()
    assert 0 < drawn[:, 2].mean() < 0.3  # 1 - p is 0.1


@pytest.mark.parametrize(("mode", "groups"), [("row", 1), ("balanced", 4), ("batch", 1)])
def test_numpy_draws_the_same_from_the_seed_alone(mode, groups):
    cfg = dataclasses.replace(CFG, mode=mode, groups=groups, seed=7)
    key = droppath.fold_in(droppath.key(7), STREAMS.index("masks"))
    drawn = kept(cfg, 10, np.arange(5, 8))
    for step in range(3):
        step_key = droppath.fold_in(key, 5 + step)
        for layer, p in enumerate((0.0, 0.45, 0.9)):
            layer_key = droppath.fold_in(step_key, layer)
            mask = droppath.keep_mask(layer_key, p, 128, mode=mode, groups=groups)
            np.testing.assert_array_equal(drawn[step, layer], mask)


def test_the_share_skipped_is_that_of_the_closed_branches_and_steps():
    cfg = dataclasses.replace(CFG, mode="batch")
    drawn = kept(cfg, 10, np.arange(10, 30))
    closed = sum(not drawn[step, layer].any() for step in range(20) for layer in range(3))
    assert 0 < closed < 60
    assert skipped_share(cfg, 10, np.arange(10, 30)) == closed / 60


@pytest.mark.parametrize("mode", ["row", "balanced", "batch"])
def test_a_step_of_a_ramp_draws_at_its_own_rates(mode):
    cfg = dataclasses.replace(CFG, ramp="early", ramp_end=0.5, mode=mode, skip=False, seed=7)
    drawn = kept(cfg, 10, np.array([10, 19, 20, 39]))  # of 40, early till 20: shares 0.5 and 0.05
    for place, (step, share) in enumerate({10: 0.5, 19: 0.05}.items()):
        key = droppath.fold_in(droppath.fold_in(droppath.key(7), STREAMS.index("masks")), step)
        for layer, p in enumerate((0.0, 0.45, 0.9)):
            layer_key = droppath.fold_in(key, layer)
            mask = droppath.keep_mask(layer_key, np.float32(share * p), 128, mode=mode)
            np.testing.assert_array_equal(drawn[place, layer], mask)
    assert mode == "batch" or not drawn[0, 2].all()
    assert drawn[2:].all()  # at p = 0


def test_the_share_skipped_is_0_before_late_stochastic_depth_begins():
    cfg = dataclasses.replace(CFG, mode="batch", ramp="late", ramp_end=0.5)
    assert skipped_share(cfg, 10, np.arange(20)) == 0
    still = dataclasses.replace(cfg, ramp="none")
    after = skipped_share(cfg, 10, np.arange(20, 40))
    assert after == skipped_share(still, 10, np.arange(20, 40)) > 0.1


@pytest.mark.parametrize("mode", ["row", "balanced"])
def test_nothing_is_skipped_where_each_sample_draws(mode):
    assert skipped_share(dataclasses.replace(CFG, mode=mode), 10, np.arange(1)) is None


def test_a_depth_is_the_number_of_branches_kept_by_a_sample_or_a_step():
    kept = np.array([[[1, 0], [1, 1], [0, 0]], [[1, 1], [1, 1], [1, 0]]], bool)
    assert depths(kept, False).tolist() == [2, 1, 3, 2]
    whole = kept[:, :, :1].repeat(4, 2)
    assert depths(whole, True).tolist() == [2, 3]
