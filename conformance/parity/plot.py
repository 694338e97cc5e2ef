"""The picture of parity training: two curves that should be one, and their difference."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from conformance.parity.training import STEPS, Run

NAMES = {"sgd": "SGD with momentum", "adamw": "AdamW"}


def draw(runs: Sequence[Run], path: Path) -> None:
    """Draw a column for each optimizer: the losses, and below them their differences."""
    optimizers = list(dict.fromkeys(run.optimizer for run in runs))
    figure = Figure(figsize=(1.5 + 4.5 * len(optimizers), 6), dpi=150, layout="constrained")
    axes = figure.subplots(
        2, len(optimizers), sharex=True, sharey="row", squeeze=False, height_ratios=(3, 2)
    )
    for (above, below), optimizer in zip(axes.T, optimizers, strict=True):
        of_optimizer = [run for run in runs if run.optimizer == optimizer]
        draw_losses(above, of_optimizer[0])
        draw_differences(below, of_optimizer)
        for ax in (above, below):
            ax.grid(alpha=0.25)
            ax.spines[["top", "right"]].set_visible(False)
    axes[0, 0].set_ylabel("cross-entropy (nats)")
    axes[1, 0].set_ylabel("relative difference")
    figure.savefig(path)


def draw_losses(ax: Axes, run: Run) -> None:
    """Draw the losses in PyTorch as a broad line, and those in JAX as dots upon it."""
    a, b = run.losses.values()
    ax.plot(a, color="#f4a582", linewidth=5, solid_capstyle="round", label="PyTorch")
    ax.plot(b, ".-", color="#2166ac", linewidth=1, markersize=5, label="JAX")
    ax.set_title(f"{NAMES[run.optimizer]}, {run.dtype}", loc="left")
    ax.legend(frameon=False)


def draw_differences(ax: Axes, runs: Sequence[Run]) -> None:
    """Draw each run's differences, and its tolerance dashed; equal losses as rings on the floor."""
    floor = 1e-17  # below half a step of float64 at 1, 1.1e-16
    for run, colour in zip(runs, ("#1b7837", "#762a83"), strict=False):
        equal = np.flatnonzero(run.differences == 0)
        ax.semilogy(np.where(run.differences > 0, run.differences, np.nan), ".-", color=colour)
        ax.plot(equal, np.full(len(equal), floor), "o", color=colour, fillstyle="none")
        ax.axhline(run.tolerance, color=colour, linestyle="--", linewidth=1)
        label = f"{run.dtype}, tolerance {run.tolerance:g}"
        ax.annotate(
            label, (STEPS, run.tolerance), (0, 3), ha="right", color=colour,
            textcoords="offset points", fontsize="small",
        )  # fmt: skip
    ax.set(xlabel="step (ring: equal to the last bit)", ylim=(floor / 10, 1e-2))
