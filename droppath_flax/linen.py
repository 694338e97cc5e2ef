"""DropPath as a Flax Linen module, with the manners of linen.Dropout."""

import jax
from flax import linen as nn
from jax.typing import ArrayLike

from droppath.arguments import Mode, ScaleAt, check_mode, check_scale_at
from droppath_flax.functional import drop_path
from droppath_flax.masks import Key, Offset, Rate, check_rate


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
        check_mode(self.mode)
        check_scale_at(self.scale_at)
        check_rate(self.drop_prob)
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
        if self.deterministic is not None or deterministic is not None:
            evaluate = nn.merge_param("deterministic", self.deterministic, deterministic)
        else:
            evaluate = False
        drawn = isinstance(self.drop_prob, jax.Array) or self.drop_prob != 0  # EVAL-2
        # make_rng would fall back to the stream "params" in silence: then init and apply differ.
        stream = self.has_rng(self.rng_collection)
        if key is None and keep is None and not evaluate and drawn and stream:
            key = self.make_rng(self.rng_collection)
        return drop_path(
            x,
            self.drop_prob,
            key=key,
            keep=keep,
            deterministic=evaluate or self.is_initializing(),
            mode=self.mode,
            scale_by_keep=self.scale_by_keep,
            scale_at=self.scale_at,
            axis=self.axis,
            groups=self.groups,
            offset=offset,
        )
