"""A small vision transformer whose 2 * depth residual branches are each dropped by their own mask.

Dosovitskiy et al. 2021 without a class token: patches, positions, attention and MLP by turns, each
behind a LayerNorm, then the mean over the patches. A branch treats each image by itself, so that in
"balanced" mode `DropPathResidual` runs it on the images that are kept (and at most one more of each
group, whose result is discarded). Under a plan a layer is a block, attention and MLP, which runs on
the whole batch or not at all. Not here: dropout of another kind.

Source: arXiv 2010.11929 (section 3.1), arXiv 2205.01580 (mean in place of a class token).
"""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx

from droppath_flax import DropPathResidual
from examples.train_flax.config import Config
from examples.train_flax.devices import keep_split
from examples.train_flax.planned import Planned
from examples.train_flax.resnet import normal


class ViT(nnx.Module):
    """images [B, H, W, C] float -> logits [B, classes] float32."""

    def __init__(
        self,
        cfg: Config,
        rates: Sequence[float],
        image_shape: Sequence[int],
        classes: int,
        rngs: nnx.Rngs,
    ):
        h, w, channels = image_shape
        tokens = (h // cfg.patch) * (w // cfg.patch)
        self.patch, self.dtype = cfg.patch, jnp.dtype(cfg.dtype)
        self.embed = linear(cfg.patch**2 * channels, cfg.width, cfg, rngs)
        self.position = nnx.Param(normal(0.02)(rngs.params(), (tokens, cfg.width)))
        if cfg.mode == "plan":
            planned = Planned(partial(Block, cfg), rates, cfg, rngs)
            self.residuals = nnx.List[Planned | DropPathResidual]([planned])
        else:
            self.residuals = nnx.List[Planned | DropPathResidual](
                DropPathResidual(
                    (Mlp if layer % 2 else Attention)(cfg, rngs),
                    drop_prob,
                    mode=cfg.drop_mode,
                    skip=None if cfg.skip else False,
                    scale_at=cfg.scale_at,
                    groups=cfg.groups,
                )
                for layer, drop_prob in enumerate(rates)
            )
        self.norm = nnx.LayerNorm(cfg.width, dtype=jnp.float32, rngs=rngs)
        self.head = nnx.Linear(cfg.width, classes, kernel_init=normal(0.02), rngs=rngs)

    def __call__(self, x: jax.Array, *, key: jax.Array | None = None) -> jax.Array:
        """key: the step's, needed to train; branch l uses fold_in(key, l)."""
        x = self.embed(patches(x, self.patch))  # [B, tokens, width]
        x = x + self.position[...].astype(self.dtype)
        for layer, residual in enumerate(self.residuals):
            x = residual(x, key=None if key is None else jax.random.fold_in(key, layer))
        return self.head(self.norm(x).mean(1))  # [B, classes]


class Attention(nnx.Module):
    """x -> LayerNorm, attention among the patches of an image: [n, tokens, width], the same."""

    def __init__(self, cfg: Config, rngs: nnx.Rngs):
        self.heads = cfg.heads
        self.norm = nnx.LayerNorm(cfg.width, dtype=cfg.dtype, rngs=rngs)
        self.qkv = linear(cfg.width, 3 * cfg.width, cfg, rngs)
        self.out = linear(cfg.width, cfg.width, cfg, rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        qkv = self.qkv(self.norm(keep_split(x)))  # [n, tokens, 3 * width]
        q, k, v = jnp.split(qkv.reshape(*x.shape[:2], 3 * self.heads, -1), 3, axis=2)
        return keep_split(self.out(jax.nn.dot_product_attention(q, k, v).reshape(x.shape)))


class Mlp(nnx.Module):
    """x -> LayerNorm, linear, GELU, linear, four times as wide between: [n, tokens, width]."""

    def __init__(self, cfg: Config, rngs: nnx.Rngs):
        self.norm = nnx.LayerNorm(cfg.width, dtype=cfg.dtype, rngs=rngs)
        self.up = linear(cfg.width, 4 * cfg.width, cfg, rngs)
        self.down = linear(4 * cfg.width, cfg.width, cfg, rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return keep_split(self.down(nnx.gelu(self.up(self.norm(keep_split(x))))))


class Block(nnx.Module):
    """x -> what attention and then MLP add to x: a layer under a plan, [n, tokens, width]."""

    def __init__(self, cfg: Config, rngs: nnx.Rngs):
        self.attention, self.mlp = Attention(cfg, rngs), Mlp(cfg, rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        f = self.attention(x)
        return f + self.mlp(x + f)


def patches(x: jax.Array, size: int) -> jax.Array:
    """Cut images [B, H, W, C] into squares, row by row: [B, H/size * W/size, size * size * C]."""
    b, h, w, c = x.shape
    x = x.reshape(b, h // size, size, w // size, size, c).swapaxes(2, 3)
    return x.reshape(b, -1, size * size * c)


def linear(c_in: int, c_out: int, cfg: Config, rngs: nnx.Rngs) -> nnx.Linear:
    return nnx.Linear(c_in, c_out, kernel_init=normal(0.02), dtype=cfg.dtype, rngs=rngs)
