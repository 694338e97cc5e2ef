"""`python -m examples.train_flax.compare`: constant and stochastic depth, same recipe, one table.

Both networks start from the same weights, see the same batches in the same order and are trained
one after the other, in RUN_DIR-constant and RUN_DIR-stochastic; only drop_path_rate differs. Not
here: several seeds, without which a difference in error may be luck.
"""

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

import droppath
from examples.train_flax.__main__ import pretend_devices
from examples.train_flax.config import Config, Refused, command
from examples.train_flax.loop import Result, train
from examples.train_flax.metrics import seconds_a_step
from examples.train_flax.model import layer_rates
from examples.train_flax.plots import draw_errors


def run(cfg: Config) -> None:
    """Train both, print the table, draw RUN_DIR-compare.png; repeated, go on or print the same."""
    if cfg.drop_path_rate == 0:
        raise Refused("drop_path_rate must be above 0 to compare it with constant depth, got 0.0")
    console = Console()
    pretend_devices(cfg)
    configs = {
        name: dataclasses.replace(cfg, run_dir=f"{cfg.run_dir}-{name}", drop_path_rate=rate)
        for name, rate in (("constant", 0.0), ("stochastic", cfg.drop_path_rate))
    }
    results = {name: train(each, console) for name, each in configs.items()}
    title = f"ResNet-{cfg.depth}, constant and stochastic depth"
    rows = {f"{name} depth": result.rows for name, result in results.items()}
    draw_errors(title, rows, Path(f"{cfg.run_dir}-compare.png"))
    console.print(table(configs, results))


def table(configs: Mapping[str, Config], results: Mapping[str, Result]) -> Table:
    """One line a run: the error after its last epoch, and what it cost. Fits 80 columns."""
    images = next(iter(results.values())).test_images
    grid = Table(caption=f"one of the {images} test images is {1 / images:.1%}; depth is in blocks")
    grid.add_column("drop_path_rate")
    for header in ("test error", "seconds a step", "expected depth", "parameters"):
        grid.add_column(header, justify="right")
    for name, cfg in configs.items():
        result, rates = results[name], layer_rates(cfg)
        grid.add_row(
            f"{cfg.drop_path_rate:g} ({name})",
            f"{result.rows[-1].test_error:.1%}",
            f"{seconds_a_step(result.rows):.4f}",
            f"{droppath.expected_depth(rates):.2f} of {len(rates)}",
            f"{result.parameters:,}",
        )
    return grid


def main(argv: Sequence[str] | None = None) -> int:
    return command(run, argv, __doc__)


if __name__ == "__main__":
    sys.exit(main())
