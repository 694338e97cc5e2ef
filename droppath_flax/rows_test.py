"""Which rows run, and the two maps between batch and rows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from droppath_flax.residual_test import numbers, with_gradients
from droppath_flax.rows import add_rows, pick_rows, select, take_rows

KEEP = np.array([True, False, True, False, False, False, True, False])  # 2 and 1 of two groups


def test_the_kept_rows_of_each_group_run_and_its_first_dropped_ones_as_spares():
    rows = pick_rows(jnp.asarray(KEEP), 2, 2)
    np.testing.assert_array_equal(rows.taken, [[0, 2], [2, 0]])
    np.testing.assert_array_equal(rows.real, [[True, True], [True, False]])
    np.testing.assert_array_equal(rows.keep.reshape(-1), KEEP)
    fewer = pick_rows(jnp.asarray(KEEP), 1, 2)  # what a group keeps beyond its capacity is dropped
    np.testing.assert_array_equal(fewer.keep.reshape(-1), KEEP & (np.arange(8) != 2))


def test_adding_twice_the_rows_that_were_taken_trebles_the_kept_ones():
    x, dy = numbers(3, 8, 2), numbers(3, 8, 2, seed=1)
    rows = pick_rows(jnp.asarray(KEEP), 2, 2)

    def block(x):
        return add_rows(x, take_rows(x, rows, 1), rows, 2.0, 1)

    factor = np.where(KEEP, 3, 1)[:, None].astype(np.float32)
    for y, of in zip(with_gradients(block, dy, x), (x, dy), strict=True):
        np.testing.assert_allclose(y, of * factor, rtol=1e-6)


@pytest.mark.parametrize("shape", [(8, 0), (8, 0, 3), (8, 3, 0)])
def test_rows_without_a_number_are_taken_and_added(shape):
    x, rows = jnp.ones(shape), pick_rows(jnp.asarray(KEEP), 2, 2)
    assert take_rows(x, rows, 0).shape == (4, *shape[1:])
    y, dx = with_gradients(lambda x: add_rows(x, take_rows(x, rows, 0), rows, 2.0, 0), x, x)
    assert y.shape == dx.shape == shape


def test_a_factor_of_one_changes_no_bit_of_a_kept_row():
    subnormal = np.float32(1e-45)  # XLA's product would make it 0
    x = np.full((8, 1), subnormal)
    np.testing.assert_array_equal(select(jnp.asarray(x), jnp.asarray(KEEP), 1.0, 0)[KEEP], x[KEEP])
    assert jax.device_get(select(jnp.asarray(x), jnp.asarray(KEEP), 1.0, 0))[~KEEP].max() == 0
