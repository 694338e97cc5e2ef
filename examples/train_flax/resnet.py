"""Residual networks of depth 6n + 2 whose residual branches are dropped at random.

"preresnet" is the pre-activation network of He et al. 2016: BN, ReLU, conv, BN, ReLU, conv, then
the addition. "resnet" is the one of Huang et al. 2016 and their code: conv, BN, ReLU, conv, BN, the
addition, then ReLU. What droppath_flax does is not repeated here: a block hands its branch to a
`DropPathResidual`, once. Shortcuts have no parameters (2x2 average, channels filled up with zeros).
This file does not choose a key or a step: the caller gives one key for each step.

Source: arXiv 1603.05027 (figure 4e), arXiv 1603.09382 (section 3),
github.com/yueatsprograms/Stochastic_Depth (main.lua, ResidualDrop.lua).
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from droppath_flax import DropPathResidual
from examples.train_flax.config import Config
from examples.train_flax.devices import keep_split
from examples.train_flax.planned import Planned


class ResNet(nnx.Module):
    """images [B, H, W, C] float -> logits [B, classes] float32."""

    def __init__(
        self, cfg: Config, rates: Sequence[float], channels: int, classes: int, rngs: nnx.Rngs
    ):
        self.dtype = jnp.dtype(cfg.dtype)
        self.norm_first = cfg.network == "resnet"
        self.stem = Conv3x3(channels, cfg.width, 1, cfg, rngs)
        n, c_in = len(rates) // 3, 4 * cfg.width
        if cfg.mode == "plan":
            stages = [Stage(s, rates[s * n :][:n], cfg, rngs) for s in range(3)]
            self.blocks = nnx.List[Block | Stage](stages)
        else:
            self.blocks = nnx.List[Block | Stage](
                Block(*sizes(*divmod(layer, n), cfg), drop_prob, cfg, rngs)
                for layer, drop_prob in enumerate(rates)
            )
        self.norm = batch_norm(cfg.width if self.norm_first else c_in, cfg, rngs)
        self.head = nnx.Linear(c_in, classes, kernel_init=normal(c_in**-0.5), rngs=rngs)

    def __call__(self, x: jax.Array, *, key: jax.Array | None = None) -> jax.Array:
        """key: the step's, needed to train; layer l uses fold_in(key, l)."""
        x = self.stem(x.astype(self.dtype))  # [B, H, W, width]
        x = nnx.relu(self.norm(x)) if self.norm_first else x
        for layer, block in enumerate(self.blocks):
            x = block(x, key=None if key is None else jax.random.fold_in(key, layer))
        x = x if self.norm_first else nnx.relu(self.norm(x))  # [B, H/4, W/4, 4 * width]
        return self.head(x.astype(jnp.float32).mean((1, 2)))  # [B, classes]


