"""kill -9 at whatever moment: the same command ends where an undisturbed run ends, bit for bit."""

import dataclasses
import io
import multiprocessing
import random
import time

import jax
import pytest
from rich.console import Console

from examples.train_flax import loop
from examples.train_flax.config import Config
from examples.train_flax.loop_test import assert_same_run
from examples.train_flax.metrics_test import read_rows
from examples.train_flax.presets import PRESETS

KILLS = 20


def config_in(folder) -> Config:
    """Two steps an epoch, so that most of the time goes into saving."""
    return dataclasses.replace(
        PRESETS["smoke"], run_dir=str(folder), epochs=30, batch=128, train_images=256
    )


def train(folder, cache) -> None:
    """What the command does, in a process of its own that finds its programs compiled."""
    jax.config.update("jax_num_cpu_devices", 1)
    jax.config.update("jax_compilation_cache_dir", str(cache))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    loop.train(config_in(folder), Console(file=io.StringIO()))


@pytest.fixture
def start(tmp_path):
    """Start train in a fork of a process that has imported everything: that takes seconds."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])

    def start(folder):
        process = context.Process(target=train, args=(folder, tmp_path / "cache"))
        process.start()
        return process

    return start


def lines(folder) -> int:
    path = folder / "metrics.csv"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def kill_when(process, folder, rows, seconds) -> None:
    """Kill the process so long after it has begun metrics.csv and added so many rows."""
    before = lines(folder)
    while rows and process.is_alive() and not lines(folder) >= before + rows:
        time.sleep(0.005)
    time.sleep(seconds)
    process.kill()
    process.join()


@pytest.mark.slow
def test_a_run_killed_at_twenty_moments_equals_an_undisturbed_one(start, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    process = start(whole)
    process.join()
    assert process.exitcode == 0

    draw, done = random.Random(3), []
    for _ in range(KILLS):
        process = start(killed)
        # in its start, or about the save that follows a row: soon enough for 30 epochs to last
        rows, seconds = draw.choice([(0, 0.6), (1, 0.05)])
        kill_when(process, killed, rows, draw.uniform(0, seconds))
        assert process.exitcode == -9
        done.append(lines(killed) - 1)
    assert len(set(done)) > 5  # it got on between the kills
    process = start(killed)
    process.join()
    assert process.exitcode == 0

    got, want = (loop.train(config_in(folder), Console(quiet=True)) for folder in (killed, whole))
    assert_same_run(got, want)
    assert [row.epoch for row in read_rows(killed / "metrics.csv")] == list(range(1, 31))
