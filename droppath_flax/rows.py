"""Which rows of a batch a branch runs on, and the two linear maps between batch and rows.

Gradients are gathers too: XLA scatters slowly, and adds where it need not. With the batch as
[groups, rows of a group, ...] each group is gathered for itself, so that a batch whose groups are
spread over devices stays where it is. Not here: the mask, and the branch.
"""

import math
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax


class Rows(NamedTuple):
    """The rows that run, `capacity` of each group: those kept, then dropped ones as spares.

    taken: int32 [groups, capacity], the rows within their group. place: int32 [groups, b], where
    among them a kept row is. keep: bool [groups, b]. real: bool [groups, capacity], not a spare.
    """

    taken: jax.Array
    place: jax.Array
    keep: jax.Array
    real: jax.Array


@partial(jax.jit, static_argnums=(1, 2), inline=True)
def pick_rows(keep: jax.Array, capacity: int, groups: int) -> Rows:
    """Return the rows that run, `capacity` of each group, for keep, bool [B].

    What a group keeps beyond its capacity is taken for dropped.
    """
    keep = keep.reshape(groups, -1)
    count = jnp.cumsum(keep, axis=1, dtype=jnp.int32)
    taken = jnp.argsort(~keep, axis=1, stable=True)[:, :capacity].astype(jnp.int32)
    place = jnp.clip(count - 1, 0, capacity - 1)
    real = lax.iota(jnp.int32, capacity) < count[:, -1:]
    return Rows(taken, place, keep & (count <= capacity), real)


def take_rows(x: jax.Array, rows: Rows, axis: int) -> jax.Array:
    """Return the rows of x that run: [..., B, ...] -> [..., groups * capacity, ...]."""
    floating = jnp.issubdtype(x.dtype, jnp.floating)
    return _take(x, rows, axis) if floating else _gather(x, rows.taken, axis)


@partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def add_rows(x: jax.Array, f: jax.Array, rows: Rows, s: float, axis: int) -> jax.Array:
    """Return x + s * f on the rows that are kept, x on the others (RES-1, RES-2, RES-3).

    x: [..., B, ...]. f: [..., groups * capacity, ...], of any floating dtype. Returns x's shape
    and dtype.
    """
    return select_sum(x, _gather(f, rows.place, axis), rows.keep, s, axis)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _take(x: jax.Array, rows: Rows, axis: int) -> jax.Array:
    return _gather(x, rows.taken, axis)


def _take_fwd(x: jax.Array, rows: Rows, axis: int) -> tuple[jax.Array, Rows]:
    return _gather(x, rows.taken, axis), rows


@partial(jax.jit, static_argnums=0, inline=True)
def _take_bwd(axis: int, rows: Rows, dr: jax.Array) -> tuple[jax.Array, None]:
    dx = _gather(dr, rows.place, axis)
    return where(rows.keep, dx, -jnp.zeros((), dx.dtype), axis), None


_take.defvjp(_take_fwd, _take_bwd)


def _add_rows_fwd(x: jax.Array, f: jax.Array, rows: Rows, s: float, axis: int) -> Any:
    return add_rows(x, f, rows, s, axis), (rows, jnp.zeros((), f.dtype))


@partial(jax.jit, static_argnums=1, inline=True)
def _add_rows_bwd(s: float, axis: int, saved: Any, dy: jax.Array) -> Any:
    rows, zero = saved
    df = (_gather(dy, rows.taken, axis).astype(compute_type(dy)) * s).astype(zero.dtype)
    return dy, where(rows.real, df, zero, axis), None


add_rows.defvjp(_add_rows_fwd, _add_rows_bwd)


def select(x: jax.Array, keep: jax.Array, s: float | jax.Array, axis: int) -> jax.Array:
    """Return x * s where keep, +0 elsewhere; one rounding to x's dtype (SCALE-1, DROP-1)."""
    unscaled = not isinstance(s, jax.Array) and s == 1
    return _select(x, keep, None if unscaled else s, axis)


@partial(jax.jit, static_argnums=3, inline=True)
def _select(x: jax.Array, keep: jax.Array, s: float | jax.Array | None, axis: int) -> jax.Array:
    y = x
    if s is not None:
        y = (x.astype(compute_type(x)) * jnp.asarray(s, compute_type(x))).astype(x.dtype)
    return where(keep, y, jnp.zeros((), x.dtype), axis)


@partial(jax.jit, static_argnums=4, inline=True)
def select_sum(
    x: jax.Array, f: jax.Array, keep: jax.Array, s: float | jax.Array, axis: int
) -> jax.Array:
    """Return x + s * f where keep, x elsewhere: one rounding to x's dtype (RES-1, RES-2, RES-3)."""
    return where(keep, scaled_sum(x, f, s), x, axis)


def scaled_sum(x: jax.Array, f: jax.Array, s: float | jax.Array) -> jax.Array:
    """Return x + s * f, formed in the compute type and rounded once."""
    compute = compute_type(x)
    return (x.astype(compute) + jnp.asarray(s, compute) * f.astype(compute)).astype(x.dtype)


@partial(jax.jit, static_argnums=3, inline=True)
def where(keep: jax.Array, x: jax.Array, other: Any, axis: int) -> jax.Array:
    """Return x where keep along an axis (MASK-1), other elsewhere."""
    return jnp.where(column(keep, x.ndim, axis), x, other)


def column(keep: jax.Array, ndim: int, axis: int) -> jax.Array:
    """Return keep, flattened, along one axis of ndim."""
    return jnp.expand_dims(keep.reshape(-1), [i for i in range(ndim) if i != axis])


def compute_type(x: jax.Array) -> np.dtype[Any]:
    """Return the compute type of SPEC.md: float64 for float64, else float32."""
    return np.dtype(np.float64 if x.dtype == np.float64 else np.float32)


def shards(x: jax.Array, axis: int) -> int:
    """Return how many devices share an axis of x, as its type says: 1 where the mesh is Auto."""
    sharding = jax.typeof(x).sharding
    names = sharding.spec[axis]
    names = (names,) if isinstance(names, str) else names or ()
    return math.prod(sharding.mesh.shape[name] for name in names)


@partial(jax.jit, static_argnums=2, inline=True)
def _gather(x: jax.Array, index: jax.Array, axis: int) -> jax.Array:
    """Return the rows `index` [groups, n] of each group of x: [..., groups * n, ...].

    Mapped over the groups, so that a device gathers from its own groups alone (DIST-2).
    """
    groups, count = index.shape
    size = x.shape[axis] // groups  # -1 could not tell it where an array holds no number
    grouped = x.reshape(*x.shape[:axis], groups, size, *x.shape[axis + 1 :])
    over = jax.typeof(grouped).sharding.spec[axis]
    if over is not None:  # an Explicit mesh: index goes where the groups are
        index = jax.sharding.reshard(index, jax.P(over))

    def take(group: jax.Array, rows: jax.Array) -> jax.Array:
        return group.at[(slice(None),) * axis + (rows,)].get(mode="promise_in_bounds")

    rows = jax.vmap(take, in_axes=(axis, 0), out_axes=axis)(grouped, index)
    return rows.reshape(*x.shape[:axis], groups * count, *x.shape[axis + 1 :])
