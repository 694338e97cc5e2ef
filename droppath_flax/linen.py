"""DropPath and DropPathResidual as Flax Linen modules, with the manners of linen.Dropout."""

from typing import Any

import jax
from flax import linen as nn
from jax.typing import ArrayLike

from droppath.arguments import (
    Mode,
    ScaleAt,
    check_callable,
    check_flags,
    check_options,
    check_skip,
    check_source,
)
from droppath_flax.functional import drop_path, is_zero
from droppath_flax.masks import Key, Offset, Rate, check_rate
from droppath_flax.residual import Branch, drop_path_residual
from droppath_flax.streams import check_collection


class DropPath(nn.Module):
    """Drop whole samples of a residual branch in training: the twin of `droppath_flax.DropPath`.

    Attributes as there. Without a key it draws from the stream `rng_collection`; under `nn.scan`
    that takes `split_rngs={"dropout": True}`, else all layers share one mask.

    >>> import jax.numpy as jnp
    >>> DropPath(0.5).apply({}, jnp.ones(4), key=jax.random.key(0))
    Array([2., 2., 0., 0.], dtype=float32)
    """

    drop_prob: Rate = 0.0
    scale_by_keep: bool = True
    mode: Mode = "row"
    scale_at: ScaleAt = "train"
    axis: int = 0
    groups: int = 1
    deterministic: bool | None = None
    rng_collection: str = "dropout"

    def __post_init__(self) -> None:
        _check(self)
        super().__post_init__()

    @nn.compact
    def __call__(
        self,
        x: ArrayLike,
        *,
        key: Key | None = None,
        keep: ArrayLike | None = None,
        offset: Offset = 0,
        deterministic: bool | None = None,
    ) -> jax.Array:
        """Return x with dropped samples set to zero: floating [..., B, ...], same shape and dtype.

        `deterministic` is given here or as the attribute, not both, False if in neither. Raises
        ValueError in training with drop_prob > 0 if there is no key, no keep and no stream.
        """
        evaluate = _evaluates(self, deterministic)
        return drop_path(
            x,
            self.drop_prob,
            key=_draw_key(self, key, keep, evaluate),
            keep=keep,
            deterministic=evaluate,
            mode=self.mode,
            scale_by_keep=self.scale_by_keep,
            scale_at=self.scale_at,
            axis=self.axis,
            groups=self.groups,
            offset=offset,
        )


class DropPathResidual(nn.Module):
    """A residual block whose dropped samples are not computed: `x + drop_path(branch(x))`.

    Attributes as in `droppath_flax.DropPathResidual`; the branch is a Linen module or a function.

    >>> import jax.numpy as jnp
    >>> DropPathResidual(jnp.negative, 0.5).apply({}, jnp.ones(4), key=jax.random.key(0))
    Array([ 1., -1.,  1., -1.], dtype=float32)
    """

    branch: Branch
    drop_prob: Rate = 0.0
    scale_by_keep: bool = True
    mode: Mode = "balanced"
    skip: bool | None = None
    scale_at: ScaleAt = "train"
    axis: int = 0
    groups: int = 1
    deterministic: bool | None = None
    rng_collection: str = "dropout"

    def __post_init__(self) -> None:
        _check(self)
        check_callable(self.branch)
        check_skip(self.skip)
        super().__post_init__()

    @nn.compact
    def __call__(
        self,
        x: ArrayLike,
        *per_sample: Any,
        key: Key | None = None,
        keep: ArrayLike | None = None,
        offset: Offset = 0,
        deterministic: bool | None = None,
    ) -> jax.Array:
        """Return x, and on kept samples what the branch adds: x's shape and dtype.

        per_sample: further arguments of the branch, pytrees of arrays [B, ...]. Others as in
        `DropPath`.
        """
        evaluate = _evaluates(self, deterministic)
        return drop_path_residual(
            x,
            self.branch,
            self.drop_prob,
            *per_sample,
            key=_draw_key(self, key, keep, evaluate),
            keep=keep,
            deterministic=evaluate,
            mode=self.mode,
            skip=self.skip,
            scale_by_keep=self.scale_by_keep,
            scale_at=self.scale_at,
            axis=self.axis,
            groups=self.groups,
            offset=offset,
        )


def _check(module: DropPath | DropPathResidual) -> None:
    check_options(module.mode, module.scale_at, module.axis, module.groups)
    check_rate(module.drop_prob)
    check_flags(scale_by_keep=module.scale_by_keep)
    if module.deterministic is not None:
        check_flags(deterministic=module.deterministic)
    check_collection(module.rng_collection)


def _evaluates(module: DropPath | DropPathResidual, deterministic: bool | None) -> bool:
    """Return whether a call is one of evaluation, as each is while variables are made."""
    if deterministic is not None:
        check_flags(deterministic=deterministic)
    elif module.deterministic is None:
        return module.is_initializing()
    evaluate = nn.merge_param("deterministic", module.deterministic, deterministic)
    return evaluate or module.is_initializing()


def _draw_key(
    module: DropPath | DropPathResidual,
    key: Key | None,
    keep: ArrayLike | None,
    evaluate: bool,
) -> Key | None:
    """Return the key of a call: the given one, or one that is drawn if need be."""
    identity = is_zero(module.drop_prob)  # EVAL-2
    if key is not None or keep is not None or evaluate or identity:
        return key
    # make_rng would fall back to the stream "params" in silence: then init and apply differ.
    name = module.rng_collection
    check_source(module.has_rng(name) or None, f'keep, or rngs={{"{name}": key}} to apply')
    return module.make_rng(name)
