"""Which network a config names, and the drop_prob of each of its residual branches.

The networks are in resnet.py and vit.py. Whatever they are: images [B, H, W, C] and the step's key
give logits [B, classes], and branch l draws from fold_in(key, l).
"""

from collections.abc import Sequence

import jax
from flax import nnx

from droppath import drop_path_rates
from examples.train_flax.config import Config
from examples.train_flax.resnet import ResNet
from examples.train_flax.vit import ViT


def build_model(
    cfg: Config, image_shape: Sequence[int], classes: int, key: jax.Array
) -> ResNet | ViT:
    """The network of cfg for images [H, W, C]; equal keys give equal weights at every rate."""
    rates, rngs = layer_rates(cfg), nnx.Rngs(key)
    if cfg.network == "vit":
        return ViT(cfg, rates, image_shape, classes, rngs)
    return ResNet(cfg, rates, image_shape[-1], classes, rngs)


def layer_rates(cfg: Config) -> list[float]:
    """The drop_prob of each residual branch, first to last.

    A ResNet has one branch a block, in three stages of (depth - 2) / 6 blocks; a ViT has two a
    block, attention and MLP, with the same drop_prob.
    """
    if cfg.network == "vit":
        rates = drop_path_rates(cfg.drop_path_rate, cfg.depth, rule=cfg.rule)
        return [rate for rate in rates for _ in range(2)]
    return drop_path_rates(cfg.drop_path_rate, (cfg.depth - 2) // 2, rule=cfg.rule)


def title(cfg: Config) -> str:
    """The network's name with its depth, for plots and tables."""
    names = {"preresnet": "pre-activation ResNet", "resnet": "ResNet", "vit": "ViT"}
    return f"{names[cfg.network]}-{cfg.depth}"
