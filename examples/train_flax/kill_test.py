"""kill -9 at whatever moment: the same command ends where an undisturbed run ends, bit for bit."""

import dataclasses
import io
import multiprocessing
import random
import time

import jax
import pytest
from rich.console import Console

from examples.train_flax import devices, loop
from examples.train_flax.config import Config
from examples.train_flax.loop_test import assert_same_run
from examples.train_flax.metrics_test import read_rows
from examples.train_flax.presets import PRESETS

KILLS = 20
EPOCHS = 20

# two steps an epoch, so that most of the time goes into saving
RESNET = dataclasses.replace(PRESETS["smoke"], epochs=EPOCHS, train_images=256, devices=1)
VIT = dataclasses.replace(
    PRESETS["vit"],
    data_dir=None,
    train_images=64,
    depth=2,
    width=12,
    groups=4,
    dtype="bfloat16",
    epochs=EPOCHS,
    batch=32,
    shift=1,
    checkpoint_every=1,
    devices=4,
)


def train(cfg: Config) -> None:
    """What the command does, in a process of its own that finds its programs compiled."""
    devices.start(cfg)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    loop.train(cfg, Console(file=io.StringIO()))


@pytest.fixture
def start():
    """Start train in a fork of a process that has imported everything: that takes seconds."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])

    def start(cfg):
        process = context.Process(target=train, args=(cfg,))
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
@pytest.mark.parametrize(
    "cfg", [RESNET, VIT], ids=["a ResNet on one device", "a ViT in bfloat16 on four"]
)
def test_a_run_killed_at_twenty_moments_equals_an_undisturbed_one(cfg, start, tmp_path):
    cache = str(tmp_path / "cache")
    whole, killed = (
        dataclasses.replace(cfg, run_dir=str(tmp_path / name), compilation_cache=cache)
        for name in ("whole", "killed")
    )
    process = start(whole)
    process.join()
    assert process.exitcode == 0

    folder, draw, done = tmp_path / "killed", random.Random(3), []
    for _ in range(KILLS):
        process = start(killed)
        # in its start, or about the save that follows a row: soon enough for the epochs to last
        rows, seconds = draw.choice([(0, 0.6), (1, 0.05)])
        kill_when(process, folder, rows, draw.uniform(0, seconds))
        assert process.exitcode == -9
        done.append(lines(folder) - 1)
    assert len(set(done)) > 5  # it got on between the kills
    process = start(killed)
    process.join()
    assert process.exitcode == 0

    got, want = (loop.train(run, Console(quiet=True)) for run in (killed, whole))
    assert_same_run(got, want)
    rows = read_rows(folder / "metrics.csv")
    assert [row.epoch for row in rows] == list(range(1, EPOCHS + 1))
