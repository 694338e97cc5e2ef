"""Pictures: each is drawn, none is blank, and their data are those of the run."""

import dataclasses
from itertools import pairwise

import matplotlib.image
import numpy as np
import pytest
from matplotlib.figure import Figure

from examples.train_flax import plots
from examples.train_flax.metrics import Row
from examples.train_flax.model import layer_rates
from examples.train_flax.plots import (
    Drawn,
    draw_again,
    draw_comparison,
    draw_depths,
    draw_errors,
    draw_run,
)
from examples.train_flax.presets import PRESETS

CFG = dataclasses.replace(PRESETS["smoke"], drop_path_rate=0.9)
ROWS = [
    Row(e, 10 * e, 2 / e, abs(e - 3) / 10, 0.3 / e, 3 / e, 0.1 / e, None, 1e3, 1.0)
    for e in range(1, 5)
]
OF_MASKS = {"kept_layers.png", "depth.png"}


def assert_drawn(path):
    pixels = matplotlib.image.imread(path)
    assert min(pixels.shape[:2]) >= 500
    assert pixels.std() > 0.05


def test_every_picture_is_drawn_and_none_is_blank(tmp_path):
    draw_run(CFG, 10, ROWS, tmp_path)
    pictures = {path.name for path in tmp_path.iterdir()}
    assert pictures == {"error.png", "learning_rate.png", "loss.png"} | OF_MASKS
    draw_comparison({"one": [ROWS, ROWS], "other": [ROWS[:2]]}, tmp_path / "comparison.png")
    for path in tmp_path.iterdir():
        assert_drawn(path)


def test_constant_depth_has_no_masks_to_draw(tmp_path):
    draw_run(dataclasses.replace(CFG, drop_path_rate=0.0), 10, ROWS, tmp_path)
    assert not OF_MASKS & {path.name for path in tmp_path.iterdir()}


def test_the_steps_shown_of_a_ramp_are_spread_over_all_that_were_done(monkeypatch):
    monkeypatch.setattr(plots, "DEPTH_STEPS", 14)
    early = draw_again(dataclasses.replace(CFG, ramp="early", ramp_end=0.5), 10, ROWS)
    assert early.numbers.tolist() == list(range(0, 40, 3))
    assert early.only(2).numbers.tolist() == [0, 39]
    assert str(early) == "14 steps, spread evenly over the training"
    # the third branch's 0.9, at the steps 0, 3, ..., 18 of 20: shares 1, 0.85, ..., 0.1
    np.testing.assert_allclose(early.rates[:, 2].mean(), 0.9 * 7 * 0.55 / 14)
    assert early.kept[7:].all()
    assert not early.kept[:7, 2].all()
    still = draw_again(CFG, 10, ROWS)
    assert still.numbers.tolist() == list(range(14))
    assert (str(still), str(still.only(3))) == ("the first 14 steps", "the first 3 steps")


@pytest.fixture
def axes(monkeypatch):
    """The axes of each figure, as it is saved."""
    seen = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, path: seen.append(figure.axes[0]))
    return seen


def test_the_dot_is_at_the_epoch_that_counts_and_the_legend_says_its_error(axes, tmp_path):
    draw_errors(ROWS, tmp_path / "error.png")
    dots = [line for line in axes[0].lines if line.get_marker() == "o"]
    assert [(*dot.get_xdata(), *dot.get_ydata()) for dot in dots] == [(3, 0.3 / 3)]
    assert [text.get_text() for text in axes[0].get_legend().texts] == ["test: 10.0%"]


def test_an_error_axis_ends_at_100_percent(axes, tmp_path):
    draw_errors([row._replace(test_error=0.8) for row in ROWS], tmp_path / "error.png")
    assert axes[0].get_ylim() == (0, 1)


def test_the_ticks_of_a_loss_are_plain_numbers_apart_from_one_another(axes, tmp_path):
    draw_run(CFG, 10, ROWS, tmp_path)
    ticks = axes[0].yaxis.get_ticklabels(which="both")
    texts = [label.get_text() for label in ticks if label.get_text()]
    assert {"0.5", "1", "2"} <= set(texts)  # losses are from 0.5 to 3
    steps = [float(b) / float(a) for a, b in pairwise(sorted(texts, key=float))]
    assert min(steps) == 2


def test_the_rates_of_a_ramp_are_drawn_over_the_epochs(axes, tmp_path):
    draw_run(dataclasses.replace(CFG, ramp="early", ramp_end=0.5), 10, ROWS, tmp_path)
    (line,) = next(drawn for drawn in axes if drawn.get_title() == "Rates over training").lines
    at = dict(zip(line.get_xdata(), line.get_ydata(), strict=True))
    np.testing.assert_allclose([at[0], at[1], at[2], at[3.9]], [0.9, 0.45, 0, 0])


def test_the_histogram_is_of_the_depths_and_marks_the_one_expected(axes, tmp_path):
    kept = np.array([[[1, 1, 1, 1], [0, 1, 1, 1], [0, 0, 0, 1]]], bool)  # depths 1, 2, 2, 3
    rates = np.array([layer_rates(CFG)])
    draw_depths(CFG, Drawn(np.arange(1), kept, rates, False), tmp_path / "depth.png")
    assert [bar.get_height() for bar in axes[0].patches] == [0.25, 0.5, 0.25]
    marks = [line.get_xdata()[0] for line in axes[0].lines]
    assert marks == [pytest.approx(1 + 0.55 + 0.1), 2]


def test_colours_differ_in_lightness_too():
    """For print, and for those who see few colours: luminance weights of Rec. 709."""
    light = [np.dot([int(c[i : i + 2], 16) for i in (1, 3, 5)], (0.2126, 0.7152, 0.0722)) / 255
             for c in plots.COLOURS]  # fmt: skip
    assert abs(light[0] - light[1]) > 0.05
    assert len(set(plots.DASHES)) == len(plots.COLOURS)
