"""Progress: on a terminal a bar, elsewhere a line now and then; the same words in both."""

import io

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


def shown(clock, seconds, last, *, done=0, terminal=False):
    file = io.StringIO()
    console = Console(file=file, force_terminal=terminal, width=120)
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
    numbers = "loss 0.500, error 25.00%, 1234 images/s"
    assert first == f"epoch 3/5, step 30, {numbers}"  # compilation says nothing of the pace
    assert second == f"epoch 4/5, step 40, {numbers}, 0:00:20 left"


def test_a_terminal_has_a_bar_with_the_same_words(clock):
    text = shown(clock, 1, 2, terminal=True)
    assert "\x1b[" in text
    assert "epoch 2/2, step 20, loss 0.500, error 25.00%, 1234 images/s" in text


def test_a_terminal_that_cannot_move_its_cursor_has_lines(clock, monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    lines = shown(clock, 20, 2, terminal=True).splitlines()
    assert [line.split(",")[0] for line in lines] == ["epoch 1/2", "epoch 2/2"]


def test_a_finished_run_shows_nothing(clock):
    assert shown(clock, 1, 3, done=3) == ""
