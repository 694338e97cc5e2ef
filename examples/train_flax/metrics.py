"""metrics.csv, one row an epoch, and the same numbers for TensorBoard.

Numbers are written so that they read back bit for bit. Each checkpoint holds the rows up to it, so
that a resumed run writes the file anew, whatever became of it. Not here: what the screen shows.
"""

import csv
import io
import os
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.summary import scalar

from examples.train_flax.files import write_whole


class Row(NamedTuple):
    """What one epoch came to; the last two columns are the only ones that a machine decides."""

    epoch: int  # epochs done
    step: int  # steps done
    train_loss: float  # mean over the epoch's steps
    validation_error: float | None  # share of the validation images, None without any
    test_error: float  # share of the test images
    test_loss: float
    learning_rate: float  # of the epoch's last step
    skipped: float | None  # share of the epoch's block-steps that were closed whole
    images_per_s: float  # in training; compilation counts in a process's first epoch
    seconds: float  # of training


class Record(Protocol):
    def __call__(self, row: Row) -> None: ...


def best_row(rows: Sequence[Row]) -> Row:
    """Return the row of the lowest validation error, the first of equals; without any, the last."""
    judged = [row for row in rows if row.validation_error is not None]
    return min(judged, key=lambda row: row.validation_error or 0.0) if judged else rows[-1]


def mean_and_deviation(values: Sequence[float], form: str) -> str:
    """The mean, and if there are several values their standard deviation (n - 1)."""
    mean = format(statistics.fmean(values), form)
    return mean if len(values) == 1 else f"{mean} ± {format(statistics.stdev(values), form)}"


def seconds_a_step(rows: Sequence[Row]) -> float:
    """The median over all epochs but the first, which compiles, if there are others."""
    before = [0, *(row.step for row in rows)]
    each = [row.seconds / (row.step - done) for row, done in zip(rows, before, strict=False)]
    return statistics.median(each[1:] or each)


def images_per_second(rows: Sequence[Row]) -> float:
    """The median over all epochs but the first, which compiles, if there are others."""
    return statistics.median(row.images_per_s for row in rows[1:] or rows)


def mean_skipped(rows: Sequence[Row]) -> float | None:
    """The share of all block-steps that were closed whole; None where samples are drawn."""
    shares = [row.skipped for row in rows if row.skipped is not None]
    return statistics.fmean(shares) if shares else None


@contextmanager
def open_record(run_dir: Path, rows: Sequence[Row], *, tensorboard: bool) -> Iterator[Record]:
    """Begin metrics.csv, and TensorBoard's files, with `rows` and give what adds a row to them."""
    path = run_dir / "metrics.csv"
    _write_rows(path, rows)
    with _open_board(run_dir / "tensorboard", rows) if tensorboard else nullcontext() as board:

        def add(row: Row) -> None:
            with path.open("a", newline="") as file:
                csv.writer(file, lineterminator="\n").writerow(row)
            if board:
                _write_scalars(board, row)

        yield add


def _write_rows(path: Path, rows: Sequence[Row]) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([Row._fields, *rows])
    write_whole(path, text.getvalue())


def _open_board(folder: Path, rows: Sequence[Row]) -> AbstractContextManager[Any]:
    """A file of events that voids what an interrupted run wrote beyond `rows`.

    Not a SummaryWriter: the thread of that dies when the disk is full, and the run then hangs.
    """
    folder.mkdir(exist_ok=True)
    board = EventsWriter(str(folder / "events"), f".{os.getpid()}")
    start = SessionLog(status=SessionLog.START)
    board.write_event(Event(step=rows[-1].step + 1 if rows else 0, session_log=start))
    return closing(board)


def _write_scalars(board: Any, row: Row) -> None:
    for name, value in zip(Row._fields[2:], row[2:], strict=True):
        if value is not None:
            of_row = {"step": row.step, "wall_time": time.time()}
            board.write_event(Event(summary=scalar(name, value), **of_row))
    board.flush()
