"""Each method in JAX: a residual block around a branch, and the plain op where it has one.

Nobody ships them as layers of Flax, so that the peers' methods are written anew. torchtune's is not
here: how many rows it runs is known only when they are drawn, and no program can be compiled.
"""

from collections.abc import Callable
from functools import cache, partial
from typing import TypeAlias

import jax
import jax.numpy as jnp
from flax import nnx

from droppath_flax import DropPath, DropPathResidual

Branch: TypeAlias = Callable[[jax.Array], jax.Array]
Layer: TypeAlias = Callable[..., jax.Array]  # of x and key

ABSENT = ("torchvision", "torchtune", "row-skip")


def op(method: str, drop_prob: float) -> Layer:
    """Return (x, key) -> drop_path(x); for "none" a copy. Raises KeyError if it has none."""
    ours = {mode: partial(DropPath, drop_prob, mode=mode) for mode in ("row", "balanced", "batch")}
    makers: dict[str, Callable[[], Layer]] = {
        "none": Copy,
        "timm": partial(ScaledMask, drop_prob),
        **ours,
    }
    return makers[method]()


def residual(method: str, branch: Branch, drop_prob: float) -> Layer:
    """Return (x, key) -> x + drop_path(branch(x)). Raises KeyError for what there is not."""
    makers: dict[str, Callable[[], Layer]] = {
        "none": partial(Residual, branch, None),
        "timm": partial(Residual, branch, ScaledMask(drop_prob)),
        "dinov2": partial(Subset, branch, drop_prob),
        "row": partial(Residual, branch, DropPath(drop_prob)),
        "balanced": partial(DropPathResidual, branch, drop_prob),
        "batch": partial(DropPathResidual, branch, drop_prob, mode="batch"),
    }
    return makers[method]()


class Residual(nnx.Module):
    """x -> x + op(branch(x)): the branch runs on all samples."""

    def __init__(self, branch: Branch, op: Layer | None) -> None:
        self.branch, self.op = branch, op

    def __call__(self, x: jax.Array, *, key: jax.Array) -> jax.Array:
        f = self.branch(x)
        return x + (f if self.op is None else self.op(f, key=key))


class ScaledMask(nnx.Module):
    """timm's method: x times a mask, which is 1 / (1 - drop_prob) or 0, of x's dtype."""

    def __init__(self, drop_prob: float) -> None:
        self.keep_prob = 1 - drop_prob

    def __call__(self, x: jax.Array, *, key: jax.Array) -> jax.Array:
        keep = jax.random.bernoulli(key, self.keep_prob, (len(x),) + (1,) * (x.ndim - 1))
        return x * (keep.astype(x.dtype) / self.keep_prob)


class Subset(nnx.Module):
    """DINOv2's method: the branch runs on B * (1 - drop_prob) samples, rounded down, at least one.

    Source: arXiv 2304.07193, section 5.
    """

    def __init__(self, branch: Branch, drop_prob: float) -> None:
        self.branch, self.keep_prob = branch, 1 - drop_prob

    def __call__(self, x: jax.Array, *, key: jax.Array) -> jax.Array:
        kept = max(int(len(x) * self.keep_prob), 1)
        rows = jax.random.permutation(key, len(x))[:kept]
        f = self.branch(x[rows])
        return x.at[rows].add((len(x) / kept * f).astype(x.dtype))


class Copy(nnx.Module):
    """x -> a copy of x, and of the gradient: what any op that writes its result must move."""

    def __call__(self, x: jax.Array, *, key: jax.Array) -> jax.Array:
        return jnp.copy(x)


@cache
def realised_rate(method: str, drop_prob: float, batch: int, draws: int) -> float:
    """Return the share of samples dropped in `draws` draws: those to which ones are not added."""
    layer = residual(method, jnp.ones_like, drop_prob)

    @jax.jit
    @jax.vmap
    def draw(key: jax.Array) -> jax.Array:
        return layer(jnp.zeros((batch, 1)), key=key) == 0

    return int(draw(jax.random.split(jax.random.key(0), draws)).sum()) / (batch * draws)