def sizes(stage: int, block: int, cfg: Config) -> tuple[int, int, int]:
    """The channels that a block of a stage gets, those that it gives, and its stride."""
    c_out = cfg.width * 2**stage
    return (c_out // 2, c_out, 2) if stage and not block else (c_out, c_out, 1)


class Block(nnx.Module):
    """x -> shortcut(x) + drop_path(branch(x)), and in a "resnet" ReLU of that."""

    def __init__(
        self, c_in: int, c_out: int, stride: int, drop_prob: float, cfg: Config, rngs: nnx.Rngs
    ):
        branch = BRANCHES[cfg.network](c_in, c_out, stride, cfg, rngs)
        # BatchNorm sees the rows that run: all, in "balanced" those kept, in "batch" all or none.
        self.residual = DropPathResidual(
            branch,
            drop_prob,
            mode=cfg.drop_mode,
            skip=None if cfg.skip else False,
            scale_at=cfg.scale_at,
            groups=cfg.groups,
        )
        self.relu_after = cfg.network == "resnet"
        self.c_out, self.stride = c_out, stride

    def __call__(self, x: jax.Array, *, key: jax.Array | None) -> jax.Array:
        y = self.residual(shortcut(x, self.stride, self.c_out), x, key=key)
        return nnx.relu(y) if self.relu_after else y


class Stage(nnx.Module):
    """A stage under a plan: in a later one a block with a stride, of rate 0, then those alike."""

    def __init__(self, stage: int, rates: Sequence[float], cfg: Config, rngs: nnx.Rngs):
        self.first = Block(*sizes(stage, 0, cfg), rates[0], cfg, rngs) if stage else None
        alike = rates[1:] if stage else rates
        layer = partial(Added, cfg.width * 2**stage, cfg)
        self.rest = Planned(layer, alike, cfg, rngs) if alike else None

    def __call__(self, x: jax.Array, *, key: jax.Array | None) -> jax.Array:
        x = x if self.first is None else self.first(x, key=None)
        return x if self.rest is None else self.rest(x, key=key)


class Added(nnx.Module):
    """x -> what a block adds to x, a layer under a plan.

    In a "resnet" that is ReLU(x + branch(x)) - x, so that the factor is on the whole block. The
    paper's 1 - p in evaluation is on the branch: it differs where x + branch(x) is negative.
    """

    def __init__(self, channels: int, cfg: Config, rngs: nnx.Rngs):
        self.branch = BRANCHES[cfg.network](channels, channels, 1, cfg, rngs)
        self.relu_after = cfg.network == "resnet"

    def __call__(self, x: jax.Array) -> jax.Array:
        f = self.branch(x, x)
        return nnx.relu(x + f) - x if self.relu_after else f


class PreActivationBranch(nnx.Module):
    """x -> BN, ReLU, conv, BN, ReLU, conv; what comes first, the shortcut of x, is not used."""

    def __init__(self, c_in: int, c_out: int, stride: int, cfg: Config, rngs: nnx.Rngs):
        self.norm1 = batch_norm(c_in, cfg, rngs)
        self.conv1 = Conv3x3(c_in, c_out, stride, cfg, rngs)
        self.norm2 = batch_norm(c_out, cfg, rngs)
        self.conv2 = Conv3x3(c_out, c_out, 1, cfg, rngs)

    def __call__(self, _: jax.Array, x: jax.Array) -> jax.Array:
        f = self.conv1(nnx.relu(self.norm1(keep_split(x))))
        return keep_split(self.conv2(nnx.relu(self.norm2(f))))


class PostActivationBranch(nnx.Module):
    """x -> conv, BN, ReLU, conv, BN; what comes first, the shortcut of x, is not used."""

    def __init__(self, c_in: int, c_out: int, stride: int, cfg: Config, rngs: nnx.Rngs):
        self.conv1 = Conv3x3(c_in, c_out, stride, cfg, rngs)
        self.norm1 = batch_norm(c_out, cfg, rngs)
        self.conv2 = Conv3x3(c_out, c_out, 1, cfg, rngs)
        self.norm2 = batch_norm(c_out, cfg, rngs)

    def __call__(self, _: jax.Array, x: jax.Array) -> jax.Array:
        f = nnx.relu(self.norm1(self.conv1(keep_split(x))))
        return keep_split(self.norm2(self.conv2(f)))


BRANCHES = {"preresnet": PreActivationBranch, "resnet": PostActivationBranch}


def shortcut(x: jax.Array, stride: int, c_out: int) -> jax.Array:
    """x itself, or [B, H, W, C] averaged over stride x stride and filled up with zero channels."""
    if stride > 1:
        x = nnx.avg_pool(x, (stride, stride), strides=(stride, stride))
    return jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, c_out - x.shape[-1])))


class Conv3x3(nnx.Module):
    """A 3x3 convolution, zeros around: [B, H, W, c_in] -> [B, H', W', c_out].

    A "resnet" starts from Kaiming's fan-in and has a bias, as its authors' code; a "preresnet" from
    fan-out, and has none.
    """

    def __init__(self, c_in: int, c_out: int, stride: int, cfg: Config, rngs: nnx.Rngs):
        fan = c_in if cfg.network == "resnet" else c_out
        kaiming = normal((2 / (9 * fan)) ** 0.5)  # He et al. 2015, arXiv 1502.01852, section 2.2
        self.kernel = nnx.Param(kaiming(rngs.params(), (3, 3, c_in, c_out)))
        self.bias = nnx.Param(jnp.zeros(c_out)) if cfg.network == "resnet" else None
        self.stride = stride
        self.deterministic = False  # set by train() and eval()

    def __call__(self, x: jax.Array) -> jax.Array:
        way = convolve_by_xla if self.deterministic else convolve
        y = way(x, self.kernel[...].astype(x.dtype), self.stride)
        return y if self.bias is None else y + self.bias[...].astype(x.dtype)


def normal(std: float) -> Callable[..., jax.Array]:
    """An initializer; it draws flat, since XLA takes seconds to compile a draw of more axes."""

    def draw(key: jax.Array, shape: Sequence[int], dtype: Any = jnp.float32) -> jax.Array:
        return std * jax.random.normal(key, (math.prod(shape),), dtype).reshape(shape)

    return draw


def convolve(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """A convolution that is fast to differentiate wherever the program is compiled for.

    XLA's CPU has no fast gradient of one inside lax.scan: 10 times slower, or more.
    """
    ways = {"cpu": convolve_by_matmul, "default": convolve_by_xla}
    at_stride = {platform: partial(way, stride=stride) for platform, way in ways.items()}
    return jax.lax.platform_dependent(x, kernel, **at_stride)


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


def batch_norm(channels: int, cfg: Config, rngs: nnx.Rngs) -> nnx.BatchNorm:
    """Momentum 0.9 is the paper's 0.1 in Torch's terms; Torch drew the scales from [0, 1)."""
    drawn = cfg.network == "resnet"
    scale_init = nnx.initializers.uniform(1.0) if drawn else nnx.initializers.ones
    return nnx.BatchNorm(channels, momentum=0.9, dtype=cfg.dtype, scale_init=scale_init, rngs=rngs)
