import math
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

import droppath
from benchmarks import flax_methods, torch_methods
from benchmarks.cases import METHODS, WHOLE_LAYERS, Case, on_cpu, on_cuda, quick
from benchmarks.flax_steps import Decoder, Decoders, FlaxSetup, Stack
from benchmarks.measure import realised_rate
from benchmarks.torch_steps import TorchSetup, stack
from droppath_torch import keyed

DRAWS = 10_000
VIT = Case("test", "vit", 5, 4, 16, 1, 0.4)
DECODER = replace(VIT, block="decoder", depth=4, drop_prob=0.5)  # 0, 1/6, 1/3, 1/2
BLOCKS = [VIT, replace(VIT, block="resnet")]
SHAPES = {"vit": (5, 4, 16), "resnet": (5, 16, 2, 2)}
FLAX_SHAPES = {"vit": (5, 4, 16), "resnet": (5, 2, 2, 16)}
SETUPS = {
    "torch": lambda: TorchSetup("cpu", compiled=False),
    "torch compiled": lambda: TorchSetup("cpu", compiled=True),
    "flax": lambda: FlaxSetup("cpu"),
}


@pytest.mark.parametrize("case", BLOCKS, ids=lambda case: case.block)
def test_torch_that_skips_equals_torch_that_masks(case):
    torch.manual_seed(0)
    model, x = stack(case, "balanced"), torch.randn(SHAPES[case.block])
    with keyed(model, droppath.key(3)):
        skipped = model(x)
    for layer in model:
        layer.skip = False
    with keyed(model, droppath.key(3)):
        masked = model(x)
    assert not torch.equal(masked, x)
    torch.testing.assert_close(skipped, masked, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("case", BLOCKS, ids=lambda case: case.block)
def test_flax_that_skips_equals_flax_that_masks(case):
    model = Stack(case, "balanced", jnp.float32)
    x = jax.random.normal(jax.random.key(0), FLAX_SHAPES[case.block])
    skipped = jax.jit(lambda x: model(x, jax.random.key(3)))(x)
    for layer in model.layers:
        layer.skip = False
    masked = jax.jit(lambda x: model(x, jax.random.key(3)))(x)
    assert not np.array_equal(masked, x)
    np.testing.assert_allclose(skipped, masked, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("method", TorchSetup("cpu", compiled=False).labels("vit"))
def test_every_method_of_torch_at_p_0_is_no_drop(method):
    case = replace(VIT, drop_prob=0.0)
    x = torch.randn(SHAPES[case.block])
    torch.manual_seed(1)
    plain = stack(case, "none")(x)
    torch.manual_seed(1)
    same = stack(case, method)(x)
    torch.testing.assert_close(same, plain, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("method", FlaxSetup("cpu").labels("vit"))
def test_every_method_of_flax_at_p_0_is_no_drop(method):
    case = replace(VIT, drop_prob=0.0)
    x = jax.random.normal(jax.random.key(0), FLAX_SHAPES["vit"])
    plain, same = (
        jax.jit(Stack(case, m, jnp.float32))(x, jax.random.key(1)) for m in ("none", method)
    )
    np.testing.assert_allclose(same, plain, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("methods", [torch_methods, flax_methods])
def test_dinov2_drops_one_of_two_samples_at_p_0_05(methods):
    # it keeps 2 * 0.95 = 1.9 samples, rounded down
    assert methods.realised_rate("dinov2", 0.05, 2, 100) == 0.5


@pytest.mark.parametrize("methods", [torch_methods, flax_methods])
@pytest.mark.parametrize("method", ["timm", "row", "balanced", "batch"])
def test_the_others_drop_at_the_rate_that_was_asked_for(methods, method):
    rate = methods.realised_rate(method, 0.05, 2, DRAWS)
    drawn = DRAWS if method == "batch" else 2 * DRAWS  # one draw for both samples, or two
    assert abs(rate - 0.05) < 4 * math.sqrt(0.05 * 0.95 / drawn)
    assert rate != 0.05 or method == "balanced"


@pytest.mark.parametrize("methods", [torch_methods, flax_methods])
def test_no_drop_drops_nothing(methods):
    assert methods.realised_rate("none", 0.4, 3, 10) == 0


@pytest.mark.parametrize("method", WHOLE_LAYERS)
def test_every_method_of_decoders_at_p_0_is_no_drop(method):
    case, x = replace(DECODER, drop_prob=0.0), torch.randn(5, 4, 16)
    models = []
    for each in ("none", method):
        torch.manual_seed(1)
        models.append(stack(case, each))
    plain, same = (model(x) for model in models)
    torch.testing.assert_close(same, plain, rtol=1e-5, atol=1e-6)
    key, x = jax.random.key(1), jax.random.normal(jax.random.key(0), (5, 4, 16))
    want, got = (jax.jit(Decoders(case, m, jnp.float32))(x, key) for m in ("none", method))
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


def test_a_decoder_under_a_plan_is_masking_by_it():
    rates = DECODER.rates
    assert sum(rates) == 1
    torch.manual_seed(1)
    x, model = torch.randn(5, 4, 16), stack(DECODER, "plan")
    plan, y = droppath.layer_plan(droppath.key(1), rates), x
    for layer, p, run in zip(model.layers, rates, plan, strict=True):
        y = y + layer(y) / (1 - p) if run else y
    torch.testing.assert_close(model(x), y)
    assert not torch.equal(model(x), y)  # another plan


def test_a_decoder_does_not_look_ahead():
    x = torch.randn(2, 6, 16)
    later = x.clone()
    later[:, 4:] += 1
    layer = stack(DECODER, "none")[0].branch
    torch.testing.assert_close(layer(later)[:, :4], layer(x)[:, :4])
    flax = Decoder(16, jnp.float32, nnx.Rngs(0))
    np.testing.assert_allclose(
        flax(jnp.array(later.numpy()))[:, :4], flax(jnp.array(x.numpy()))[:, :4], atol=1e-5
    )


def test_the_rate_of_a_plan_is_the_mean_of_its_rates():
    setup = SETUPS["torch"]()
    assert realised_rate(setup, DECODER, "plan") == pytest.approx(1 / 4)
    assert abs(realised_rate(setup, DECODER, "batch") - 1 / 4) < 0.02


@pytest.mark.parametrize("block", ["vit", "resnet", "decoder", "op"])
def test_a_step_of_torch_runs_by_every_method(block):
    made = SETUPS["torch"]()
    assert len(made.labels(block)) >= 4
    for method in made.labels(block):
        assert made.prepare(replace(VIT, block=block), method).memory >= 0


@pytest.mark.parametrize(
    ("block", "methods"),
    [
        ("vit", ["balanced"]),
        ("resnet", ["dinov2"]),
        ("decoder", ["plan", "batch"]),
        ("op", ["none"]),
    ],
)
def test_a_step_of_flax_runs(block, methods):
    made = SETUPS["flax"]()
    for method in methods:
        assert made.prepare(replace(VIT, block=block), method).memory >= 0


def test_more_steps_than_one_code_has_programs_are_compiled(monkeypatch):
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    made = SETUPS["torch compiled"]()
    for drop_prob in (0.1, 0.2, 0.4, 0.5):  # dynamo's limit is 8
        for method in ("dinov2", "row", "balanced"):
            made.prepare(replace(VIT, drop_prob=drop_prob), method)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("block", "method"), [("vit", "balanced"), ("decoder", "plan"), ("op", "balanced")]
)
def test_a_compiled_step_runs(block, method):
    made = SETUPS["torch compiled"]()
    assert not {"torchtune", "row-skip"} & set(made.labels(block))
    assert made.prepare(replace(VIT, block=block, depth=4), method).memory >= 0


def test_memory_of_torch_counts_what_is_saved_once():
    # At p = 0.4 three of five samples run (kept_capacity), and masking runs five. What is saved is
    # in proportion to them, but for masks and indices.
    setup = SETUPS["torch"]()
    masked, skipped = (setup.prepare(VIT, method).memory for method in ("none", "balanced"))
    assert masked > 0
    assert 0.6 <= skipped / masked <= 0.7


def test_memory_of_torch_does_not_count_parameters():
    saved = SETUPS["torch"]().prepare(replace(VIT, block="resnet"), "none").memory
    # x, the first convolution's result, ReLU's, each 5 x 16 x 2 x 2 float32, and the statistics of
    # 8 groups for 5 samples, mean and inverse deviation; the kernels alone are 18,432 bytes.
    assert saved == 3 * 5 * 16 * 4 * 4 + 2 * 5 * 8 * 4


@pytest.mark.parametrize("grid", [on_cpu, on_cuda, quick])
def test_every_method_takes_part_in_every_grid(grid):
    assert {method for case in grid() for method in case.methods} == set(METHODS)
    assert {name for case in grid() for name in case.setups} == set(SETUPS)
