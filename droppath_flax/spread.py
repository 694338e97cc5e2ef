"""Rows taken from a batch for a branch, and put back among zeros, where others add to the stream.

`x + drop_path(branch(x))` adds outside of our reach. So what the branch makes of the rows that run
becomes a whole batch again: s * f on kept rows, +0 on the others (DROP-1, SCALE-1). The two maps
are each other's transpose, but for s. Not here: which rows run (rows.py).
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from droppath_flax.rows import Rows, select, take_rows


class Begun(NamedTuple):
    """A branch that has begun: which of `batch` rows run."""

    rows: Rows
    batch: int

    def take(self, x: ArrayLike, axis: int) -> jax.Array:
        """Return the rows of x that run: [..., B, ...] -> [..., n, ...]."""
        return take_rows(jnp.asarray(x), self.rows, axis)

    def spread(self, f: jax.Array, s: float, axis: int) -> jax.Array:
        """Return s * f on the rows that are kept, +0 elsewhere: [..., n, ...] -> [..., B, ...]."""
        ran = self.rows.taken.size
        if f.shape[axis] != ran:
            raise ValueError(
                f"x must have the {ran} rows that its branch began with, got {f.shape}"
            )
        return spread_rows(f, self.rows, s, axis)


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def spread_rows(f: jax.Array, rows: Rows, s: float, axis: int) -> jax.Array:
    """Return s * f where kept, +0 elsewhere, with one rounding to f's dtype."""
    back = take_rows(f, rows._replace(taken=rows.place), axis)
    return select(back, rows.keep, s, axis)


def _spread_fwd(f: jax.Array, rows: Rows, s: float, axis: int) -> tuple[jax.Array, Rows]:
    return spread_rows(f, rows, s, axis), rows


def _spread_bwd(s: float, axis: int, rows: Rows, dy: jax.Array) -> tuple[jax.Array, None]:
    return select(take_rows(dy, rows, axis), rows.real, s, axis), None


spread_rows.defvjp(_spread_fwd, _spread_bwd)
