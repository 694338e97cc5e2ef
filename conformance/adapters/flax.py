"""droppath_flax behind the protocol, eager or jitted, on any device."""

from importlib.metadata import version
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import droppath
from conformance.protocol import Backend, Call, Info, Outcome
from droppath_flax import drop_path, keep_mask

CLAIMS = "gradient recompute keyed stateless keep batch balanced axis scale_by_keep scale_at model"


class Flax:
    """Calls droppath_flax.drop_path; `seed` makes the key."""

    def __init__(self, device: str | None = None, compiled: bool = False) -> None:
        self.device = jax.devices(device)[0]
        self.compiled = compiled

    def info(self) -> Info:
        """Return the claims of droppath_flax."""
        how = "jit" if self.compiled else "eager"
        name = f"droppath_flax {version('droppath')}, jax {jax.__version__}, {how}"
        dtypes = ("float64", "float32", "float16", "bfloat16")
        return Info(f"{name}, {self.device.platform}", frozenset(CLAIMS.split()), dtypes)

    def run(self, call: Call) -> Outcome:
        """Return the outcome of one call."""
        with jax.enable_x64(True), jax.default_device(self.device):
            if call.op == "model":
                return Outcome(self._model(call))
            x = jnp.asarray(call.x, call.dtype)
            y, dx = self._apply(call, x)
        return Outcome(
            np.asarray(y, np.float64),
            y.dtype.name,
            None if dx is None else np.asarray(dx, np.float64),
            None if dx is None else dx.dtype.name,
            np.asarray(x, np.float64),
            drew=False,
        )

    def _apply(self, call: Call, x: jax.Array) -> tuple[jax.Array, jax.Array | None]:
        options: dict[str, Any] = {"deterministic": not call.training, **call.options}
        key, keep = call.key, call.keep
        if key is None and keep is None and call.seed is not None:
            key = droppath.key(call.seed)

        def f(x: jax.Array, key: Any) -> jax.Array:
            return drop_path(x, call.drop_prob, key=key, keep=keep, **options)

        f = jax.checkpoint(f) if call.recompute else f
        if call.dy is None:
            return (jax.jit(f) if self.compiled else f)(x, key), None

        def f_and_vjp(x: jax.Array, key: Any, dy: jax.Array) -> tuple[jax.Array, jax.Array]:
            y, vjp = jax.vjp(lambda x: f(x, key), x)
            return y, vjp(dy)[0]

        return (jax.jit(f_and_vjp) if self.compiled else f_and_vjp)(
            x, key, jnp.asarray(call.dy, call.dtype)
        )

    def _model(self, call: Call) -> np.ndarray:
        """Return the masks of a stack of layers, bool [L, B], layer l from fold_in(key, l)."""
        key = jax.random.wrap_key_data(jnp.asarray(call.key), impl="threefry2x32")
        masks = [
            keep_mask(jax.random.fold_in(key, layer), p, len(call.x))
            for layer, p in enumerate(call.drop_prob)
        ]
        return np.stack(masks).astype(np.float64)


def backend(device: str | None = None, compiled: bool = False) -> Backend:
    """Return droppath_flax on the first JAX device of a platform."""
    return Flax(device, compiled)
