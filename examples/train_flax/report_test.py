"""report.md: every number is one of the run's, and every picture is there."""

import dataclasses
import re

import pytest

from examples.train_flax.plots_test import ROWS
from examples.train_flax.presets import PRESETS
from examples.train_flax.report import Facts, table, write_report


def report_of(tmp_path, rows, **changed):
    cfg = dataclasses.replace(PRESETS["smoke"], run_dir=str(tmp_path), **changed)
    made = {"data": "0123456789abcdef" * 4, "versions": {"Python": "3.11.7", "jax": "0.10.2"}}
    facts = Facts(parameters=4934, train_images=1297, test_images=500, made_of=made)
    write_report(cfg, 10, rows, facts)
    return (tmp_path / "report.md").read_text()


def test_it_says_what_came_of_the_run_at_the_best_validation_epoch(tmp_path):
    text = report_of(tmp_path, ROWS)
    for line in (
        "# pre-activation ResNet-8, drop_path_rate 0.2: test error 10.00%",
        "| test error | 10.00%, 50 of 500 images |",
        "| after epoch | 3 of 4, the best in validation, with 0.00% |",
        "| training | 40 steps in 0:00:04 |",
        "| speed | 1000 images/s, 0.1000 s a step (median without compilation) |",
        "| expected depth | 2.70 of 3 residual branches |",
        "| parameters | 4,934 |",
        "| data | scikit-learn's digits: 1,297 images to train on, SHA-256 0123456789abcdef... |",
        "| versions | Python 3.11.7, jax 0.10.2 |",
        '  "drop_path_rate": 0.2,',
    ):
        assert line in text.splitlines()
    command = f"python -m examples.train_flax --run-dir {tmp_path} --depth 8 --width 4 --epochs 4"
    assert f"| command | `{command} --batch 128 --checkpoint-every 1` |" in text
    assert re.search(r"\| machine \| \d+ x cpu of \d+ cores, .*jax \d", text)
    assert "skipped" not in text


def test_without_validation_it_is_the_last_epoch_that_counts(tmp_path):
    text = report_of(tmp_path, [row._replace(validation_error=None) for row in ROWS])
    assert "| after epoch | 4 of 4, the last |" in text


def test_batch_mode_says_what_the_draw_skipped(tmp_path):
    text = report_of(tmp_path, [row._replace(skipped=0.125) for row in ROWS], mode="batch")
    assert "| branches skipped by the draw | 12.50% |" in text


@pytest.mark.parametrize(
    ("ramp", "line", "depth"),  # 3 branches at 0, 0.1 and 0.2; 40 steps
    [  # shares of all rates: (1 + 0.95 + ... + 0.05) / 40 = 0.2625, and 0.5
        ("early", "early: from their full size, evenly, to 0 at step 20 of 40", "2.92"),
        ("late", "late: 0 before step 20 of 40, full from there on", "2.85"),
    ],
)
def test_a_ramp_is_told_and_the_expected_depth_is_the_mean_over_the_steps(
    tmp_path, ramp, line, depth
):
    text = report_of(tmp_path, ROWS, ramp=ramp, ramp_end=0.5)
    assert f"| rates over training | {line} |" in text
    assert f"| expected depth | {depth} of 3 residual branches |" in text
    assert "](plots/drop_prob.png)" in text


@pytest.mark.parametrize(("rate", "count"), [(0.2, 5), (0.0, 3)])
def test_every_picture_that_was_drawn_is_shown_and_is_there(tmp_path, rate, count):
    text = report_of(tmp_path, ROWS, drop_path_rate=rate)
    assert "rates over training" not in text
    pictures = re.findall(r"\]\((.*?)\)", text)
    assert len(pictures) == count
    assert all((tmp_path / picture).is_file() for picture in pictures)


def test_a_table_is_markdown():
    assert table(["", "a"], [["b", "c"]]) == "|  | a |\n| --- | --- |\n| b | c |"
