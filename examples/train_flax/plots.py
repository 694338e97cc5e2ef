"""Pictures of a run or of several, as PNG files: losses, errors, rates, kept layers, depth.

Those of the masks are made afterwards from the key alone (masks.py). Colours are Okabe and Ito's,
which the colour-blind can tell apart. Not here: numbers that metrics.csv does not hold.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import (
    FuncFormatter,
    LogLocator,
    MaxNLocator,
    NullFormatter,
    PercentFormatter,
)
from numpy.typing import NDArray

import droppath
from examples.train_flax.config import Config
from examples.train_flax.masks import depths, kept
from examples.train_flax.metrics import Row, best_row, mean_and_deviation
from examples.train_flax.model import rates_at, title

COLOURS = BLUE, ORANGE = "#0072B2", "#D55E00"  # Okabe and Ito 2008, jfly.uni-koeln.de/color
DASHES = "-", "--"  # for those who print in black
SHOWN_STEPS = 150  # of kept_layers.png: as many as a reader can tell apart
DEPTH_STEPS = 2000  # of depth.png, at most: enough for a smooth histogram of one draw a step


def draw_run(cfg: Config, steps: int, rows: Sequence[Row], folder: Path) -> None:
    """Draw the pictures of one run of `steps` steps an epoch into folder."""
    folder.mkdir(exist_ok=True)
    draw_losses(cfg, rows, folder / "loss.png")
    draw_errors(rows, folder / "error.png")
    draw_learning_rate(rows, folder / "learning_rate.png")
    if cfg.drop_path_rate == 0:
        return
    if cfg.ramps:
        draw_drop_prob(cfg, steps, rows, folder / "drop_prob.png")
    drawn = draw_again(cfg, steps, rows)
    draw_kept_layers(cfg, drawn.only(SHOWN_STEPS), folder / "kept_layers.png")
    draw_depths(cfg, drawn, folder / "depth.png")


class Drawn(NamedTuple):
    """Steps whose masks were drawn again: the first, or where rates change, some of all."""

    numbers: NDArray[np.int_]  # [n], from 0
    kept: NDArray[np.bool_]  # [n, layers, batch]
    rates: NDArray[np.float64]  # [n, layers]
    spread: bool

    def only(self, most: int) -> "Drawn":
        """The same of `most` of these steps, if there are more."""
        places = places_of(len(self.numbers), most, spread=self.spread)
        return Drawn(self.numbers[places], self.kept[places], self.rates[places], self.spread)

    def __str__(self) -> str:
        if self.spread:
            return f"{len(self.numbers)} steps, spread evenly over the training"
        return f"the first {len(self.numbers)} steps"


def draw_again(cfg: Config, steps: int, rows: Sequence[Row]) -> Drawn:
    """The masks of a run of `steps` steps an epoch, of DEPTH_STEPS steps if more were done."""
    numbers = places_of(rows[-1].step, DEPTH_STEPS, spread=cfg.ramps)
    rates = rates_at(cfg, steps, numbers)
    return Drawn(numbers, kept(cfg, steps, numbers), rates, cfg.ramps)


def places_of(total: int, most: int, *, spread: bool) -> NDArray[np.int_]:
    """`most` of the integers 0, ..., total - 1 in order, or all: the first, or with even gaps."""
    few = min(most, total)
    return np.linspace(0, total - 1, few).round().astype(int) if spread else np.arange(few)


def draw_drop_prob(cfg: Config, steps: int, rows: Sequence[Row], path: Path) -> None:
    """The largest drop_prob of a branch at each step that was done."""
    figure, axes = _figure("Rates over training", "epoch", "largest drop_prob of a branch")
    numbers = np.arange(rows[-1].step)
    axes.plot(numbers / steps, rates_at(cfg, steps, numbers).max(1), color=BLUE)
    axes.set_ylim(bottom=0)
    figure.savefig(path)


def draw_losses(cfg: Config, rows: Sequence[Row], path: Path) -> None:
    """Training loss, with samples dropped, and test loss, without, over the epochs."""
    figure, axes = _figure(
        f"{title(cfg)}, drop_path_rate {cfg.drop_path_rate:g}: loss",
        "epoch",
        "cross-entropy (nats)",
    )
    epochs = [row.epoch for row in rows]
    training = "training" if cfg.drop_path_rate == 0 else "training, with paths dropped"
    training += " for a part of it" if cfg.ramps else ""
    axes.semilogy(epochs, [row.train_loss for row in rows], color=BLUE, label=training)
    axes.semilogy(epochs, [row.test_loss for row in rows], "--", color=ORANGE, label="test")
    _plain_ticks(axes)
    axes.legend(frameon=False)
    figure.savefig(path)


def _plain_ticks(axes: Axes) -> None:
    """Let a logarithmic scale say 0.1, 0.2, 0.5, 1 in place of powers of ten."""
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def draw_errors(rows: Sequence[Row], path: Path) -> None:
    """Test error over the epochs of one run."""
    figure, axes = _figure("Test error", "epoch", "images classified wrongly")
    _plot_errors(axes, {"test": [rows]})
    figure.savefig(path)


def draw_comparison(runs: Mapping[str, Sequence[Sequence[Row]]], path: Path) -> None:
    """Test error, and loss in training and on test images, over the epochs: a colour a name."""
    figure = Figure(figsize=(11, 4), dpi=150, layout="constrained")
    errors, losses = figure.subplots(1, 2)
    _label(errors, "Test error", "epoch", "images classified wrongly")
    _plot_errors(errors, runs)
    _label(losses, "Loss, the mean over the runs", "epoch", "cross-entropy (nats)")
    _plot_losses(losses, runs)
    figure.savefig(path)


def _plot_errors(axes: Axes, runs: Mapping[str, Sequence[Sequence[Row]]]) -> None:
    """Test error up to 10 % or twice the lowest: a thin line a run, and a thick one for their mean.

    A dot marks the epoch that counts; the error on a validation part is dotted, for a single run.
    """
    for (name, seeds), colour, dashes in zip(runs.items(), COLOURS, DASHES, strict=False):
        epochs = [row.epoch for row in seeds[0]]
        errors = np.array([[row.test_error for row in rows] for rows in seeds])
        bests = [best_row(rows) for rows in seeds]
        label = f"{name}: {mean_and_deviation([best.test_error for best in bests], '.1%')}"
        axes.plot(epochs, errors.mean(0), dashes, color=colour, linewidth=2, label=label)
        dots = [best.epoch for best in bests], [best.test_error for best in bests]
        axes.plot(*dots, "o", color=colour, fillstyle="none", alpha=0.6, clip_on=False)
        if len(seeds) > 1:
            axes.plot(epochs, errors.T, color=colour, linewidth=0.6, alpha=0.4)
        elif bests[0].validation_error is not None:
            validation = [row.validation_error or 0 for row in seeds[0]]
            axes.plot(epochs, validation, ":", color=colour, linewidth=0.9)
    lowest = min(row.test_error for seeds in runs.values() for rows in seeds for row in rows)
    axes.set_ylim(0, min(1, max(0.1, 2 * lowest)))
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.legend(frameon=False)


def _plot_losses(axes: Axes, runs: Mapping[str, Sequence[Sequence[Row]]]) -> None:
    """Test and training loss, the means over the runs: how far each overfits."""
    for (name, seeds), colour in zip(runs.items(), COLOURS, strict=False):
        epochs = [row.epoch for row in seeds[0]]
        means = np.array([[[r.test_loss, r.train_loss] for r in rows] for rows in seeds]).mean(0)
        axes.semilogy(epochs, means[:, 0], color=colour, label=f"{name}: test")
        axes.semilogy(epochs, means[:, 1], ":", color=colour, label=f"{name}: training")
    _plain_ticks(axes)
    axes.legend(frameon=False)


def draw_learning_rate(rows: Sequence[Row], path: Path) -> None:
    figure, axes = _figure("Learning rate", "epoch", "at the epoch's last step")
    axes.plot([row.epoch for row in rows], [row.learning_rate for row in rows], color=BLUE)
    axes.set_ylim(bottom=0)
    figure.savefig(path)


def _figure(title: str, x_label: str, y_label: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(7, 4), dpi=150, layout="constrained")
    axes = figure.subplots()
    _label(axes, title, x_label, y_label)
    return figure, axes


def _label(axes: Axes, title: str, x_label: str, y_label: str) -> None:
    axes.set(title=title, xlabel=x_label, ylabel=y_label)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)


def draw_depths(cfg: Config, again: Drawn, path: Path) -> None:
    """How many branches each sample or step kept, and how many to expect."""
    drawn, rates = depths(again.kept, cfg.whole_batch), again.rates.mean(0)
    each = "step" if cfg.whole_batch else "image and step"
    figure, axes = _figure(f"Realised depth in {again}", f"branches kept by each {each}", "share")
    shares = np.full(len(drawn), 1 / len(drawn))
    edges = np.arange(drawn.min(), drawn.max() + 2) - 0.5
    axes.hist(drawn, edges.tolist(), weights=shares, rwidth=0.9, color=BLUE, alpha=0.6)
    expected = droppath.expected_depth(rates)
    for value, line, what in ((expected, "-", "expected"), (drawn.mean(), ":", "mean drawn")):
        label = f"{what}: {value:.2f} of {len(rates)}"
        axes.axvline(value, color="black" if line == "-" else ORANGE, linestyle=line, label=label)
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.legend(frameon=False, loc="upper left")
    figure.savefig(path)


def draw_kept_layers(cfg: Config, again: Drawn, path: Path) -> None:
    """Which layers each step kept: for one sample, for the batch, and against 1 - p."""
    figure = Figure(figsize=(11, 5.5), dpi=150, layout="constrained")
    figure.suptitle(f"{title(cfg)}: branches kept in {again}, drawn again from the key")
    kept, across = again.kept, (again.numbers[0] + 0.5, again.numbers[-1] + 1.5)
    grid = figure.add_gridspec(2, 2, width_ratios=(4, 1))
    sample, batch = (figure.add_subplot(grid[row, 0]) for row in (0, 1))
    _raster(
        sample,
        kept[:, :, 0],
        across,
        "Greys_r",
        f"first image of each batch ({cfg.mode} mode): black is dropped",
    )
    share = _raster(
        batch, kept.mean(2), across, "viridis", f"share of the {cfg.batch} images that kept it"
    )
    batch.set_xlabel("training step")
    figure.colorbar(share, ax=batch, format=PercentFormatter(1), pad=0.01)
    _kept_against_rate(figure.add_subplot(grid[:, 1]), again)
    figure.savefig(path)


def _raster(
    axes: Axes, kept: NDArray[Any], across: tuple[float, float], colours: str, title: str
) -> AxesImage:
    """One column a step, one line a block, the first block at the bottom; values in [0, 1]."""
    extent = (*across, 0.5, kept.shape[1] + 0.5)
    axes.set_title(title, fontsize="medium")
    axes.set_ylabel("residual branch")
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    return axes.imshow(
        kept.T,
        cmap=colours,
        vmin=0,
        vmax=1,
        aspect="auto",
        origin="lower",
        interpolation="nearest",
        extent=extent,
    )


def _kept_against_rate(axes: Axes, again: Drawn) -> None:
    layers = np.arange(1, again.kept.shape[1] + 1)
    axes.barh(layers, again.kept.mean((0, 2)), color=BLUE, alpha=0.6)
    axes.plot(1 - again.rates.mean(0), layers, "k.")
    axes.set_title("kept (bars), 1 - p (dots)", fontsize="medium")
    axes.set(xlabel="share of images", ylabel="residual branch", xlim=(0, 1.02))
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.xaxis.set_major_formatter(PercentFormatter(1))
