"""metrics.csv: what is read back, and what is cut."""

import pytest

from examples.train_flax.config import Refused
from examples.train_flax.metrics import Row, append_row, keep_rows, read_rows, seconds_a_step

ROWS = [
    Row(e, 10 * e, 0.1 + e, 1 / 3, 2 / 7, 0.1 / e, 1e5 / 3, seconds)
    for e, seconds in ((1, 70.0), (2, 1.0), (3, 2.0))
]


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "metrics.csv"
    keep_rows(path, 0)
    for row in ROWS:
        append_row(path, row, None)
    return path


def test_rows_read_back_bit_for_bit_under_their_names(path):
    assert read_rows(path) == ROWS
    assert path.read_text().splitlines()[0].split(",") == list(Row._fields)


def test_a_file_that_is_not_there_has_no_rows(tmp_path):
    assert read_rows(tmp_path / "metrics.csv") == []


def test_rows_beyond_the_checkpoint_are_cut_from_the_file(path):
    assert keep_rows(path, 2) == ROWS[:2]
    assert read_rows(path) == ROWS[:2]


@pytest.mark.parametrize("cut", [1, 2, 5, 30])
def test_a_line_cut_short_does_not_count(path, cut):
    path.write_bytes(path.read_bytes()[:-cut])
    assert read_rows(path) == ROWS[:2]
    keep_rows(path, 2)
    append_row(path, ROWS[2], None)
    assert read_rows(path) == ROWS


def test_bytes_that_are_no_text_end_the_rows(path):
    with path.open("ab") as file:
        file.write(b"\x00\xff\x00\n4,40\n")
    assert read_rows(path) == ROWS


def test_fewer_rows_than_the_checkpoint_has_epochs_are_refused(path):
    before = path.read_bytes()
    with pytest.raises(Refused, match="must hold the checkpoint's 4 epochs, got 3 whole rows"):
        keep_rows(path, 4)
    assert path.read_bytes() == before


def test_the_epoch_that_compiles_does_not_count_in_seconds_a_step():
    assert seconds_a_step(ROWS) == 0.2  # of 7.0, 0.1 and 0.2 for steps of ten an epoch
