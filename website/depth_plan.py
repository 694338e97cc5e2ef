"""`python -m website.depth_plan`: draws docs/depth_plan.png, the layers that run in each step.

On the left each layer has a coin of its own, as in mode "batch"; on the right a plan decides, at
the same rates. All is drawn from key 0 by the reference.
"""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

import droppath

PAGE = Path(__file__).parents[1] / "docs" / "depth_plan.png"
LAYERS, STEPS = 12, 150
RATES = droppath.drop_path_rates(0.5, LAYERS, whole=True)


def coins(key: NDArray[np.uint32]) -> NDArray[np.bool_]:
    """Return which layers run in a step where each has a coin: bool [L]."""
    keys = droppath.split(key, LAYERS)
    pairs = zip(keys, RATES, strict=True)
    return np.array([droppath.keep_mask(k, p, 1, mode="batch")[0] for k, p in pairs])


def draw(path: Path = PAGE) -> None:
    """Draw the layers that run, and below how many."""
    steps = droppath.split(droppath.key(0), STEPS)
    ways = {
        'mode "batch": a coin for each layer': np.stack([coins(key) for key in steps], 1),
        "a plan": np.stack([droppath.layer_plan(key, RATES) for key in steps], 1),
    }
    figure = Figure(figsize=(11, 4.2), dpi=150, layout="constrained")
    grid = figure.subplots(2, 2, sharex=True, sharey="row", height_ratios=(3, 1.4))
    for column, (title, runs) in enumerate(ways.items()):
        raster, count = grid[:, column]
        extent = (0.5, STEPS + 0.5, 0.5, LAYERS + 0.5)
        raster.imshow(runs, "Greys_r", aspect="auto", origin="lower", extent=extent)
        raster.set_title(f"{title} (black is dropped)", fontsize="medium")
        ran = runs.sum(0)
        count.step(np.arange(1, STEPS + 1), ran, where="mid", linewidth=1)
        count.set_title(f"layers that run: {ran.min()} to {ran.max()}", fontsize="small")
        count.set_xlabel("training step")
        count.set_ylim(0, LAYERS + 0.5)
        count.grid(alpha=0.3)
        for axes in (raster, count):
            axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    grid[0, 0].set_ylabel("layer")
    grid[1, 0].set_ylabel("layers")
    figure.savefig(path)


if __name__ == "__main__":
    draw()
