"""Steps: what is random is a function of the key, and nothing depends on the number of devices."""

import dataclasses
import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import droppath
from examples.train_flax.config import PRESETS, Refused
from examples.train_flax.data import load
from examples.train_flax.step import (
    STREAMS,
    abstract_state,
    begin,
    evaluate,
    fresh_state,
    learning_rate,
    make_mesh,
    random_shift,
    standardise,
    stream,
    train_epoch,
)

CFG = PRESETS["smoke"]
KEY = jax.random.key(7)


def test_every_stream_has_its_own_threefry_key_that_numpy_knows():
    keys = [jax.random.key_data(stream(CFG, name)).tolist() for name in STREAMS]
    words = [droppath.fold_in(droppath.key(CFG.seed), i).tolist() for i in range(len(STREAMS))]
    assert keys == words
    assert len({tuple(key) for key in keys}) == len(STREAMS)


def test_a_shift_moves_a_whole_image_by_at_most_so_many_pixels():
    pixels = jnp.arange(1, 65, dtype=jnp.uint8).reshape(1, 8, 8, 1).repeat(200, 0)
    shifted = np.asarray(random_shift(pixels, KEY, 1))
    padded = np.pad(np.arange(1, 65, dtype=np.uint8).reshape(8, 8), 1)
    allowed = {padded[y : y + 8, x : x + 8].tobytes() for y in range(3) for x in range(3)}
    assert {image.tobytes() for image in shifted} == allowed


def test_a_shift_of_zero_leaves_the_images_as_they_are():
    pixels = jax.random.bits(KEY, (3, 8, 8, 2), jnp.uint8)
    np.testing.assert_array_equal(random_shift(pixels, KEY, 0), pixels)


def test_the_learning_rate_falls_from_the_first_step_to_zero_after_the_last():
    schedule = learning_rate(CFG, 10)
    assert float(schedule(0)) == pytest.approx(CFG.learning_rate)
    assert float(schedule(20)) == pytest.approx(CFG.learning_rate / 2)
    assert float(schedule(40)) == pytest.approx(0)


@pytest.fixture(scope="module")
def trained():
    data = load(CFG)
    run, placed = begin(CFG, data)
    state, losses = train_epoch(run, fresh_state(run, data), placed.train, 1)
    return run, placed, state, np.asarray(losses)


def test_an_epoch_takes_every_whole_batch_once(trained):
    run, _, state, losses = trained
    assert run.steps == 1297 // 128
    assert int(state.step) == run.steps == len(losses)


def test_the_loss_starts_near_chance_and_falls(trained):
    *_, losses = trained
    assert 1.5 < losses[0] < 4  # chance is ln 10 = 2.3
    assert losses[-1] < losses[0]


def test_the_same_epoch_again_gives_the_same_bits_and_another_gives_others(trained):
    run, placed, _, losses = trained
    data = load(CFG)
    _, again = train_epoch(run, fresh_state(run, data), placed.train, 1)
    _, other = train_epoch(run, fresh_state(run, data), placed.train, 2)
    assert np.asarray(again).tolist() == losses.tolist()
    assert not np.isin(other, losses).any()


def test_a_state_is_what_its_abstract_twin_says(trained):
    run, _, state, _ = trained
    abstract = abstract_state(run, load(CFG))
    assert jax.tree.structure(state) == jax.tree.structure(abstract)
    same = jax.tree.map(lambda a, b: (a.shape, a.dtype) == (b.shape, b.dtype), state, abstract)
    assert all(jax.tree.leaves(same))


def test_evaluation_counts_every_test_image_once(trained):
    run, placed, state, _ = trained
    model = nnx.merge(run.graphdef, state.params, state.batch_stats)
    logits = np.asarray(model(standardise(placed.test.pixels, placed.test), train=False))
    error, _ = evaluate(run, state, placed.test)  # 500 images in batches of 128
    assert float(error) == pytest.approx(
        (logits.argmax(1) != np.asarray(placed.test.labels)).mean(), abs=1e-6
    )


def test_a_device_count_that_does_not_fit_is_refused():
    count = jax.device_count() + 1
    with pytest.raises(Refused, match=f"devices must be at most {count - 1}, .* got {count}"):
        make_mesh(dataclasses.replace(CFG, devices=count))


SHARED = """
import dataclasses, json, jax, numpy as np
jax.config.update("jax_num_cpu_devices", 4)
from examples.train_flax.config import PRESETS, Refused
from examples.train_flax.data import load
from examples.train_flax.step import begin, fresh_state, make_mesh, train_epoch

losses = {}
for devices in (1, 2, 4):
    cfg = dataclasses.replace(PRESETS["smoke"], devices=devices)
    data = load(cfg)
    run, placed = begin(cfg, data)
    state, losses[devices] = fresh_state(run, data), []
    for epoch in (1, 2, 3, 4):
        state, of_epoch = train_epoch(run, state, placed.train, epoch)
        losses[devices] += np.asarray(of_epoch).tolist()
    assert run.mesh.size == devices
    assert {len(leaf.sharding.device_set) for leaf in jax.tree.leaves(state)} == {devices}
try:
    make_mesh(dataclasses.replace(PRESETS["smoke"], devices=3))
except Refused as error:
    refusal = str(error)
print(json.dumps({"losses": losses, "refusal": refusal}))
"""


@pytest.fixture(scope="module")
def shared():
    """What a process with four CPU devices gives; this one may have looked at its one already."""
    environ = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", SHARED], capture_output=True, text=True, env=environ, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
@pytest.mark.parametrize("devices", ["2", "4"])
def test_the_losses_of_a_run_do_not_depend_on_the_number_of_devices(shared, devices):
    one, many = (np.array(shared["losses"][n]) for n in ("1", devices))
    assert len(one) == 40
    np.testing.assert_allclose(many[0], one[0], rtol=0, atol=1e-6)  # before anything is learnt
    np.testing.assert_allclose(many, one, rtol=0, atol=1e-5)  # 5e-7 where measured


@pytest.mark.slow
def test_a_batch_that_the_devices_do_not_divide_is_refused(shared):
    assert shared["refusal"] == "batch must be a multiple of the 3 devices, got 128"
