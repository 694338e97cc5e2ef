"""A pre-activation ResNet of depth 6n + 2 whose residual branches are dropped at random.

He et al. 2016 give the block (BN, ReLU, conv, BN, ReLU, conv, then the addition), Huang et al. 2016
the stochastic depth. What droppath_flax does is not repeated here: a block hands its branch to a
`DropPath`, once. Shortcuts have no parameters (2x2 average, channels filled up with zeros).
This file does not choose a key or a step: the caller gives one key for each step.

Source: arXiv 1603.05027 (figure 4e), arXiv 1603.09382 (section 3).
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from droppath import drop_path_rates
from droppath_flax import DropPath
from examples.train_flax.config import Config


def build_model(cfg: Config, image_shape: Sequence[int], classes: int, key: jax.Array) -> "ResNet":
    """The network of cfg for images [H, W, C]; equal keys give equal weights at every rate."""
    return ResNet(cfg, image_shape[-1], classes, nnx.Rngs(key))


def layer_rates(cfg: Config) -> list[float]:
    """The drop_prob of each residual block, first to last: three stages of (depth - 2) / 6."""
    return drop_path_rates(cfg.drop_path_rate, (cfg.depth - 2) // 2, rule=cfg.rule)


class ResNet(nnx.Module):
    """images [B, H, W, C] float -> logits [B, classes] float32."""

    def __init__(self, cfg: Config, channels: int, classes: int, rngs: nnx.Rngs):
        self.stem = Conv3x3(channels, cfg.width, 1, rngs)
        rates = layer_rates(cfg)
        blocks, c_in = [], cfg.width
        for layer, drop_prob in enumerate(rates):
            stage, first = divmod(layer, len(rates) // 3)
            c_out, stride = cfg.width * 2**stage, 2 if stage and not first else 1
            blocks.append(Block(c_in, c_out, stride, drop_prob, cfg, rngs))
            c_in = c_out
        self.blocks = nnx.List(blocks)
        self.norm = batch_norm(c_in, rngs)
        self.head = nnx.Linear(c_in, classes, kernel_init=normal(c_in**-0.5), rngs=rngs)

    def __call__(self, x: jax.Array, *, key: jax.Array | None = None, train: bool) -> jax.Array:
        """key: the step's, needed to train; layer l uses fold_in(key, l)."""
        x = self.stem(x)  # [B, H, W, width]
        for layer, block in enumerate(self.blocks):
            layer_key = None if key is None else jax.random.fold_in(key, layer)
            x = block(x, key=layer_key, train=train)
        x = nnx.relu(self.norm(x, use_running_average=not train))  # [B, H/4, W/4, 4 * width]
        return self.head(x.mean((1, 2)))  # [B, classes]


class Block(nnx.Module):
    """x -> shortcut(x) + drop_path(f(x)), f = BN, ReLU, conv, BN, ReLU, conv."""

    def __init__(
        self, c_in: int, c_out: int, stride: int, drop_prob: float, cfg: Config, rngs: nnx.Rngs
    ):
        self.norm1 = batch_norm(c_in, rngs)
        self.conv1 = Conv3x3(c_in, c_out, stride, rngs)
        self.norm2 = batch_norm(c_out, rngs)
        self.conv2 = Conv3x3(c_out, c_out, 1, rngs)
        self.drop_path = DropPath(drop_prob, mode=cfg.mode, scale_at=cfg.scale_at)

    def __call__(self, x: jax.Array, *, key: jax.Array | None, train: bool) -> jax.Array:
        f = self.conv1(nnx.relu(self.norm1(x, use_running_average=not train)))
        f = self.conv2(nnx.relu(self.norm2(f, use_running_average=not train)))
        return shortcut(x, f.shape) + self.drop_path(f, key=key, deterministic=not train)


def shortcut(x: jax.Array, shape: Sequence[int]) -> jax.Array:
    """x itself, or [B, H, W, C] averaged over 2x2 and filled up with zero channels to shape."""
    if x.shape == tuple(shape):
        return x
    x = nnx.avg_pool(x, (2, 2), strides=(2, 2))
    return jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, shape[-1] - x.shape[-1])))


class Conv3x3(nnx.Module):
    """A 3x3 convolution without bias, zeros around: [B, H, W, c_in] -> [B, H', W', c_out]."""

    def __init__(self, c_in: int, c_out: int, stride: int, rngs: nnx.Rngs):
        kaiming = normal((2 / (9 * c_out)) ** 0.5)  # He et al. 2015, arXiv 1502.01852, eq. 14
        self.kernel = nnx.Param(kaiming(rngs.params(), (3, 3, c_in, c_out)))
        self.stride = stride

    def __call__(self, x: jax.Array) -> jax.Array:
        # Inside lax.scan, XLA's CPU convolutions fall back to a slow path: here, 10 times slower.
        convolve = convolve_by_matmul if jax.default_backend() == "cpu" else convolve_by_xla
        return convolve(x, self.kernel[...], self.stride)


def normal(std: float) -> Callable[..., jax.Array]:
    """An initializer; it draws flat, since XLA takes seconds to compile a draw of more axes."""

    def draw(key: jax.Array, shape: Sequence[int], dtype: Any = jnp.float32) -> jax.Array:
        return std * jax.random.normal(key, (math.prod(shape),), dtype).reshape(shape)

    return draw


def convolve_by_xla(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    return jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), ((1, 1), (1, 1)), dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def convolve_by_matmul(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """The same sum of products: nine shifted copies of x side by side, times the flat kernel."""
    _, h, w, _ = x.shape
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    shifted = [
        padded[:, i : i + h : stride, j : j + w : stride] for i in range(3) for j in range(3)
    ]
    return jnp.concatenate(shifted, -1) @ kernel.reshape(-1, kernel.shape[-1])


def batch_norm(channels: int, rngs: nnx.Rngs) -> nnx.BatchNorm:
    return nnx.BatchNorm(channels, momentum=0.9, rngs=rngs)  # the paper's 0.1 in Torch's terms
