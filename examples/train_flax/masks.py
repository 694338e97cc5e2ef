"""What the steps drew, drawn again from the key alone: no run ever stores a mask.

Not here: the training step itself, which draws as `kept` does, and pictures.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from droppath_flax import keep_mask, layer_plan
from examples.train_flax.config import Config
from examples.train_flax.model import joined, rates_at, stage_rates
from examples.train_flax.step import stream


def kept(cfg: Config, steps: int, numbers: NDArray[Any]) -> NDArray[np.bool_]:
    """Return the masks of the steps `numbers`, int [n], from 0: bool [n, layers, batch].

    steps: of an epoch.
    """
    if cfg.mode == "plan":
        runs = np.asarray(_plan(stream(cfg, "masks"), jnp.asarray(numbers), cfg))
        return np.repeat(runs[:, :, None], cfg.batch, axis=2)
    rates = jnp.array(rates_at(cfg, steps, numbers), jnp.float32)
    return np.asarray(_draw(stream(cfg, "masks"), jnp.asarray(numbers), rates, cfg))


@partial(jax.jit, static_argnums=3)
def _draw(key: jax.Array, numbers: jax.Array, rates: jax.Array, cfg: Config) -> jax.Array:
    def of_layer(step: jax.Array, layer: jax.Array, p: jax.Array) -> jax.Array:
        layer_key = jax.random.fold_in(jax.random.fold_in(key, step), layer)
        return keep_mask(layer_key, p, cfg.batch, mode=cfg.drop_mode, groups=cfg.groups)

    of_step = jax.vmap(of_layer, (None, 0, 0))
    return jax.vmap(of_step, (0, None, 0))(numbers, jnp.arange(rates.shape[1]), rates)


@partial(jax.jit, static_argnums=2)
def _plan(key: jax.Array, numbers: jax.Array, cfg: Config) -> jax.Array:
    """Return which layers run in these steps: bool [n, layers]."""

    def of_step(step: jax.Array) -> jax.Array:
        plans = layer_plan(jax.random.fold_in(key, step), stage_rates(cfg))
        return jnp.stack(joined([[*plan] for plan in plans], jnp.array(True)))

    return jax.vmap(of_step)(numbers)


def skipped_share(cfg: Config, steps: int, numbers: NDArray[Any]) -> float | None:
    """Return the share of branches and steps that the draw closed; None if it draws samples.

    Of the steps `numbers`, as `kept` takes them.

    A closed branch need not be computed; where samples are drawn one by one, some sample needs it.
    """
    if not cfg.whole_batch:
        return None
    return float((~kept(cfg, steps, numbers)[:, :, 0]).mean())


def depths(kept: NDArray[np.bool_], whole_batch: bool) -> NDArray[np.int_]:
    """Return the branches kept by each sample of each step; by each step if all keep the same."""
    return kept.sum(1)[:, 0] if whole_batch else kept.sum(1).ravel()
