"""Pictures of a run: loss.png, error.png and kept_layers.png.

kept_layers.png is made afterwards from the key alone: no run ever stores a mask, since
`droppath.keep_mask` gives again what each layer drew at each step. Not here: numbers that
metrics.csv does not hold.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import NDArray

import droppath
from examples.train_flax.config import Config
from examples.train_flax.metrics import Row
from examples.train_flax.model import layer_rates
from examples.train_flax.step import STREAMS

SHOWN_STEPS = 150  # of kept_layers.png: as many as a reader can tell apart


def draw_run(cfg: Config, steps: int, rows: Sequence[Row], folder: Path) -> None:
    """Draw the pictures of one run of `steps` steps an epoch into folder."""
    folder.mkdir(exist_ok=True)
    title = f"ResNet-{cfg.depth}, drop_path_rate {cfg.drop_path_rate:g}"
    draw_losses(title, rows, folder / "loss.png")
    draw_errors(title, {f"drop_path_rate {cfg.drop_path_rate:g}": rows}, folder / "error.png")
    shown = min(SHOWN_STEPS, cfg.epochs * steps)
    draw_kept_layers(cfg, kept_samples(cfg, shown), folder / "kept_layers.png")


def draw_losses(title: str, rows: Sequence[Row], path: Path) -> None:
    """Training loss, with samples dropped, and test loss, without, over the epochs."""
    figure, axes = _figure_of_epochs(f"{title}: loss", "cross-entropy (nats)")
    epochs = [row.epoch for row in rows]
    axes.semilogy(epochs, [row.train_loss for row in rows], label="training")
    axes.semilogy(epochs, [row.test_loss for row in rows], label="test")
    axes.legend(frameon=False)
    figure.savefig(path)


def draw_errors(title: str, runs: Mapping[str, Sequence[Row]], path: Path) -> None:
    """Test error of each run over the epochs, up to 10 %, or twice the lowest."""
    figure, axes = _figure_of_epochs(f"{title}: test error", "test images classified wrongly")
    for name, rows in runs.items():
        label = f"{name}: {rows[-1].test_error:.1%} at the end"
        axes.plot([row.epoch for row in rows], [row.test_error for row in rows], label=label)
    lowest = min(row.test_error for rows in runs.values() for row in rows)
    axes.set_ylim(0, max(0.1, 2 * lowest))
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.legend(frameon=False)
    figure.savefig(path)


def _figure_of_epochs(title: str, y_label: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(7, 4), dpi=150, layout="constrained")
    axes = figure.subplots()
    axes.set(title=title, xlabel="epoch", ylabel=y_label)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def kept_samples(cfg: Config, steps: int) -> NDArray[np.bool_]:
    """Draw again the masks of the first `steps` steps: bool [steps, layers, batch]."""
    key = droppath.fold_in(droppath.key(cfg.seed), STREAMS.index("masks"))
    masks = [
        [
            droppath.keep_mask(droppath.fold_in(step_key, layer), p, cfg.batch, mode=cfg.mode)
            for layer, p in enumerate(layer_rates(cfg))
        ]
        for step_key in (droppath.fold_in(key, step) for step in range(steps))
    ]
    return np.array(masks)


def draw_kept_layers(cfg: Config, kept: NDArray[np.bool_], path: Path) -> None:
    """Which layers each step kept: for one sample, for the batch, and against 1 - p."""
    figure = Figure(figsize=(11, 5.5), dpi=150, layout="constrained")
    figure.suptitle(f"Layers kept in the first {len(kept)} steps, drawn again from key {cfg.seed}")
    grid = figure.add_gridspec(2, 2, width_ratios=(4, 1))
    sample, batch = (figure.add_subplot(grid[row, 0]) for row in (0, 1))
    _raster(
        sample,
        kept[:, :, 0],
        "Greys_r",
        f"first image of each batch ({cfg.mode} mode): black is dropped",
    )
    share = _raster(batch, kept.mean(2), "viridis", f"share of the {cfg.batch} images that kept it")
    batch.set_xlabel("training step")
    figure.colorbar(share, ax=batch, format=PercentFormatter(1), pad=0.01)
    _kept_against_rate(figure.add_subplot(grid[:, 1]), cfg, kept)
    figure.savefig(path)


def _raster(axes: Axes, kept: NDArray[Any], colours: str, title: str) -> AxesImage:
    """One column a step, one line a block, the first block at the bottom; values in [0, 1]."""
    extent = (0.5, len(kept) + 0.5, 0.5, kept.shape[1] + 0.5)
    axes.set_title(title, fontsize="medium")
    axes.set_ylabel("residual block")
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


def _kept_against_rate(axes: Axes, cfg: Config, kept: NDArray[np.bool_]) -> None:
    layers = np.arange(1, kept.shape[1] + 1)
    axes.barh(layers, kept.mean((0, 2)), color="tab:blue", alpha=0.6)
    axes.plot(1 - np.array(layer_rates(cfg)), layers, "k.")
    axes.set_title("kept (bars), 1 - p (dots)", fontsize="medium")
    axes.set(xlabel="share of images", ylabel="residual block", xlim=(0, 1.02))
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.xaxis.set_major_formatter(PercentFormatter(1))
