"""flax.nnx.Dropout as a DropPath: broadcast_dims holds every axis but the batch axis.

Flax ships no DropPath; this is how its users write one. float64 needs JAX's x64 mode, so every call
runs in it: then one seed means one mask in every dtype. Keys are not claimed: nnx.Dropout takes
them, but draws the keep and not the drop, so that its masks are others than those of SPEC.md.
"""

from importlib.metadata import version

import jax
import jax.numpy as jnp
from flax import nnx

from conformance.protocol import Backend, Call, Info, Outcome, outcome_from


class NnxDropout:
    """Calls nnx.Dropout with one RngStream for all calls; `seed` makes it anew."""

    def __init__(self, device: str | None = None) -> None:
        self.device = jax.devices(device)[0]
        self.rngs = nnx.Rngs(dropout=0)

    def info(self) -> Info:
        """Return the claims of nnx.Dropout."""
        name = f"flax {version('flax')} nnx.Dropout, jax {jax.__version__}, {self.device.platform}"
        dtypes = ("float64", "float32", "float16", "bfloat16")
        return Info(name, frozenset({"gradient", "recompute"}), dtypes)

    def run(self, call: Call) -> Outcome:
        """Return the outcome of one call."""
        with jax.enable_x64(True), jax.default_device(self.device):
            if call.seed is not None:
                self.rngs = nnx.Rngs(dropout=call.seed)
            x = jnp.asarray(call.x, call.dtype)
            before = int(self.rngs.dropout.count[...])
            y, dx = self._apply(call, x)
            drew = int(self.rngs.dropout.count[...]) != before
        return outcome_from(y, dx, x, drew)

    def _apply(self, call: Call, x: jax.Array) -> tuple[jax.Array, jax.Array | None]:
        dropout = nnx.Dropout(call.drop_prob, broadcast_dims=range(1, x.ndim))

        def f(rngs: nnx.Rngs, x: jax.Array) -> jax.Array:
            return dropout(x, deterministic=not call.training, rngs=rngs)

        f = nnx.remat(f) if call.recompute else f
        if call.dy is None:
            return f(self.rngs, x), None
        y, vjp = nnx.vjp(f, self.rngs, x, graph=False)[:2]
        return y, vjp(jnp.asarray(call.dy, y.dtype))[1]


def backend(device: str | None = None) -> Backend:
    """Return nnx.Dropout on the first JAX device of a platform."""
    return NnxDropout(device)
