"""Progress on the screen: a bar on a terminal that can draw it anew, else a line now and then.

Not here: numbers that metrics.csv does not hold.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Column

from examples.train_flax.metrics import Row

BAR = 16  # columns
PACE = 10.0  # seconds between two lines: an hour is 360 of them


@contextmanager
def show_progress(console: Console, done: int, last: int) -> Iterator[Callable[[Row], None]]:
    """Give what shows a row, from epoch done + 1 to epoch last."""
    first: tuple[int, float] | None = None  # epoch and time of the row after compilation

    def text(row: Row) -> str:
        nonlocal first
        now, left = time.monotonic(), ""
        if first is None:
            first = row.epoch, now
        elif row.epoch < last:
            pace = (now - first[1]) / (row.epoch - first[0])
            left = f", {timedelta(seconds=round(pace * (last - row.epoch)))} left"
        return (
            f"epoch {row.epoch}/{last}{left}, error {row.test_error:.2%}, "
            f"loss {row.train_loss:.3f}, step {row.step}, {row.images_per_s:.0f} images/s"
        )

    if done >= last:
        yield lambda row: None
    elif console.is_terminal and not console.is_dumb_terminal:
        with _bar(console) as bar:
            task = bar.add_task("compiling", total=last, completed=done)
            yield lambda row: bar.update(task, completed=row.epoch, description=text(row))
    else:
        yield _lines(console, last, text)


def _bar(console: Console) -> Progress:
    """The time that has passed shows that an epoch is at work, however long it is.

    In 80 columns the end of the text gives way, and not the bar or the time left.
    """
    rest = Column(ratio=1, no_wrap=True, overflow="ellipsis")
    text = TextColumn("{task.description}", table_column=rest)
    columns = SpinnerColumn(), BarColumn(BAR), TimeElapsedColumn(), text
    return Progress(*columns, console=console, expand=True)


def _lines(console: Console, last: int, text: Callable[[Row], str]) -> Callable[[Row], None]:
    due = time.monotonic()  # the first row tells that compiling is over

    def show(row: Row) -> None:
        nonlocal due
        if time.monotonic() >= due or row.epoch == last:
            console.print(text(row), soft_wrap=True, highlight=False)
            due = time.monotonic() + PACE

    return show
