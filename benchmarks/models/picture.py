"""Step time against p: skipping as a share of masking, eager and compiled, with its limit."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from benchmarks.models.rows import Point


def draw(sweep: Sequence[Point], path: Path) -> None:
    """Draw the sweep as a picture at path."""
    figure = Figure(figsize=(6, 4), dpi=150, layout="constrained")
    axes = figure.subplots()
    rates = [point.drop_prob for point in sweep]
    axes.axhline(1, color="0.3", linewidth=1, label="masking")
    axes.plot(rates, [point.eager for point in sweep], ".-", color="C3", label="skipping, eager")
    axes.plot(
        rates, [point.compiled for point in sweep], ".-", color="C0", label="skipping, compiled"
    )
    axes.plot(rates, [point.rows for point in sweep], "k--", linewidth=1, label="kept_capacity / b")
    axes.set_xlabel("drop_prob")
    axes.set_ylabel("step time, masking = 1")
    axes.set_ylim(0)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="lower left")
    figure.savefig(path)
