"""What the steps drew, drawn again from the key alone: no run ever stores a mask.

Not here: the training step itself, which draws as `kept` does, and pictures.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from droppath_flax import keep_mask
from examples.train_flax.config import Config
from examples.train_flax.model import rates_at
from examples.train_flax.step import stream


def kept(cfg: Config, steps: int, numbers: NDArray[Any]) -> NDArray[np.bool_]:
    """Return the masks of the steps `numbers`, int [n], from 0: bool [n, layers, batch].

    steps: of an epoch.
    """
    rates = jnp.array(rates_at(cfg, steps, numbers), jnp.float32)
    return np.asarray(_draw(stream(cfg, "masks"), jnp.asarray(numbers), rates, cfg))


@partial(jax.jit, static_argnums=3)
def _draw(key: jax.Array, numbers: jax.Array, rates: jax.Array, cfg: Config) -> jax.Array:
    def of_layer(step: jax.Array, layer: jax.Array, p: jax.Array) -> jax.Array:
        layer_key = jax.random.fold_in(jax.random.fold_in(key, step), layer)
        return keep_mask(layer_key, p, cfg.batch, mode=cfg.mode, groups=cfg.groups)

    of_step = jax.vmap(of_layer, (None, 0, 0))
    return jax.vmap(of_step, (0, None, 0))(numbers, jnp.arange(rates.shape[1]), rates)


def skipped_share(cfg: Config, steps: int, numbers: NDArray[Any]) -> float | None:
    """Return the share of branches and steps that the draw closed; None unless cfg.mode is "batch".

    Of the steps `numbers`, as `kept` takes them.

    A closed branch need not be computed; where samples are drawn one by one, some sample needs it.
    """
    if cfg.mode != "batch":
        return None
    return float((~kept(cfg, steps, numbers)[:, :, 0]).mean())


def depths(kept: NDArray[np.bool_], mode: str) -> NDArray[np.int_]:
    """Return the branches kept by each sample of each step; by each step if it draws but once."""
    return kept.sum(1)[:, 0] if mode == "batch" else kept.sum(1).ravel()
