"""Steps: what is random is a function of the key, and nothing depends on the number of devices."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import droppath
from examples.train_flax.data import Images, load
from examples.train_flax.presets import PRESETS
from examples.train_flax.step import (
    STREAMS,
    abstract_state,
    augmented,
    begin,
    evaluate,
    fresh_state,
    random_flip,
    random_shift,
    seed_key,
    standardise,
    stream,
    train_epoch,
    train_steps,
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


def test_what_moves_in_is_black_or_with_pixel_means_their_mean():
    pixels = np.full((200, 8, 8, 1), 255, np.uint8)
    labels, rows = np.zeros(200, np.int32), jnp.arange(200)
    for pixel_mean, moved_in in ((False, (0 - 51) / 51), (True, 0)):
        cfg = dataclasses.replace(CFG, pixel_mean=pixel_mean)
        x = augmented(
            cfg, Images(pixels, labels, np.float32(51), np.float32(51)), seed_key(cfg), rows, 0
        )
        assert np.unique(x).tolist() == [moved_in, (255 - 51) / 51]


def test_a_flip_mirrors_half_of_the_images_left_to_right():
    images = jnp.arange(24.0).reshape(1, 3, 4, 2).repeat(200, 0)
    flipped = np.asarray(random_flip(images, KEY))
    mirrored = (flipped[:, 0, 0, 0] == 6).astype(int)  # the last pixel of the first row
    assert 70 < mirrored.sum() < 130
    both = np.stack([images[0], images[0, :, ::-1]])
    np.testing.assert_array_equal(flipped, both[mirrored])


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


def test_another_seed_trains_by_the_same_program_to_other_losses(trained):
    *_, losses = trained
    data, programs = load(CFG), train_steps._cache_size()
    run, placed = begin(dataclasses.replace(CFG, seed=1), data)
    _, other = train_epoch(run, fresh_state(run, data), placed.train, 1)
    assert not np.isin(other, losses).any()
    assert train_steps._cache_size() == programs


def test_a_state_is_what_its_abstract_twin_says(trained):
    run, _, state, _ = trained
    abstract = abstract_state(run, load(CFG))
    assert jax.tree.structure(state) == jax.tree.structure(abstract)
    same = jax.tree.map(lambda a, b: (a.shape, a.dtype) == (b.shape, b.dtype), state, abstract)
    assert all(jax.tree.leaves(same))


def test_evaluation_counts_every_test_image_once(trained):
    run, placed, state, _ = trained
    model = nnx.merge(run.graphdef, state.params, state.batch_stats)
    model.eval()
    logits = np.asarray(model(standardise(placed.test.pixels, placed.test)))
    error, _ = evaluate(run, state, placed.test)  # 500 images in batches of 128
    assert float(error) == pytest.approx(
        (logits.argmax(1) != np.asarray(placed.test.labels)).mean(), abs=1e-6
    )


def test_a_run_of_so_many_steps_is_the_beginning_of_the_whole_run(trained):
    _, _, _, losses = trained
    data = load(CFG)
    run, placed = begin(dataclasses.replace(CFG, steps=13), data)
    assert (run.steps, run.last_step, run.epochs) == (10, 13, 2)
    state, first = train_epoch(run, fresh_state(run, data), placed.train, 1)
    np.testing.assert_allclose(first, losses, rtol=0, atol=1e-6)
    state, second = train_epoch(run, state, placed.train, 2)
    assert (len(second), int(state.step)) == (3, 13)


def test_an_epoch_of_several_passes_takes_each_image_once_a_pass(trained):
    _, _, _, losses = trained
    data = load(CFG)
    run, placed = begin(dataclasses.replace(CFG, passes=3, steps=25), data)
    assert (run.steps, run.epochs) == (30, 1)
    state, passes = train_epoch(run, fresh_state(run, data), placed.train, 1)
    assert (len(passes), int(state.step)) == (25, 25)
    # the first pass is an epoch of one pass, but for the learning rate's longer schedule
    np.testing.assert_allclose(passes[0], losses[0], rtol=1e-6)
    np.testing.assert_allclose(passes[:10], losses, rtol=0, atol=0.2)
    assert not np.isin(passes[10:], passes[:10]).any()


def losses_of(**changed):
    cfg = dataclasses.replace(CFG, **changed)
    data = load(cfg)
    run, placed = begin(cfg, data)
    return np.asarray(train_epoch(run, fresh_state(run, data), placed.train, 1)[1])


def test_the_rates_of_a_ramp_are_data_of_one_program_for_all_epochs(caplog):
    cfg = dataclasses.replace(CFG, ramp="early", ramp_end=0.5)
    data = load(cfg)
    run, placed = begin(cfg, data)
    state = fresh_state(run, data)
    with jax.log_compiles():
        for epoch in range(1, 5):
            state, _ = train_epoch(run, state, placed.train, epoch)
            evaluate(run, state, placed.test)
    compiled = [line for line in caplog.messages if line.startswith("Finished XLA compilation")]
    assert sum("train_steps" in line for line in compiled) == 1
    assert sum("_evaluate" in line for line in compiled) == 1
    # step 18 is 2 before the end at 20: a tenth of 0, 0.1 and 0.2
    np.testing.assert_array_equal(run.rates(18, 3), np.float32([[0, 0.01, 0.02], [0, 0.005, 0.01],
                                                                [0, 0, 0]]))  # fmt: skip
    assert begin(CFG, data)[0].rates(0, 3) is None


@pytest.mark.parametrize("mode", ["row", "batch"])
def test_each_step_trains_at_its_own_rates(mode):
    """Before late stochastic depth begins, at step 4 of 40, losses are those of constant depth."""
    full = {"drop_path_rate": 0.9, "rule": "uniform", "mode": mode}
    constant = losses_of(drop_path_rate=0.0, mode=mode)
    late = losses_of(ramp="late", ramp_end=0.1, **full)
    np.testing.assert_allclose(late[:4], constant[:4], rtol=0, atol=1e-5)
    assert abs(late[4] - constant[4]) > 0.01
    # a ramp over before it begins: early leaves nothing to drop, late drops from step 0 on
    np.testing.assert_allclose(
        losses_of(ramp="early", ramp_end=1e-9, **full), constant, rtol=0, atol=1e-4
    )
    np.testing.assert_allclose(
        losses_of(ramp="late", ramp_end=1e-9, **full), losses_of(**full), rtol=0, atol=1e-4
    )


def test_evaluation_scales_by_the_rates_of_the_last_step_done():
    cfg = dataclasses.replace(CFG, scale_at="eval", drop_path_rate=0.9, rule="uniform")
    data = load(cfg)

    def loss_after(steps, **changed):
        run, placed = begin(dataclasses.replace(cfg, **changed), data)
        state = fresh_state(run, data)._replace(step=jnp.int32(steps))
        return float(evaluate(run, state, placed.test)[1])

    full, whole = loss_after(20), loss_after(20, drop_path_rate=0.0)
    assert abs(full - whole) > 0.01
    late = {"ramp": "late", "ramp_end": 0.5}  # step 20, the 21st, is the first that drops
    assert loss_after(20, **late) == pytest.approx(whole, abs=1e-5)
    assert loss_after(21, **late) == pytest.approx(full, abs=1e-5)


def test_validation_images_are_evaluated_like_test_images(trained):
    *_, state, _ = trained
    data = load(dataclasses.replace(CFG, validation=100))
    run, placed = begin(CFG, data)
    error, loss = evaluate(run, state, placed.validation)
    assert 0 <= float(error) <= 1
    assert round(float(error) * 100) == pytest.approx(float(error) * 100, abs=1e-4)
    assert float(loss) > 0
