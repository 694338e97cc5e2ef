"""report.md: what a run, or a comparison of two, came to, for a colleague who was not there.

Everything in it can be found in config.json and metrics.csv, but for the machine, which is the one
that wrote it. Not here: how the pictures are drawn.
"""

import dataclasses
import json
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import jax
import numpy as np

import droppath
from examples.train_flax.command import command_line
from examples.train_flax.config import Config
from examples.train_flax.files import write_whole
from examples.train_flax.metrics import (
    Row,
    best_row,
    images_per_second,
    mean_skipped,
    seconds_a_step,
)
from examples.train_flax.model import end_of_ramp, mean_rates, title
from examples.train_flax.plots import draw_run

DIGITS = "scikit-learn's digits"
PICTURES = {  # those that are there are shown, in this order
    "error.png": "Error over the epochs; the dot is the epoch that counts.",
    "loss.png": "Loss over the epochs.",
    "learning_rate.png": "Learning rate at the last step of each epoch.",
    "drop_prob.png": "Largest drop_prob of a branch at each step.",
    "kept_layers.png": "Branches that each step kept, drawn again from the key.",
    "depth.png": "Branches kept together, and how many were to be expected.",
}


def write_report(cfg: Config, steps: int, rows: Sequence[Row], facts: "Facts") -> None:
    """Draw the pictures of a run of `steps` steps an epoch, and write report.md beside them."""
    run_dir = Path(cfg.run_dir)
    draw_run(cfg, steps, rows, run_dir / "plots")
    pictures = [name for name in PICTURES if (run_dir / "plots" / name).exists()]
    config = json.dumps(dataclasses.asdict(cfg), indent=2)
    write_markdown(
        run_dir / "report.md",
        f"# {title(cfg)}, drop_path_rate {cfg.drop_path_rate:g}: "
        f"test error {best_row(rows).test_error:.2%}",
        table(["", ""], run_lines(cfg, steps, rows, facts)),
        *(f"![{Path(name).stem}](plots/{name})\n\n{PICTURES[name]}" for name in pictures),
        f"## Config\n\n```json\n{config}\n```",
    )


@dataclasses.dataclass(frozen=True)
class Facts:
    """What rows do not tell of a run."""

    parameters: int
    train_images: int
    test_images: int
    made_of: Mapping[str, Any]


def run_lines(cfg: Config, steps: int, rows: Sequence[Row], facts: Facts) -> list[list[str]]:
    best = best_row(rows)
    wrong = round(best.test_error * facts.test_images)
    why = "the last"
    if best.validation_error is not None:
        why = f"the best in validation, with {best.validation_error:.2%}"
    seconds, speed = seconds_a_step(rows), images_per_second(rows)
    source, digest = cfg.data_dir or DIGITS, f"SHA-256 {facts.made_of['data'][:16]}..."
    versions = ", ".join(f"{name} {number}" for name, number in facts.made_of["versions"].items())
    lines = [
        ["test error", f"{best.test_error:.2%}, {wrong} of {facts.test_images} images"],
        ["after epoch", f"{best.epoch} of {rows[-1].epoch}, {why}"],
        ["training", f"{rows[-1].step} steps in {duration(rows)}"],
        ["speed", f"{speed:.0f} images/s, {seconds:.4f} s a step (median without compilation)"],
        ["expected depth", f"{expected_depth(cfg, steps, rows)} residual branches"],
        ["parameters", f"{facts.parameters:,}"],
        ["data", f"{source}: {facts.train_images:,} images to train on, {digest}"],
        ["command", f"`{command_line(cfg)}`"],
        ["machine", machine(cfg)],
        ["versions", versions],
    ]
    skipped = mean_skipped(rows)
    if skipped is not None:
        lines.insert(5, ["branches skipped by the draw", f"{skipped:.2%}"])
    if cfg.ramps:
        lines.insert(4, ["rates over training", rates_over_training(cfg, steps)])
    return lines


def rates_over_training(cfg: Config, steps: int) -> str:
    """What the ramp does to the rates of a run of `steps` steps an epoch."""
    at = f"step {end_of_ramp(cfg, steps)} of {cfg.epochs * steps}"
    ways = {
        "none": "the same at all steps",
        "early": f"early: from their full size, evenly, to 0 at {at}",
        "late": f"late: 0 before {at}, full from there on",
    }
    return ways[cfg.ramp]


def expected_depth(cfg: Config, steps: int, rows: Sequence[Row]) -> str:
    """The mean over the steps that were done, of which an epoch has `steps`."""
    rates = mean_rates(cfg, steps, np.arange(rows[-1].step))
    return f"{droppath.expected_depth(rates):.2f} of {len(rates)}"


def duration(rows: Iterable[Row]) -> str:
    """The time spent on training, h:mm:ss, compilation with it, evaluation not."""
    return str(timedelta(seconds=round(sum(row.seconds for row in rows))))


def machine(cfg: Config) -> str:
    count, kind = cfg.devices or jax.device_count(), jax.devices()[0].device_kind
    of = f"of {os.cpu_count()} cores" if kind == "cpu" else f"in {jax.process_count()} process(es)"
    versions = f"jax {jax.__version__}, Python {platform.python_version()}"
    return f"{count} x {kind} {of}, {platform.machine()}, {versions}"


def table(header: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    rows = [header, ["---"] * len(header), *lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def write_markdown(path: Path, *paragraphs: str) -> None:
    write_whole(path, "\n\n".join(paragraphs) + "\n")
