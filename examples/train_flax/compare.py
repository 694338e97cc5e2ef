"""`python -m examples.train_flax.compare [--seeds N]`: constant and stochastic depth, one table.

For each seed both networks start from the same weights, see the same batches in the same order and
are trained one after the other; only drop_path_rate differs, and with it the ramp. The runs are in
RUN_DIR-constant and RUN_DIR-stochastic, those of further seeds in folders that end in -seed1 and so
on, and what came of them in RUN_DIR-compare/report.md. With several seeds the difference of the
errors has a 95 % interval: that of Student's t over the seeds, each seed's two runs paired. Not
here: how the setting of a preset was found (docs/example.md).
"""

import argparse
import dataclasses
import statistics
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from examples.train_flax.extra import needs_extra

with needs_extra("example", __name__):
    from rich.console import Console
    from rich.table import Table
    from scipy.stats import t

    from examples.train_flax.command import command, command_line
    from examples.train_flax.config import Config, Refused
    from examples.train_flax.devices import is_writer, start
    from examples.train_flax.loop import Result, train
    from examples.train_flax.metrics import (
        images_per_second,
        mean_and_deviation,
        mean_skipped,
        seconds_a_step,
    )
    from examples.train_flax.model import title
    from examples.train_flax.plots import draw_comparison
    from examples.train_flax.report import (
        DIGITS,
        expected_depth,
        machine,
        rates_over_training,
        table,
        write_markdown,
    )


class Runs(NamedTuple):
    """One depth's runs, one a seed."""

    configs: list[Config]
    results: list[Result]


def run(cfg: Config, seeds: str = "1") -> None:
    """Train all, print the table, write the report; repeated, go on or print the same."""
    if cfg.drop_path_rate == 0:
        raise Refused("drop_path_rate must be above 0 to compare it with constant depth, got 0.0")
    if not seeds.isdecimal() or not int(seeds) >= 1:
        raise Refused(f"seeds must be an integer of at least 1, got {seeds}")
    start(cfg)
    console = Console(quiet=not is_writer())
    runs: dict[str, Runs] = {"constant": Runs([], []), "stochastic": Runs([], [])}
    for number in range(int(seeds)):
        for name, rate in (("constant", 0.0), ("stochastic", cfg.drop_path_rate)):
            folder = f"{cfg.run_dir}-{name}" + (f"-seed{cfg.seed + number}" if number else "")
            one = dataclasses.replace(
                cfg,
                run_dir=folder,
                seed=cfg.seed + number,
                drop_path_rate=rate,
                ramp=cfg.ramp if rate else "none",
            )
            runs[name].configs.append(one)
            runs[name].results.append(train(one, console))
    if is_writer():
        line = f"{command_line(cfg, 'examples.train_flax.compare')} --seeds {seeds}"
        write_comparison(runs, Path(f"{cfg.run_dir}-compare"), line)
    console.print(screen_table(runs))
    for line in (*findings(runs), f"report and picture: {cfg.run_dir}-compare/report.md"):
        console.print(line, highlight=False, soft_wrap=True)


def screen_table(runs: Mapping[str, Runs]) -> Table:
    """One line a depth. Fits 80 columns."""
    constant = runs["constant"].results
    images, seeds = constant[0].test_images, len(constant)
    caption = (
        f"one of the {images:,} test images is {100 / images:.1g}%; depth is in branches; "
        f"{constant[0].parameters:,} parameters"
    )
    if seeds > 1:
        caption += f"; error: mean ± standard deviation of {seeds} seeds"
    config, steps = runs["stochastic"].configs[0], constant[0].steps
    if config.ramps:
        caption += f"; rates {rates_over_training(config, steps)}"
    grid = Table(caption=caption)
    headers = "drop_path_rate", "test error", "test loss", "seconds a step", "expected depth"
    for header in headers:
        first = header is headers[0]
        grid.add_column(header, justify="left" if first else "right", no_wrap=first)
    for name, (configs, results) in runs.items():
        grid.add_row(
            f"{configs[0].drop_path_rate:g} ({name})",
            error(results),
            f"{test_loss(results):.3f}",
            f"{seconds(results):.4f}",
            expected_depth(configs[0], steps, results[0].rows),
        )
    return grid


def error(results: Sequence[Result]) -> str:
    return mean_and_deviation([result.best.test_error for result in results], ".1%")


def test_loss(results: Sequence[Result]) -> float:
    """The mean over seeds, each at the epoch that counts."""
    return statistics.fmean(result.best.test_loss for result in results)


