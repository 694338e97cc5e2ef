"""Parity training: the losses agree step by step, and those of a wrong trainer do not."""

from functools import partial

import numpy as np
import pytest
import torch

import droppath
from conformance.parity import flax as in_jax
from conformance.parity import torch as in_torch
from conformance.parity import training
from conformance.parity.training import KEY, OPTIMIZERS, RATES, STEPS, Run, losses, make_weights
from droppath_torch import DropPath


@pytest.fixture(scope="module", params=OPTIMIZERS)
def run(request):
    both = {name: losses(name, request.param, "float64") for name in training.FRAMEWORKS}
    return Run(request.param, "float64", both)


def test_in_float64_the_losses_agree_to_1e_12_at_each_of_50_steps(run):
    a, b = run.losses["torch"], run.losses["flax"]
    assert a.shape == b.shape == (50,)
    np.testing.assert_allclose(a, b, rtol=1e-12, atol=0)
    assert run.agrees
    assert 0 < a[-1] < a[0] / 5  # it was trained
    assert np.unique(a).size == 50


def test_every_layer_drops_some_samples_and_never_the_same_all_the_time():
    for layer, p in enumerate(RATES):
        keys = [droppath.fold_in(droppath.fold_in(KEY, t), layer) for t in range(STEPS)]
        kept = np.array([droppath.keep_mask(key, p, training.BATCH) for key in keys])
        assert 0.5 < kept.mean() < 1
        assert np.unique(kept, axis=0).shape[0] > 10  # of 50 masks


def test_weights_are_no_map_of_low_rank():
    weights = make_weights()
    assert weights.keys() == training.SHAPES.keys()
    for name in ("embed", "head"):
        assert np.linalg.matrix_rank(weights[name]) == min(weights[name].shape)


def key_of_layer(monkeypatch, rule):
    """Let JAX's layer l at step t draw with the key that KEY-7 gives layer and step rule(l, t)."""
    right = in_jax.layer_keys

    def layer_keys(key, step, layers):
        places = [rule(layer, step) for layer in range(layers)]
        return [right(key, other, place + 1)[place] for place, other in places]

    monkeypatch.setattr(in_jax, "layer_keys", layer_keys)


@pytest.mark.parametrize(
    "rule",
    [
        lambda layer, step: (layer - layer % 2, step),
        lambda layer, step: (layer + 1 - 2 * (layer % 2), step),
        lambda layer, step: (layer + 1, step),
        lambda layer, step: (layer, step + 1),
        lambda layer, step: (layer, 0),
    ],
    ids=[
        "one key for both branches of a block",
        "branches in another order",
        "layers counted from one",
        "steps counted from one",
        "one key for all steps",
    ],
)
def test_a_trainer_with_other_layer_keys_does_not_agree(monkeypatch, rule):
    key_of_layer(monkeypatch, rule)
    assert_apart(losses("torch", "sgd", "float64"), losses("flax", "sgd", "float64"))


def test_with_the_right_rule_the_same_detour_agrees(monkeypatch):
    key_of_layer(monkeypatch, lambda layer, step: (layer, step))
    a, b = (losses(name, "sgd", "float64") for name in training.FRAMEWORKS)
    assert Run("sgd", "float64", {"a": a, "b": b}).agrees


@pytest.mark.parametrize("trainer", training.FRAMEWORKS)
def test_a_trainer_with_another_key_does_not_agree(trainer):
    right = {name: losses(name, "sgd", "float64") for name in training.FRAMEWORKS}
    assert_apart(*(right | {trainer: losses(trainer, "sgd", "float64", droppath.key(1))}).values())


@pytest.mark.parametrize("rates", [[0.0] * 4, RATES[::-1], [1 - p for p in RATES]])
def test_a_trainer_with_other_rates_does_not_agree(rates):
    wrong = losses("torch", "sgd", "float64", rates=rates)
    assert_apart(wrong, losses("flax", "sgd", "float64"))


def test_a_trainer_without_the_scale_does_not_agree(monkeypatch):
    right = losses("flax", "sgd", "float64")
    monkeypatch.setattr(in_torch, "DropPath", partial(DropPath, scale_by_keep=False))
    assert_apart(losses("torch", "sgd", "float64"), right)


def assert_apart(a, b):
    """The losses differ by far more than float32's tolerance, let alone float64's."""
    run = Run("sgd", "float64", {"a": a, "b": b})
    assert run.differences.max() > 1e-2
    assert not run.agrees


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1 + 3e-12])
def test_one_bad_loss_among_many_does_not_agree(bad):
    good, other = np.ones(STEPS), np.ones(STEPS)
    other[17] = bad
    assert Run("sgd", "float64", {"a": good, "b": good}).agrees
    assert not Run("sgd", "float64", {"a": good, "b": other}).agrees
    assert not Run("sgd", "float64", {"a": other, "b": good}).agrees


def test_the_threads_of_torch_are_as_before():
    before = torch.get_num_threads()
    with in_torch.one_thread():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before
