"""Networks under a plan: which layers run, what they hold, and one program for all steps."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import droppath
from examples.train_flax.config import STREAMS
from examples.train_flax.masks import kept, skipped_share
from examples.train_flax.model import build_model, layer_rates, stage_rates
from examples.train_flax.presets import PRESETS
from examples.train_flax.resnet import Stage

KEY = jax.random.key(5)
IMAGES = jax.random.normal(jax.random.key(1), (6, 8, 8, 1))
RESNET = dataclasses.replace(  # stages of 3 blocks, of which 3, 2 and 2 have plans
    PRESETS["smoke"], depth=20, mode="plan", drop_path_rate=0.5, rule="uniform"
)
NETWORKS = {
    "preresnet": RESNET,
    "resnet": dataclasses.replace(RESNET, network="resnet", scale_at="eval"),
    "vit": dataclasses.replace(
        PRESETS["vit"], depth=4, width=12, mode="plan", drop_path_rate=0.5, rule="uniform"
    ),
}
networks = pytest.mark.parametrize("network", NETWORKS)


def test_each_stage_has_rates_of_a_whole_sum_and_the_blocks_with_a_stride_have_none():
    assert [sum(stage) for stage in stage_rates(RESNET)] == [1, 1, 1]  # of 1.5, 1 and 1
    assert [len(stage) for stage in stage_rates(RESNET)] == [3, 2, 2]
    rates = layer_rates(RESNET)
    assert len(rates) == 9
    assert (rates[3], rates[6]) == (0, 0)
    assert layer_rates(NETWORKS["vit"]) == [0.5] * 4  # of blocks, attention and MLP
    resnet110 = stage_rates(dataclasses.replace(PRESETS["resnet110"], mode="plan"))
    assert [len(stage) for stage in resnet110] == [18, 17, 17]
    assert [sum(stage) for stage in resnet110] == [2, 4, 7]  # of 1.58, 4.33 and 7.15


@networks
def test_the_layers_drawn_again_are_those_of_the_reference(network):
    cfg = dataclasses.replace(NETWORKS[network], seed=7)
    drawn = kept(cfg, 10, np.arange(3, 6))
    assert drawn.shape == (3, len(layer_rates(cfg)), cfg.batch)
    key = droppath.fold_in(droppath.key(7), STREAMS.index("masks"))
    for row, step in zip(drawn, range(3, 6), strict=True):
        plans = droppath.layer_plan(droppath.fold_in(key, step), stage_rates(cfg))
        want = plans[0].tolist()
        for plan in plans[1:]:
            want += [True, *plan.tolist()]
        assert row[:, 0].tolist() == want
        assert (row == row[:, :1]).all()
    share = sum(map(sum, stage_rates(cfg))) / len(layer_rates(cfg))
    assert skipped_share(cfg, 10, np.arange(20)) == pytest.approx(share)


@networks
def test_layers_that_are_dropped_have_no_gradient_and_their_statistics_stay(network):
    cfg = NETWORKS[network]
    graphdef, params, *rest = nnx.split(build_model(cfg, (8, 8, 1), 10, KEY), nnx.Param, ...)

    @jax.jit
    def step(params, key):
        def loss(params):
            model = nnx.merge(graphdef, params, *rest, copy=True)
            return (model(IMAGES, key=key) ** 2).sum(), nnx.state(model, nnx.BatchStat)

        return jax.value_and_grad(loss, has_aux=True)(params)

    (_, stats), grads = step(params, jax.random.key(3))
    plans = droppath.layer_plan(droppath.key(3), stage_rates(cfg))
    if network == "vit":
        (stack,) = (unit["layers"] for unit in grads["residuals"].values())
        moved = np.abs(stack["mlp"]["up"]["kernel"][...]).sum((1, 2)) > 0
        assert moved.tolist() == plans[0].tolist()
        return
    for stage, plan in enumerate(plans):
        stack = grads["blocks"][stage]["rest"]["layers"]["branch"]
        moved = np.abs(stack["conv1"]["kernel"][...]).sum((1, 2, 3, 4)) > 0
        assert moved.tolist() == plan.tolist()
        mean = stats["blocks"][stage]["rest"]["layers"]["branch"]["norm1"]["mean"][...]
        assert (np.abs(mean).sum(1) > 0).tolist() == plan.tolist()
    assert step._cache_size() == 1
    step(params, jax.random.key(4))
    assert step._cache_size() == 1


@networks
def test_evaluation_runs_all_layers_without_a_key(network):
    cfg = dataclasses.replace(NETWORKS[network], scale_at="train")
    model = build_model(cfg, (8, 8, 1), 10, KEY)
    constant = build_model(dataclasses.replace(cfg, drop_path_rate=0.0), (8, 8, 1), 10, KEY)
    model.eval()
    constant.eval()
    both = jax.jit(lambda: (model(IMAGES), constant(IMAGES)))()
    np.testing.assert_allclose(*both, rtol=0, atol=1e-6)
    trained = jax.jit(lambda: build_model(cfg, (8, 8, 1), 10, KEY)(IMAGES, key=KEY))()
    assert not np.allclose(both[0], trained)


@pytest.mark.parametrize("relu_after", [False, True])
def test_a_stage_is_its_blocks_one_after_the_other(relu_after):
    cfg = NETWORKS["resnet" if relu_after else "preresnet"]
    stage = Stage(1, [0.0, 0.5, 0.5], cfg, nnx.Rngs(0))
    x = jax.random.normal(jax.random.key(2), (6, 8, 8, 4))
    x = nnx.relu(x) if relu_after else x
    stage.eval()
    y, layers = stage.first(x, key=None), stage.rest.layers
    for index in range(2):
        graphdef, state = nnx.split(layers)
        layer = nnx.merge(graphdef, jax.tree.map(lambda leaf, i=index: leaf[i], state))
        f = layer.branch(y, y)
        whole = nnx.relu(y + f) if relu_after else y + f
        y = y + (0.5 if relu_after else 1.0) * (whole - y)  # the "resnet" is scaled in evaluation
    np.testing.assert_allclose(jax.jit(lambda x: stage(x, key=None))(x), y, rtol=1e-4, atol=1e-5)


def test_a_stage_of_one_block_has_no_plan():
    model = build_model(dataclasses.replace(RESNET, depth=8), (8, 8, 1), 10, KEY)
    assert [block.rest is None for block in model.blocks] == [False, True, True]
    assert jnp.isfinite(model(IMAGES, key=KEY)).all()


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"skip": False}, "skip must be true where mode is 'plan', which runs some layers only"),
        ({"ramp": "early"}, "ramp must be 'none' where mode is 'plan', since the number of layers"),
        ({"mode": "plans"}, "mode must be one of "),
    ],
)
def test_what_does_not_go_with_a_plan_is_refused(changes, text):
    with pytest.raises(ValueError) as error:
        dataclasses.replace(RESNET, **changes)
    assert str(error.value).startswith(text)
