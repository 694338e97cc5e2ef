"""The twins agree up to rounding, and a twin that is wrong in one thing does not."""

import dataclasses
from functools import partial

import matplotlib.image
import numpy as np
import pytest
import torch
from torch import nn, optim

import droppath
from examples import train_torch, twins
from examples.train_flax.data import load
from examples.train_flax.presets import PRESETS
from examples.twins import PAIRS, Trained, agreeing_steps, differences, main, nudge

CFG = dataclasses.replace(PRESETS["smoke"], devices=1, steps=10)  # one epoch


@pytest.fixture(autouse=True)
def threads():
    """One thread, as the programs; afterwards as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def trained():
    return twins.train_all(CFG)


@pytest.mark.slow
def test_in_float64_the_losses_agree_to_1e_13_and_the_test_errors_are_equal(trained):
    a, b = (trained[1][name] for name in PAIRS["float64, PyTorch and JAX"])
    assert a.losses.shape == b.losses.shape == (10,)
    np.testing.assert_allclose(a.losses, b.losses, rtol=1e-13, atol=0)  # measured: 4e-16
    assert a.error == b.error
    assert a.losses[-3:].mean() < 0.9 * a.losses[:3].mean()  # it was trained


@pytest.mark.slow
def test_in_float32_the_first_losses_agree_to_1e_5(trained):
    a, b = (trained[1][name] for name in PAIRS["float32, PyTorch and JAX"])
    assert agreeing_steps(differences(a, b), 1e-5) >= 5  # measured: 2e-7


@pytest.mark.slow
@pytest.mark.parametrize(
    ("place", "name", "wrong"),
    [
        (train_torch, "PRESETS", PRESETS),
        (optim, "SGD", lambda *a, **k: right_sgd(*a, **k | {"nesterov": False})),
        (optim, "SGD", lambda *a, **k: right_sgd(*a, **k | {"weight_decay": 0})),
        (
            train_torch,
            "DropPathResidual",
            partial(train_torch.DropPathResidual, scale_by_keep=False),
        ),
        (train_torch, "BatchNorm", partial(nn.BatchNorm2d, eps=1e-3)),
        (train_torch, "STREAMS", ("", "order", "shifts", "", "masks")),
        (train_torch, "STREAMS", ("", "order", "", "masks", "shifts")),
        (train_torch, "randint", lambda key, num, below: np.zeros(num, int)),
    ],
    ids=[
        "nothing",
        "momentum is not Nesterov's",
        "no weight decay",
        "no scale",
        "another epsilon",
        "masks from another key",
        "shifts from another key",
        "no shifts",
    ],
)
def test_a_twin_agrees_only_if_nothing_is_wrong(request, monkeypatch, trained, place, name, wrong):
    weights, runs = trained
    monkeypatch.setattr(place, name, wrong)
    other = twins.train_twin(dataclasses.replace(CFG, steps=5), load(CFG), weights)
    gap = differences(Trained(runs["jax"].losses[:5], 0), other).max()
    assert (gap < 1e-5) == (request.node.callspec.id == "nothing"), gap


right_sgd = optim.SGD


def test_the_masks_of_a_step_are_those_of_its_key_and_layer(monkeypatch):
    """Layer l at step t draws from fold_in(fold_in(masks, t), l)."""
    keys = []

    def keyed(model, key):
        keys.append(key.tolist())
        return right_keyed(model, key)

    right_keyed = train_torch.keyed
    monkeypatch.setattr(train_torch, "keyed", keyed)
    data = load(CFG)
    list(train_torch.train(CFG, train_torch.ResNet(CFG, 1, 10), data.train))
    masks = droppath.fold_in(droppath.key(0), 3)
    assert keys == [droppath.fold_in(masks, step).tolist() for step in range(10)]


def test_steps_agree_until_the_first_that_does_not():
    gaps = np.array([0, 1e-4, 2e-3, 0, np.nan])
    assert agreeing_steps(gaps, 1e-4) == 2
    assert agreeing_steps(gaps, 1e-5) == 1
    assert agreeing_steps(gaps, 1) == 4
    assert agreeing_steps(gaps[:4], 1) == 4


def test_a_nudge_changes_one_number_by_one_rounding():
    array = np.ones((2, 3), np.float32)
    nudged = nudge(array)
    assert nudged.flat[0] == 1 + 2**-23
    assert (nudged == array).sum() == 5
    assert (array == 1).all()


def test_the_command_prints_a_line_a_pair_and_writes_its_files(capsys, monkeypatch, tmp_path):
    rng = np.random.default_rng(0)
    names = ("jax", "torch", "torch_nudged", "jax_float64", "torch_float64")
    runs = {
        name: Trained(np.geomspace(2, 0.1, 50) * rng.uniform(1, 1.001, 50), 0.02) for name in names
    }
    monkeypatch.setattr(twins, "train_all", lambda cfg: ({"stem/kernel": np.ones(3)}, runs))
    main(["--run-dir", str(tmp_path)])
    printed = capsys.readouterr().out
    assert printed.count("within 1e-12 for 0, 0.001 for 50, 0.01 for 50; test error 2.0% and") == 3
    table = np.loadtxt(tmp_path / "losses.csv", delimiter=",", skiprows=1)
    np.testing.assert_array_equal(table[:, 1:].T, [run.losses for run in runs.values()])
    assert np.load(tmp_path / "weights.npz")["stem/kernel"].tolist() == [1, 1, 1]
    assert matplotlib.image.imread(tmp_path / "twins.png").std() > 0.05
