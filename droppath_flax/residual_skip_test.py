"""What a residual block that skips does not do: rows, runs, memory; and the rate it keeps."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import droppath
from droppath_flax import drop_path_residual, keep_mask
from droppath_flax.residual_test import KEY, numbers


def rows_run(mode, drop_prob, batch, **options):
    """How many rows the branch is compiled for."""
    seen = []

    def counting(x):
        seen.append(len(x))
        return x

    def block(x):
        return drop_path_residual(x, counting, drop_prob, key=KEY, mode=mode, **options)

    jax.eval_shape(block, jnp.ones((batch, 2)))
    return seen


def test_the_branch_is_compiled_for_the_rows_that_it_must():
    for drop_prob in (0.05, 0.1, 0.4, 0.9):
        for batch in (1, 2, 3, 8, 32):
            capacity = droppath.kept_capacity(drop_prob, batch)
            assert rows_run("balanced", drop_prob, batch) == [capacity]
            assert rows_run("row", drop_prob, batch) == [batch]
    assert rows_run("balanced", 0.4, 12, groups=3) == [9]  # 4 - floor(1.6) = 3, times 3
    assert rows_run("balanced", 0.4, 12, skip=False) == [12]
    assert rows_run("balanced", 1.0, 12) == []


def test_a_batch_that_is_dropped_does_not_run_the_branch():
    runs = []

    def counting(x):
        jax.debug.callback(lambda: runs.append(None))
        return x

    run = jax.jit(lambda x, key: drop_path_residual(x, counting, 0.5, key=key, mode="batch"))
    kept = 0
    for seed in range(8):
        run(jnp.ones((4, 2)), jax.random.key(seed)).block_until_ready()
        kept += int(droppath.keep_mask(droppath.key(seed), 0.5, 1, mode="batch")[0])
    jax.effects_barrier()
    assert len(runs) == kept
    assert 0 < kept < 8


def test_a_mask_that_is_traced_is_masked_or_taken_at_its_word():
    x, keep = numbers(8, 3), np.arange(8) < 6
    masked = jax.jit(lambda keep: drop_path_residual(x, jnp.ones_like, 0.5, keep=keep))(keep)
    np.testing.assert_array_equal(np.asarray(masked) != x, np.broadcast_to(keep[:, None], x.shape))
    word = jax.jit(lambda keep: drop_path_residual(x, jnp.ones_like, 0.5, keep=keep, skip=True))
    first_4 = np.broadcast_to(np.arange(8)[:, None] < 4, x.shape)
    np.testing.assert_array_equal(np.asarray(word(keep)) != x, first_4)
    assert not keep_mask(KEY, 0.5, 8, mode="balanced").all()


def test_a_mask_that_the_host_knows_is_read_within_a_program():
    x = numbers(8, 3)

    def rows(keep, skip):
        ran = []
        block = partial(drop_path_residual, keep=keep, skip=skip)
        jax.jit(lambda x: block(x, lambda x: ran.append(len(x)) or x, 0.5))(x)
        return ran

    few, many = np.arange(8) < 3, np.arange(8) < 6
    assert rows(few, None) == rows(few, True) == [4]
    assert rows(many, None) == [8]
    with pytest.raises(ValueError, match="keep keeps more than the 4 rows of a group"):
        rows(many, True)


def test_what_cannot_skip_under_vmap_says_so():
    x, keys = numbers(3, 8, 2), jax.random.split(jax.random.key(2), 3)

    def block(x, key):
        return drop_path_residual(x, jnp.tanh, 0.4, key=key, mode="batch", skip=True)

    for f in (jax.vmap(block), jax.vmap(jax.jit(block))):
        with pytest.raises(ValueError, match="under a vmap of the draw both sides"):
            f(x, keys)
    jax.vmap(block, (0, None))(x, keys[0])  # one draw for all


def test_the_rate_is_exact_at_batch_2():
    keys = jax.random.split(jax.random.key(0), 10_000)
    draw = jax.vmap(lambda key: drop_path_residual(jnp.zeros((2, 1)), jnp.ones_like, 0.05, key=key))
    dropped = int((jax.jit(draw)(keys) == 0).sum())
    # two rows a draw, of which at most one is dropped: with probability 0.1
    assert abs(dropped - 1000) < 6 * math.sqrt(10_000 * 0.1 * 0.9)


def test_activation_memory_falls_with_the_rate():
    w = [numbers(16, 64), numbers(64, 16, seed=1)]

    def temporary(drop_prob, skip):
        def run(x, w):
            for i in range(4):
                x = drop_path_residual(
                    x, lambda x: jax.nn.gelu(x @ w[0]) @ w[1], drop_prob,
                    key=jax.random.fold_in(jax.random.key(0), i), skip=skip,
                )  # fmt: skip
            return (x**2).sum()

        program = jax.jit(jax.grad(run, (0, 1))).lower(numbers(64, 32, 16), w).compile()
        return program.memory_analysis().temp_size_in_bytes

    masked = temporary(0.5, False)
    assert masked > 4 * 64 * 32 * 64 * 4  # the hidden layers of four blocks, in float32
    assert temporary(0.5, None) <= 0.6 * masked
