"""The PyTorch twin draws what the Flax example draws, and runs without JAX."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import droppath
from examples import train_torch
from examples.train_flax import step as flax_step
from examples.train_flax.config import STREAMS
from examples.train_flax.data import load
from examples.train_flax.presets import PRESETS
from examples.train_torch import BatchNorm, ResNet, load_weights, permutation, randint

CFG = dataclasses.replace(PRESETS["smoke"], devices=1, shift=2)


@pytest.mark.parametrize("num", [1, 2, 1297, 1700, 50000])
def test_a_permutation_is_jaxs(num):
    """From 1626 on it takes two rounds: 3 log(1626) / log(2**32 - 1) > 1."""
    got = permutation(droppath.key(7), num)
    np.testing.assert_array_equal(got, jax.random.permutation(jax.random.key(7), num))


@pytest.mark.parametrize("below", [1, 2, 3, 9, 40000, 65535, 65536])
def test_random_integers_are_jaxs(below):
    want = jax.random.randint(jax.random.key(7), (200,), 0, below)
    np.testing.assert_array_equal(randint(droppath.key(7), 200, below), want)


@pytest.mark.parametrize("name", STREAMS)
def test_the_keys_are_the_flax_examples(name):
    want = jax.random.key_data(flax_step.stream(CFG, name))
    np.testing.assert_array_equal(train_torch.stream(CFG, name), want)


@pytest.mark.parametrize(("epoch", "place"), [(1, 0), (1, 9), (3, 4)])
def test_a_batch_is_the_flax_examples_bit_for_bit(epoch, place):
    data = load(CFG)
    step, size = (epoch - 1) * 10 + place, CFG.batch  # 1297 images are 10 batches of 128
    key = jax.random.fold_in(flax_step.stream(CFG, "order"), epoch)
    rows = jax.random.permutation(key, 1297)[place * size : (place + 1) * size]
    images = type(data.train)(*map(jnp.asarray, data.train))
    seed = flax_step.seed_key(CFG)
    augmented = jax.jit(flax_step.augmented, static_argnums=0)
    want = augmented(CFG, images, seed, rows, jnp.int32(step))
    x, labels = train_torch.batch(CFG, data.train, step)
    np.testing.assert_array_equal(x, np.moveaxis(want, -1, 1))
    np.testing.assert_array_equal(labels, data.train.labels[np.asarray(rows)])


def test_the_running_variance_is_the_biased_one():
    norm = BatchNorm(2)
    x = torch.tensor([[1.0, 0.0], [4.0, 0.0], [4.0, 0.0], [7.0, 8.0]])[:, :, None, None]
    y = norm(x)
    # means 4 and 2; variances (9 + 0 + 0 + 9) / 4 = 4.5 and (4 + 4 + 4 + 36) / 4 = 12
    torch.testing.assert_close(norm.running_mean, torch.tensor([0.4, 0.2]))
    torch.testing.assert_close(norm.running_var, torch.tensor([0.9 + 0.45, 0.9 + 1.2]))
    torch.testing.assert_close(y[0, :, 0, 0], torch.tensor([-3 / 4.5**0.5, -2 / 12**0.5]))
    before = norm.running_var.clone()
    norm.eval()(x)
    assert torch.equal(norm.running_var, before)


def test_weights_of_another_network_are_refused():
    arrays = {"stem/kernel": np.zeros((3, 3, 1, 4), np.float32), "stem/bias": np.zeros(4)}
    with pytest.raises(ValueError, match="weights must be the network's own"):
        load_weights(ResNet(CFG, 1, 10), arrays)


def test_equal_seeds_give_equal_initial_weights_and_others_do_not():
    first, again, other = (
        torch.cat([w.flatten() for w in ResNet(cfg, 1, 10).parameters()])
        for cfg in (CFG, CFG, dataclasses.replace(CFG, seed=1))
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_the_program_runs_without_jax_and_writes_each_loss(tmp_path):
    code = (
        "import sys; sys.modules['jax'] = sys.modules['flax'] = None\n"
        "from examples.train_torch import main\n"
        f"main(['--epochs', '2', '--steps', '21', '--losses', {str(tmp_path / 'a.csv')!r}])"
    )
    root = Path(__file__).parents[1]
    command = [sys.executable, "-c", code]
    run = subprocess.run(command, cwd=root, check=True, stdout=subprocess.PIPE, text=True)
    printed = run.stdout.splitlines()
    assert [line[:8] for line in printed] == ["epoch 1:", "test err"]
    assert printed[-1].endswith("after 21 steps")
    steps, losses = np.loadtxt(tmp_path / "a.csv", delimiter=",", skiprows=1).T
    assert steps.tolist() == list(range(1, 22))
    assert losses[-5:].mean() < 0.8 * losses[:5].mean()


def test_a_ramp_is_refused_and_not_ignored(capsys):
    with pytest.raises(ValueError, match="ramp must be 'none', got 'early'"):
        ResNet(dataclasses.replace(CFG, ramp="early"), 1, 10)
    with pytest.raises(SystemExit, match="2"):
        train_torch.main(["--ramp", "early"])
    assert capsys.readouterr().err.endswith("unrecognized arguments: --ramp early\n")


def test_an_impossible_option_is_refused_in_one_line(capsys):
    with pytest.raises(SystemExit, match="2"):
        train_torch.main(["--drop-path-rate", "2"])
    assert capsys.readouterr().err.endswith("drop_path_rate must be a number in [0, 1], got 2.0\n")
