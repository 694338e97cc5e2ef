"""Layers of one form under a plan: whole layers are dropped, and as many run in every step.

Their parameters and statistics are arrays [L, ...], which `drop_path_stack` gathers and scans over.
Not here: what a layer is, which resnet.py and vit.py say.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
from flax import nnx

from droppath_flax import drop_path_stack
from examples.train_flax.config import Config


class Planned(nnx.Module):
    """x -> x after layers that are alike, of which a plan runs some in training."""

    def __init__(
        self,
        make: Callable[[nnx.Rngs], nnx.Module],
        rates: Sequence[float],
        cfg: Config,
        rngs: nnx.Rngs,
    ):
        """make: gives a layer, x -> what it adds to x. rates: the drop_prob of each."""
        split = nnx.split_rngs(splits=len(rates))
        self.layers = split(nnx.vmap(make, in_axes=0, out_axes=0))(rngs)
        self.rates, self.scale_at = tuple(rates), cfg.scale_at
        self.deterministic = False  # set by train() and eval()

    def __call__(self, x: jax.Array, *, key: jax.Array | None) -> jax.Array:
        graphdef, params, *states = nnx.split(self.layers, nnx.Param, ...)

        def branch(params: Any, state: Any, x: jax.Array) -> tuple[jax.Array, Any]:
            layer = nnx.merge(graphdef, params, state, copy=True)
            return layer(x), nnx.state(layer, nnx.Not(nnx.Param))

        x, after = drop_path_stack(
            x,
            branch,
            params,
            self.rates,
            state=states[0],
            key=key,
            deterministic=self.deterministic,
            scale_at=self.scale_at,
        )
        if not self.deterministic:
            nnx.update(self.layers, after)  # BatchNorm's statistics, of the layers that ran
        return x
