"""Progress: on a terminal a bar, elsewhere a line now and then; the same words in both."""

import io
import re

import pytest
from rich.console import Console

from examples.train_flax import progress
from examples.train_flax.metrics import Row
from examples.train_flax.progress import show_progress


@pytest.fixture(autouse=True)
def terminal(monkeypatch):
    """One that moves its cursor, wherever the tests run."""
    monkeypatch.setenv("TERM", "xterm")


class Clock:
    def __init__(self):
        self.now = 100.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


def shown(clock, seconds, last, *, done=0, terminal=False, width=120):
    file = io.StringIO()
    console = Console(file=file, force_terminal=terminal, width=width)
    with show_progress(console, done, last) as show:
        for epoch in range(done + 1, last + 1):
            clock.now += seconds
            show(Row(epoch, 10 * epoch, 0.5, None, 0.25, 0.6, 0.1, None, 1234.5, seconds))
    return file.getvalue()


def test_a_log_has_the_first_row_then_one_every_ten_seconds_and_the_last(clock):
    lines = shown(clock, 4, 8).splitlines()
    assert [line.split(",")[0] for line in lines] == [
        "epoch 1/8", "epoch 4/8", "epoch 7/8", "epoch 8/8",
    ]  # fmt: skip


def test_a_line_says_step_loss_error_speed_and_the_time_left(clock):
    first, second, *_ = shown(clock, 20, 5, done=2).splitlines()
    numbers = "error 25.00%, loss 0.500, step"
    speed = "1234 images/s"
    assert first == f"epoch 3/5, {numbers} 30, {speed}"  # compilation says nothing of the pace
    assert second == f"epoch 4/5, 0:00:20 left, {numbers} 40, {speed}"


def test_a_terminal_has_a_bar_with_the_same_words(clock):
    text = shown(clock, 1, 2, terminal=True)
    assert "\x1b[" in text
    assert "epoch 2/2, error 25.00%, loss 0.500, step 20, 1234 images/s" in text


def test_a_terminal_that_cannot_move_its_cursor_has_lines(clock, monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    lines = shown(clock, 20, 2, terminal=True).splitlines()
    assert [line.split(",")[0] for line in lines] == ["epoch 1/2", "epoch 2/2"]


def test_a_finished_run_shows_nothing(clock):
    assert shown(clock, 1, 3, done=3) == ""


def test_in_80_columns_the_bar_and_the_time_left_stay(clock):
    file = io.StringIO()
    with show_progress(Console(file=file, force_terminal=True, width=80), 0, 10_000) as show:
        for epoch in (1, 9000):
            clock.now += 100 * epoch
            show(Row(epoch, 10 * epoch, 0.5, None, 0.25, 0.6, 0.1, None, 1234.5, 1.0))
    last = re.split(r"[\r\n]", re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", file.getvalue()).strip())[-1]
    assert len(last) <= 80
    assert len(re.findall("[━╸╺]", last)) == progress.BAR
    assert "epoch 9000/10000, 1 day, 3:46:51 left, error" in last
    assert last.endswith("…")
