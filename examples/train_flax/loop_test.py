"""Runs: a run that was stopped, cut or damaged ends as if nothing had happened."""

import dataclasses
import io
import os
import shutil
import signal
import subprocess
import sys

import jax
import numpy as np
import pytest
from rich.console import Console

from examples.train_flax import loop
from examples.train_flax.__main__ import main
from examples.train_flax.config import Config, Refused
from examples.train_flax.metrics_test import read_rows
from examples.train_flax.presets import PRESETS

TIMES = {"images_per_s": 0.0, "seconds": 0.0}


def config_in(folder, **changed) -> Config:
    return dataclasses.replace(PRESETS["smoke"], run_dir=str(folder), **changed)


def train(cfg, **options):
    said = io.StringIO()
    result = loop.train(cfg, Console(file=said, width=1000, force_terminal=False), **options)
    return result, said.getvalue()


def assert_same_run(got, want):
    assert [row._replace(**TIMES) for row in got.rows] == [r._replace(**TIMES) for r in want.rows]
    pairs = list(zip(jax.tree.leaves(got.state), jax.tree.leaves(want.state), strict=True))
    assert len(pairs) > 50
    assert all(np.array_equal(a, b) for a, b in pairs)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "whole"
    return folder, train(config_in(folder))[0]


@pytest.fixture
def copy(whole, tmp_path):
    return shutil.copytree(whole[0], tmp_path / "copy")


def test_a_run_learns_and_leaves_its_files(whole):
    folder, result = whole
    assert result.rows == read_rows(folder / "metrics.csv")
    assert [row.epoch for row in result.rows] == [1, 2, 3, 4]
    assert result.rows[-1].test_error < 0.6 < 0.9  # chance is 0.9
    names = {path.name for path in folder.iterdir()}
    assert names == {
        "checkpoints",
        "config.json",
        "digests.json",
        "lock",
        "made_of.json",
        "metrics.csv",
        "plots",
        "report.md",
        "tensorboard",
    }
    pictures = {path.name for path in (folder / "plots").iterdir()}
    assert pictures == {
        "depth.png", "error.png", "kept_layers.png", "learning_rate.png", "loss.png",
    }  # fmt: skip
    assert {path.name for path in (folder / "checkpoints").iterdir()} == {"3", "4"}


@pytest.mark.parametrize(("every", "stop"), [(1, 2), (2, 3), (3, 2)])
def test_a_run_stopped_and_repeated_equals_an_undisturbed_one(whole, tmp_path, every, stop):
    cfg = config_in(tmp_path, checkpoint_every=every)
    train(cfg, stop_after=stop)
    result, said = train(cfg)
    assert f"{every * (stop // every)} of 4 epochs are done" in said
    assert_same_run(result, whole[1])
    assert read_rows(tmp_path / "metrics.csv") == result.rows


def test_a_run_stopped_within_its_ramp_and_repeated_equals_an_undisturbed_one(tmp_path):
    ramp = {"ramp": "early", "ramp_end": 0.75, "mode": "batch", "drop_path_rate": 0.9}
    want, _ = train(config_in(tmp_path / "whole", **ramp))
    train(config_in(tmp_path / "stopped", **ramp), stop_after=1)
    result, said = train(config_in(tmp_path / "stopped", **ramp))
    assert "1 of 4 epochs are done" in said
    assert_same_run(result, want)
    assert [row.skipped == 0 for row in want.rows] == [False, False, False, True]


def test_a_line_cut_short_is_written_again(whole, copy):
    metrics = copy / "metrics.csv"
    metrics.write_bytes(metrics.read_bytes()[:-9])
    shutil.rmtree(copy / "checkpoints" / "4")
    result, _ = train(config_in(copy))
    assert_same_run(result, whole[1])
    assert read_rows(metrics) == result.rows


def test_a_finished_run_gets_its_rows_back_from_the_checkpoint(whole, copy):
    metrics = copy / "metrics.csv"
    before = metrics.read_bytes()
    metrics.write_bytes(before[:-200])  # rows of the checkpoint with it
    train(config_in(copy))
    assert metrics.read_bytes() == before


@pytest.mark.parametrize("every", [1, 3])
def test_sigterm_saves_and_exits_with_0_and_the_command_goes_on(
    whole, tmp_path, monkeypatch, capsys, every
):
    argv = ["--preset", "smoke", "--run-dir", str(tmp_path), "--checkpoint-every", str(every)]
    evaluate, epochs = loop.evaluate, []

    def evaluate_and_be_told(*args):
        epochs.append(len(epochs) + 1)
        if epochs == [1, 2]:
            signal.raise_signal(signal.SIGTERM)
        return evaluate(*args)

    monkeypatch.setattr(loop, "evaluate", evaluate_and_be_told)
    before = signal.getsignal(signal.SIGTERM)
    assert main(argv) == 0
    assert signal.getsignal(signal.SIGTERM) == before
    assert capsys.readouterr().err == (
        f"{tmp_path}: 2 of 4 epochs are saved, stopped by SIGTERM; the same command goes on\n"
    )
    result, said = train(config_in(tmp_path))
    assert "2 of 4 epochs are done" in said
    assert_same_run(result, whole[1])


