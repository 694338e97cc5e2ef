"""metrics.csv, one row an epoch, and the same numbers for TensorBoard.

Numbers are written so that they read back bit for bit. A row is on disk before its epoch's
checkpoint is, so a resumed run finds at least the rows that it needs: `keep_rows` cuts the others,
and a line cut short by a crash with them.
"""

import csv
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tensorboardX import SummaryWriter

from examples.train_flax.config import Refused


class Row(NamedTuple):
    """What one epoch came to; the last two columns are the only ones that a machine decides."""

    epoch: int  # epochs done
    step: int  # steps done
    train_loss: float  # mean over the epoch's steps
    test_error: float  # share of the test images
    test_loss: float
    learning_rate: float  # of the epoch's last step
    images_per_s: float  # in training; compilation counts in a process's first epoch
    seconds: float  # of training


def read_rows(path: Path) -> list[Row]:
    """Return the rows up to the first that is not whole; none if there is no file."""
    rows: list[Row] = []
    if not path.exists():
        return rows
    with path.open(newline="", errors="replace") as lines:
        next(lines, None)  # the header
        for line in lines:
            row = _parse(line)
            if row is None or row.epoch != len(rows) + 1:
                break
            rows.append(row)
    return rows


def _parse(line: str) -> Row | None:
    cells = next(csv.reader([line]), [])
    if not line.endswith("\n") or len(cells) != len(Row._fields):
        return None
    try:
        return Row(
            *(kind(cell) for kind, cell in zip(Row.__annotations__.values(), cells, strict=True))
        )
    except ValueError:
        return None


def keep_rows(path: Path, epochs: int) -> list[Row]:
    """Cut metrics.csv to the rows of the first `epochs` epochs, and return them."""
    rows = read_rows(path)[:epochs]
    if len(rows) < epochs:
        raise Refused(
            f"{path} must hold the checkpoint's {epochs} epochs, got {len(rows)} whole rows"
        )
    draft = path.with_suffix(".part")
    with draft.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([Row._fields, *rows])
    draft.replace(path)  # whole or not at all
    return rows


def append_row(path: Path, row: Row, board: SummaryWriter | None) -> None:
    with path.open("a", newline="") as file:
        csv.writer(file, lineterminator="\n").writerow(row)
    if board:
        for name, value in zip(Row._fields[2:], row[2:], strict=True):
            board.add_scalar(name, value, row.step)
        board.flush()


def seconds_a_step(rows: Sequence[Row]) -> float:
    """The median over epochs, so that the compilation in a process's first does not count."""
    return statistics.median(row.seconds * row.epoch / row.step for row in rows)
