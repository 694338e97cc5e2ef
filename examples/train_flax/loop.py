"""The loop over epochs: train, evaluate, write a row, save; and the same again from a checkpoint.

Repeating a command goes on where the last checkpoint stands and ends with the numbers of a run
never interrupted, bit for bit. Not here: the mathematics, which is step.py's.
"""

import time
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from tensorboardX import SummaryWriter

from examples.train_flax.checkpoint import open_checkpoints, restore_newest, save
from examples.train_flax.config import Config, claim_run_dir
from examples.train_flax.data import Data, load
from examples.train_flax.metrics import Row, append_row, keep_rows
from examples.train_flax.plots import draw_run
from examples.train_flax.step import (
    Run,
    State,
    abstract_state,
    begin,
    count_parameters,
    evaluate,
    fresh_state,
    learning_rate,
    train_epoch,
)


class Result(NamedTuple):
    """What a run came to: its rows, one an epoch, and the state after the last."""

    rows: list[Row]
    state: State
    parameters: int
    test_images: int


def train(cfg: Config, console: Console, *, stop_after: int | None = None) -> Result:
    """Train up to epoch cfg.epochs, or stop_after, from where the run folder stands."""
    data = load(cfg)
    run, placed = begin(cfg, data)
    run_dir = claim_run_dir(cfg)
    with open_checkpoints(run_dir) as manager:
        restored = restore_newest(manager, abstract_state(run, data), console.print)
        done, state = restored or (0, fresh_state(run, data))
        rows = keep_rows(run_dir / "metrics.csv", done)
        console.print(f"{run_dir}: {done} of {cfg.epochs} epochs are done")
        last = stop_after or cfg.epochs
        with (
            _progress(console, done, last) as progress,
            _board(cfg, run_dir, rows) as board,
        ):
            for epoch in range(done + 1, last + 1):
                state, row = train_and_test(run, state, placed, epoch)
                rows.append(row)
                append_row(run_dir / "metrics.csv", row, board)  # before its checkpoint
                if epoch % cfg.checkpoint_every == 0 or epoch == cfg.epochs:
                    save(manager, epoch, state)
                progress.update(progress.task_ids[0], advance=1, numbers=_shown(row))
    draw_run(cfg, run.steps, rows, run_dir / "plots")
    return Result(rows, state, count_parameters(state), len(data.test.labels))


def train_and_test(run: Run, state: State, data: Data, epoch: int) -> tuple[State, Row]:
    """Return the state after epoch 1, 2, ..., and its row; the state that is given is used up."""
    start = time.perf_counter()
    state, losses = train_epoch(run, state, data.train, epoch)
    train_loss = float(np.mean(losses))  # waits for the devices
    seconds = time.perf_counter() - start
    test_error, test_loss = evaluate(run, state, data.test)
    step = epoch * run.steps
    row = Row(
        epoch=epoch,
        step=step,
        train_loss=train_loss,
        test_error=float(test_error),
        test_loss=float(test_loss),
        learning_rate=float(learning_rate(run.cfg, run.steps)(step - 1)),
        images_per_s=run.steps * run.cfg.batch / seconds,
        seconds=seconds,
    )
    return state, row


def _progress(console: Console, done: int, last: int) -> Progress:
    progress = Progress(
        BarColumn(bar_width=10),
        TextColumn("epoch {task.completed}/{task.total}, {task.fields[numbers]},"),
        TimeRemainingColumn(compact=True),
        TextColumn("left"),
        console=console,
        disable=done >= last,
    )
    progress.add_task("", total=last, completed=done, numbers="compiling")
    return progress


def _shown(row: Row) -> str:
    error, speed = f"{row.test_error:.2%}", f"{row.images_per_s:.0f}"
    return f"loss {row.train_loss:.3f}, test error {error}, {speed} images/s"


def _board(cfg: Config, run_dir: Path, rows: list[Row]) -> AbstractContextManager[Any]:
    """A TensorBoard writer that voids what an interrupted run wrote beyond `rows`."""
    if not cfg.tensorboard or len(rows) >= cfg.epochs:
        return nullcontext()
    return SummaryWriter(str(run_dir / "tensorboard"), purge_step=rows[-1].step + 1 if rows else 0)
