"""The optimizer of a run: its learning rate over the steps, momentum and weight decay.

Source: Huang et al. 2016, arXiv 1603.09382, section 4; timm for what AdamW does not decay.
"""

from functools import partial
from typing import Any

import jax
import optax

from examples.train_flax.config import Config


def learning_rate(cfg: Config, steps: int) -> optax.Schedule:
    """The rate at each step of cfg.epochs epochs of so many steps, warm-up included."""
    total, warmup = cfg.epochs * steps, cfg.warmup_epochs * steps
    if cfg.schedule == "steps":  # of the whole run, as Huang et al. 2016 count
        tenths = {total // 2 - warmup: 0.1, total * 3 // 4 - warmup: 0.1}
        after = optax.piecewise_constant_schedule(cfg.learning_rate, tenths)
    else:
        after = optax.cosine_decay_schedule(cfg.learning_rate, total - warmup)
    if not warmup:
        return after
    rise = optax.linear_schedule(0, cfg.learning_rate, warmup)
    return optax.join_schedules([rise, after], [warmup])


def optimizer(cfg: Config, steps: int) -> optax.GradientTransformation:
    rate = learning_rate(cfg, steps)
    if cfg.optimizer == "adamw":  # no decay of what shifts and scales, as timm has it
        matrices = partial(jax.tree.map_with_path, is_matrix)
        return optax.adamw(rate, weight_decay=cfg.weight_decay, mask=matrices)
    return optax.chain(
        optax.add_decayed_weights(cfg.weight_decay),  # on all parameters, as the authors do
        optax.sgd(rate, cfg.momentum, nesterov=True),
    )


def is_matrix(path: Any, leaf: jax.Array) -> bool:
    """Whether a parameter is a matrix; layers under a plan are stacked along one more axis."""
    stacked = any(getattr(key, "key", None) == "layers" for key in path)
    return leaf.ndim - stacked > 1
