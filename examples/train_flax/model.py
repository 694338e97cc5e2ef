"""Which network a config names, and the drop_prob of each of its residual branches.

The networks are in resnet.py and vit.py. Whatever they are: images [B, H, W, C] and the step's key
give logits [B, classes], and branch l draws from fold_in(key, l).
"""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from flax import nnx
from numpy.typing import NDArray

from droppath import drop_path_rates, ramp
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
    block, attention and MLP, with the same drop_prob. Under a plan a layer is a whole block of it.
    """
    if cfg.mode == "plan":
        return joined(stage_rates(cfg), 0.0)
    if cfg.network == "vit":
        rates = drop_path_rates(cfg.drop_path_rate, cfg.depth, rule=cfg.rule)
        return [rate for rate in rates for _ in range(2)]
    return drop_path_rates(cfg.drop_path_rate, (cfg.depth - 2) // 2, rule=cfg.rule)


def stage_rates(cfg: Config) -> list[list[float]]:
    """The drop_prob of each layer under a plan, for each plan: their sums are whole numbers.

    A ViT has one plan. A ResNet has one for each stage, whose layers are alike but for the first
    one of a later stage, which has a stride: it runs in every step.
    """
    if cfg.network == "vit":
        return drop_path_rates(cfg.drop_path_rate, [cfg.depth], rule=cfg.rule, whole=True)
    n = (cfg.depth - 2) // 6
    depths = [n, 1, n - 1, 1, n - 1]
    return drop_path_rates(cfg.drop_path_rate, depths, rule=cfg.rule, whole=True)[::2]


def joined(stages: Sequence[Sequence[Any]], first: Any) -> list[Any]:
    """What stages have for each layer under a plan, in one list.

    first: what the first block of a later stage has, which no plan is for.
    """
    later = [each for stage in stages[1:] for each in (first, *stage)]
    return [*stages[0], *later]


def rates_at(cfg: Config, steps: int, numbers: NDArray[Any]) -> NDArray[np.float64]:
    """The drop_prob of each branch at the steps `numbers`, int [n], from 0: float64 [n, layers].

    steps: of an epoch.
    """
    return ramp_at(cfg, steps, numbers)[:, None] * np.array(layer_rates(cfg))


def mean_rates(cfg: Config, steps: int, numbers: NDArray[Any]) -> list[float]:
    """The drop_prob of each branch, the mean over the steps `numbers`, int [n]."""
    share = float(ramp_at(cfg, steps, numbers).mean())
    return [share * rate for rate in layer_rates(cfg)]


def ramp_at(cfg: Config, steps: int, numbers: NDArray[Any]) -> NDArray[np.float64]:
    """The share of its full rate that each branch has at the steps `numbers`, int [n]: float64 [n].

    Early: 1 at step 0, then less by the same at each step, and 0 from `ramp_end` on. Late: 0 before
    `ramp_end`, and 1 from there on.

    Source: Liu et al. 2023, arXiv 2303.01500, whose code has a linear schedule for early and a
    constant one for late stochastic depth (github.com/facebookresearch/dropout).
    """
    end = end_of_ramp(cfg, steps)
    if cfg.ramp == "early":
        return ramp(numbers, begin=0, end=end, start=1.0, stop=0.0)
    if cfg.ramp == "late":
        return ramp(numbers, begin=end, end=end)
    return np.ones(len(numbers))


def end_of_ramp(cfg: Config, steps: int) -> int:
    """The first step, from 0, that early stochastic depth leaves whole, or that late one drops in.

    Like the learning rate it is a share of cfg.epochs epochs of so many steps, even if cfg.steps
    stops the run before.
    """
    return round(cfg.ramp_end * cfg.epochs * steps)


def title(cfg: Config) -> str:
    """The network's name with its depth, for plots and tables."""
    names = {"preresnet": "pre-activation ResNet", "resnet": "ResNet", "vit": "ViT"}
    return f"{names[cfg.network]}-{cfg.depth}"