@pytest.mark.parametrize(("bad", "step"), [("loss", 23), ("state", 30)])
def test_a_nan_stops_the_run_and_no_checkpoint_holds_it(tmp_path, monkeypatch, capsys, bad, step):
    train_epoch = loop.train_epoch

    def spoil(run, state, images, epoch):
        state, losses = train_epoch(run, state, images, epoch)
        if epoch == 3 and bad == "loss":
            losses = losses.at[2:].set(np.nan)
        elif epoch == 3:
            state = state._replace(opt_state=jax.tree.map(lambda a: a / 0, state.opt_state))
        return state, losses

    monkeypatch.setattr(loop, "train_epoch", spoil)
    assert main(["--preset", "smoke", "--run-dir", str(tmp_path)]) == 1
    assert capsys.readouterr().err == (
        f"{tmp_path}: the loss or an update is not finite at step {step}; "
        f"layer rates: 0, 0.1, 0.2; last good checkpoint: {tmp_path}/checkpoints/2\n"
    )
    assert {path.name for path in (tmp_path / "checkpoints").iterdir()} == {"1", "2"}
    assert len(read_rows(tmp_path / "metrics.csv")) == 2


# A limit on the size of a file fails a write as a full disk does, with another number.
FULL_DISK = """
import resource, sys
from examples.train_flax import loop
from examples.train_flax.__main__ import main

train_and_test, limit = loop.train_and_test, int(sys.argv.pop())

def fill(*args):
    result = train_and_test(*args)
    if args[-1] == 3:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    return result

loop.train_and_test = fill
sys.exit(main())
"""


@pytest.mark.slow
@pytest.mark.parametrize("limit", [50, 600], ids=["metrics.csv", "checkpoint"])
def test_a_full_disk_is_told_in_one_line_and_loses_nothing(whole, tmp_path, limit):
    folder, cache = tmp_path / "run", whole[0].parent / "cache"
    argv = ["--preset", "smoke", "--run-dir", str(folder), "--compilation-cache", str(cache)]
    argv += ["--no-tensorboard", str(limit)]
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", FULL_DISK, *argv]
    done = subprocess.run(command, capture_output=True, text=True, env=environ, check=False)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"{folder}: [Errno 27] File too large")
    assert line.endswith(
        "; what was saved stands, and once there is space the same command goes on"
    )
    result, said = train(config_in(folder))
    assert "2 of 4 epochs are done" in said
    assert_same_run(result, whole[1])


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (OSError(13, "Permission denied"), "once it may be written to the same command goes on"),
        (OSError(5, "Input/output error"), "once that is mended the same command goes on"),
        (
            jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory: 3 bytes\nmore"),
            "no memory is left on the device: RESOURCE_EXHAUSTED: Out of memory: 3 bytes; what was "
            "saved stands, and once there is memory the same command goes on",
        ),
    ],
)
def test_what_the_system_or_a_device_refuses_is_told_in_one_line(
    tmp_path, monkeypatch, capsys, error, line
):
    def fail(*_):
        raise error

    monkeypatch.setattr(loop, "train_and_test", fail)
    assert main(["--preset", "smoke", "--run-dir", str(tmp_path)]) == 1
    told = capsys.readouterr().err
    assert told.startswith(f"{tmp_path}: ")
    assert told.endswith(f"{line}\n")
    assert told.count("\n") == 1


def test_another_error_of_a_device_is_raised_as_it_is(tmp_path, monkeypatch):
    def fail(*_):
        raise jax.errors.JaxRuntimeError("INTERNAL: a defect")

    monkeypatch.setattr(loop, "train_and_test", fail)
    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"):
        train(config_in(tmp_path))


def test_a_run_killed_while_it_claimed_its_folder_begins_anew(tmp_path):
    (tmp_path / "config.part").write_text('{"run_d')
    assert "0 of 4 epochs are done" in train(config_in(tmp_path), stop_after=1)[1]


def test_a_finished_run_repeats_its_numbers_without_training(whole, copy, monkeypatch):
    monkeypatch.setattr(loop, "train_epoch", None)
    before = (copy / "metrics.csv").read_bytes()
    result, _ = train(config_in(copy))
    assert result.rows == whole[1].rows
    assert_same_run(result, whole[1])
    assert (copy / "metrics.csv").read_bytes() == before


def test_a_damaged_newest_checkpoint_is_put_aside_for_the_one_before(whole, copy):
    for path in (copy / "checkpoints" / "4").rglob("*"):
        if path.is_file():
            path.write_bytes(b"")
    result, said = train(config_in(copy))
    assert "checkpoint 4 is damaged and is now in" in said
    assert "going on from checkpoint 3, the last complete one" in said
    assert_same_run(result, whole[1])
    assert [path.name for path in (copy / "damaged-checkpoints").iterdir()] == ["4-0"]
    assert "is damaged" not in train(config_in(copy))[1]


def test_a_run_without_one_readable_checkpoint_is_refused_and_left_alone(copy):
    for path in (copy / "checkpoints").rglob("*"):
        if path.is_file():
            path.write_bytes(b"")
    before = (copy / "metrics.csv").read_bytes()
    with pytest.raises(Refused, match=f"no checkpoint in {copy}/checkpoints is whole"):
        train(config_in(copy))
    assert (copy / "metrics.csv").read_bytes() == before


def test_the_command_ends_with_the_test_error(whole, copy, capsys):
    assert main(["--preset", "smoke", "--run-dir", str(copy)]) == 0
    error = whole[1].rows[-1].test_error
    assert f"test error {error:.2%} ({round(500 * error)} of 500 images)" in capsys.readouterr().out


def test_a_missing_data_folder_is_refused_before_the_run_folder_is_made(tmp_path, capsys):
    argv = ["--run-dir", str(tmp_path / "run"), "--data-dir", str(tmp_path / "none")]
    assert main(argv) == 2
    assert "none, which is missing" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