def seconds(results: Sequence[Result]) -> float:
    """The median over seeds of the seconds a step, compilation left out."""
    return statistics.median(seconds_a_step(result.rows) for result in results)


def findings(runs: Mapping[str, Runs]) -> list[str]:
    """What the table leaves to be worked out: the difference of the errors, and the time saved."""
    found = []
    if len(runs["constant"].results) > 1:
        mean, low, high = (f"{100 * share:.2f}" for share in difference(runs))
        gain = f"{mean} points lower, 95 % interval {low} to {high}"
        found.append(f"error of stochastic depth: {gain}")
    constant, stochastic = (seconds(each.results) for each in runs.values())
    share = stochastic / constant
    saved = f": {1 - share:.0%} of the time saved" if share < 1 else ""
    found.append(f"a step takes {share:.2f} of constant depth's{saved}")
    shares = [mean_skipped(result.rows) for result in runs["stochastic"].results]
    known = [share for share in shares if share is not None]
    if known:
        found.append(f"branches skipped by the draw: {mean_and_deviation(known, '.1%')}")
    return found


def difference(runs: Mapping[str, Runs]) -> tuple[float, float, float]:
    """Return by how much less stochastic depth errs, the mean over seeds, and its 95 % interval."""
    errors = [[result.best.test_error for result in each.results] for each in runs.values()]
    gains = [constant - stochastic for constant, stochastic in zip(*errors, strict=True)]
    mean, spread = statistics.fmean(gains), statistics.stdev(gains) / len(gains) ** 0.5
    reach = float(t.ppf(0.975, len(gains) - 1)) * spread
    return mean, mean - reach, mean + reach


def write_comparison(runs: Mapping[str, Runs], folder: Path, command: str) -> None:
    """Write report.md and comparison.png, both depths side by side, with the command for them."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = {f"{name} depth": [r.rows for r in each.results] for name, each in runs.items()}
    draw_comparison(rows, folder / "comparison.png")
    first, results = runs["stochastic"].configs[0], runs["stochastic"].results
    seeds = f"{len(results)} seeds, mean ± standard deviation" if len(results) > 1 else "one seed"
    columns = [depth_column(*each) for each in runs.values()]
    reports = [
        f"[{name}](../{name}/report.md)"
        for each in runs.values()
        for name in (Path(config.run_dir).name for config in each.configs)
    ]
    write_markdown(
        folder / "report.md",
        f"# Test error: {error(runs['constant'].results)} at constant depth, {error(results)} at "
        "stochastic depth",
        f"{title(first)}; {seeds}. Data: {first.data_dir or DIGITS}, {results[0].train_images:,} "
        f"images to train on and {results[0].test_images:,} to test on. Training: "
        f"{results[0].rows[-1].step:,} steps of {first.batch} images. Machine: {machine(first)}.",
        f"```sh\n{command}\n```",
        table(
            ["", *runs], ([what, *values] for what, *values in zip(COLUMN, *columns, strict=True))
        ),
        *(f"{line[0].upper()}{line[1:]}." for line in findings(runs)),
        "![comparison](comparison.png)\n\nTest error over the epochs, a thin line a seed; dots: "
        "the epochs that count. Loss on the test images and in training: the further apart they "
        "lie, the more a depth overfits. Training loss is that with paths dropped"
        f"{' for a part of the training' if first.ramps else ''}.",
        f"Each run by itself: {', '.join(reports)}.",
    )


COLUMN = (
    "drop_path_rate",
    "test error",
    "test loss",
    "last training loss",
    "seconds a step",
    "images/s",
    "training time of a run, without compilation",
    "rates over training",
    "expected depth in branches",
    "parameters",
)


def depth_column(configs: Sequence[Config], results: Sequence[Result]) -> list[str]:
    """The values of COLUMN for one depth."""
    return [
        f"{configs[0].drop_path_rate:g}",
        error(results),
        f"{test_loss(results):.3f}",
        mean_and_deviation([result.rows[-1].train_loss for result in results], ".3f"),
        f"{seconds(results):.4f}",
        f"{statistics.fmean(images_per_second(result.rows) for result in results):.0f}",
        f"{seconds(results) * results[0].rows[-1].step:.1f} s",
        rates_over_training(configs[0], results[0].steps),
        expected_depth(configs[0], results[0].steps, results[0].rows),
        f"{results[0].parameters:,}",
    ]


def main(argv: Sequence[str] | None = None) -> int:
    own = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    own.add_argument("--seeds", nargs="?", default="1", const="")
    given, rest = own.parse_known_args(argv)
    return command(partial(run, seeds=given.seeds), rest, __doc__ or "")


if __name__ == "__main__":
    sys.exit(main())
