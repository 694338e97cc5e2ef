"""Pictures: the raster is what the training steps drew."""

import dataclasses

import jax
import matplotlib.image
import numpy as np

from droppath_flax import keep_mask
from examples.train_flax.config import PRESETS
from examples.train_flax.metrics import Row
from examples.train_flax.model import layer_rates
from examples.train_flax.plots import draw_errors, draw_run, kept_samples
from examples.train_flax.step import stream

CFG = dataclasses.replace(PRESETS["smoke"], drop_path_rate=0.9)
ROWS = [Row(e, 10 * e, 2 / e, 0.3 / e, 3 / e, 0.1, 1e3, 1.0) for e in range(1, 5)]


def test_the_masks_drawn_again_are_those_of_the_steps():
    kept = kept_samples(CFG, 2)
    assert kept.shape == (2, 3, 128)
    for step in range(2):
        key = jax.random.fold_in(stream(CFG, "masks"), step)
        for layer, p in enumerate(layer_rates(CFG)):
            drawn = keep_mask(jax.random.fold_in(key, layer), p, CFG.batch, mode=CFG.mode)
            np.testing.assert_array_equal(kept[step, layer], drawn)
    assert kept[:, 0].all()
    assert 0 < kept[:, 2].mean() < 0.3  # 1 - p is 0.1


def test_every_picture_is_drawn_and_none_is_blank(tmp_path):
    draw_run(CFG, 10, ROWS, tmp_path)
    draw_errors("two runs", {"one": ROWS, "other": ROWS[:2]}, tmp_path / "compare.png")
    pictures = sorted(tmp_path.iterdir())
    assert [path.name for path in pictures] == [
        "compare.png", "error.png", "kept_layers.png", "loss.png",
    ]  # fmt: skip
    for path in pictures:
        pixels = matplotlib.image.imread(path)
        assert min(pixels.shape[:2]) >= 500
        assert pixels.std() > 0.05
