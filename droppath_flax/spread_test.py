"""The two maps of spread.py: bits of drop_path, gradients, and spares."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from droppath_flax import drop_path
from droppath_flax.rows import pick_rows
from droppath_flax.spread import Begun

KEEP = jnp.array([True, False, True, True, False, False])
B = len(KEEP)
KINDS = {
    "kept": (pick_rows(KEEP, 3, 1), 3),
    "kept and a spare": (pick_rows(KEEP, 4, 1), 4),
    "of two groups": (pick_rows(KEEP, 2, 2), 4),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("dtype", "axis"), [(jnp.float32, 0), (jnp.bfloat16, 1)])
def test_what_is_spread_are_the_bits_of_drop_path_and_so_is_its_gradient(kind, dtype, axis):
    rows, ran = KINDS[kind]
    begun, p = Begun(rows, B), 0.3
    x = jax.random.normal(jax.random.key(0), (B, 3)).astype(dtype)
    x = x.at[1].set(jnp.inf).at[4].set(-1.0)  # dropped
    x = x if axis == 0 else x.T
    assert begun.take(x, axis).shape[axis] == ran

    def spread(x):
        return begun.spread(begun.take(x, axis), 1 / (1 - p), axis)

    def masked(x):
        return drop_path(x, p, keep=KEEP, axis=axis)

    dy = jax.random.normal(jax.random.key(1), x.shape).astype(dtype)
    for got, want in zip(jax.vjp(spread, x), jax.vjp(masked, x), strict=True):
        if callable(got):
            (got,), (want,) = got(dy), want(dy)
            got, want = got + 0, want + 0  # a zero may have either sign
        np.testing.assert_array_equal(got, want)
        assert got.dtype == dtype
        assert (got != 0).any()


def test_another_number_of_rows_than_the_branch_began_with_is_refused():
    with pytest.raises(ValueError) as error:
        Begun(KINDS["kept"][0], B).spread(jnp.ones((4, 2)), 1.0, 0)
    text = "x must have the 3 rows that its branch began with, got (4, 2)"
    assert str(error.value) == text
