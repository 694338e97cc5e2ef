"""metrics.csv and the board: what is written, and from which rows it goes on."""

import csv

import pytest
from tensorboardX.proto.event_pb2 import Event, SessionLog

from examples.train_flax.metrics import (
    Row,
    best_row,
    images_per_second,
    mean_and_deviation,
    mean_skipped,
    open_record,
    seconds_a_step,
)

ROWS = [
    Row(e, 10 * e, 0.1 + e, 1 / 7, 1 / 3, 2 / 7, 0.1 / e, None, 1e5 / e, seconds)
    for e, seconds in ((1, 70.0), (2, 1.0), (3, 2.0))
]


def read_rows(path) -> list[Row]:
    with path.open(newline="") as file:
        names, *lines = csv.reader(file)
    assert tuple(names) == Row._fields
    assert all(len(line) == len(names) for line in lines)
    return [
        Row(int(line[0]), int(line[1]), *(float(cell) if cell else None for cell in line[2:]))
        for line in lines
    ]


def write(folder, before, rows, tensorboard=False):
    with open_record(folder, before, tensorboard=tensorboard) as record:
        for row in rows:
            record(row)


def test_rows_read_back_bit_for_bit_under_their_names(tmp_path):
    write(tmp_path, [], ROWS)
    assert read_rows(tmp_path / "metrics.csv") == ROWS


def test_a_row_is_on_disk_as_soon_as_it_is_recorded(tmp_path):
    with open_record(tmp_path, [], tensorboard=False) as record:
        assert read_rows(tmp_path / "metrics.csv") == []
        record(ROWS[0])
        assert read_rows(tmp_path / "metrics.csv") == ROWS[:1]


@pytest.mark.parametrize("left", [b"", b"epoch\n1,2", b"\x00\xff\n", b"epoch,step\n" * 99])
def test_whatever_is_left_of_the_file_its_rows_are_those_given(tmp_path, left):
    (tmp_path / "metrics.csv").write_bytes(left)
    write(tmp_path, ROWS[:2], ROWS[2:])
    assert read_rows(tmp_path / "metrics.csv") == ROWS


def events(folder):
    """The events of each file: a length (8 bytes), its check (4), the event, its check (4)."""
    for path in sorted((folder / "tensorboard").iterdir()):
        rest = path.read_bytes()
        while rest:
            size = int.from_bytes(rest[:8], "little")
            yield Event.FromString(rest[12 : 12 + size])
            rest = rest[16 + size :]


def test_the_board_has_every_number_at_its_step_and_voids_what_comes_after_the_rows(tmp_path):
    write(tmp_path, ROWS[:2], ROWS[2:], tensorboard=True)
    version, start, *scalars = events(tmp_path)
    assert version.file_version == "brain.Event:2"
    assert (start.session_log.status, start.step) == (SessionLog.START, 21)
    assert {event.step for event in scalars} == {30}
    shown = {event.summary.value[0].tag: event.summary.value[0].simple_value for event in scalars}
    want = {name: value for name, value in ROWS[2]._asdict().items() if value is not None}
    assert set(shown) == set(want) - {"epoch", "step"}
    assert all(shown[name] == pytest.approx(want[name], rel=1e-6) for name in shown)


def test_the_epoch_that_compiles_does_not_count_in_the_speed():
    assert seconds_a_step(ROWS) == pytest.approx(0.15)  # of 0.1 and 0.2, not 7.0
    assert seconds_a_step(ROWS[:1]) == 7.0
    assert images_per_second(ROWS) == pytest.approx((1e5 / 2 + 1e5 / 3) / 2)


def test_a_last_epoch_cut_short_counts_its_own_steps():
    short = ROWS[2]._replace(step=22)
    assert seconds_a_step([ROWS[0], short]) == pytest.approx(2 / 12)


def test_the_best_row_is_the_first_of_lowest_validation_error_else_the_last():
    judged = [
        row._replace(validation_error=e) for row, e in zip(ROWS, (0.3, 0.1, 0.1), strict=True)
    ]
    assert best_row(judged) == judged[1]
    blind = [row._replace(validation_error=None) for row in ROWS]
    assert best_row(blind) == blind[2]


def test_the_share_skipped_is_none_where_no_row_has_one():
    assert mean_skipped(ROWS) is None
    shares = [row._replace(skipped=s) for row, s in zip(ROWS, (0.1, 0.2, 0.6), strict=True)]
    assert mean_skipped(shares) == pytest.approx(0.3)


def test_a_deviation_is_that_of_a_sample_and_needs_two():
    assert mean_and_deviation([0.1], ".1%") == "10.0%"
    assert mean_and_deviation([0.1, 0.2, 0.3], ".1%") == "20.0% ± 10.0%"  # sqrt(0.02 / 2)
