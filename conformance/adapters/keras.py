"""Keras 3 on its JAX backend, behind the protocol: two ways to drop paths in it.

`keras` tests StochasticDepth, the one layer of its kind in Keras itself: private to its ConvNeXt,
and row by row although its docstring says batch-wise. `keras:dropout` tests
keras.layers.Dropout with a noise_shape of 1 on all axes but the batch axis, which is how Keras
users write DropPath. A layer gets the dtype of x, or Keras would cast x. float64 needs JAX's x64
mode, so every call runs in it: then one seed means one mask in every dtype.
"""

import os
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from conformance.protocol import Backend, Call, Info, Outcome, outcome_from

DTYPES = ("float64", "float32", "float16", "bfloat16")


class Keras:
    """Calls make(drop_prob, ndim, dtype); `seed` seeds Keras, and so the layers made after it.

    A layer is made once after each seed, since making it draws the seed of its own generator.
    """

    def __init__(self, name: str, make: Callable[[Any, int, str | None], Any]) -> None:
        self.name = f"keras {version('keras')} {name}, jax {jax.__version__}"
        self.make = make
        self.layers: dict[str, Any] = {}

    def info(self) -> Info:
        """Return the claims of a Keras layer."""
        return Info(self.name, frozenset({"gradient"}), DTYPES)

    def run(self, call: Call) -> Outcome:
        """Return the outcome of one call."""
        import keras

        with jax.enable_x64(True):
            if call.seed is not None:
                keras.utils.set_random_seed(call.seed)
                self.layers.clear()
            x = jnp.asarray(call.x, call.dtype)
            given = call.drop_prob, x.ndim, call.dtype if call.dtype in DTYPES else None
            layer = self.layers.get(repr(given)) or self.make(*given)
            self.layers[repr(given)] = layer
            before = states(layer)
            dx = None
            if call.dy is None:
                y = layer(x, training=call.training)
            else:
                y, vjp = jax.vjp(lambda x: layer(x, training=call.training), x)
                (dx,) = vjp(jnp.asarray(call.dy, y.dtype))
            drew = states(layer) != before
        return outcome_from(y, dx, x, drew)


def states(layer: Any) -> list[list[int]]:
    """Return the state of Keras's own generator, and of the layer's if it has one."""
    from keras.src.random.seed_generator import global_seed_generator

    own = getattr(layer, "seed_generator", None)
    generators = [global_seed_generator(), *([own] if own else [])]
    return [np.asarray(generator.state.value).tolist() for generator in generators]


def on_jax() -> None:
    """Have Keras use JAX: it reads this variable once, when it is first imported."""
    os.environ["KERAS_BACKEND"] = "jax"
    import keras

    if keras.backend.backend() != "jax":
        raise RuntimeError(f"Keras must run on jax here, got {keras.backend.backend()}")


def backend() -> Backend:
    """Return the StochasticDepth of Keras's ConvNeXt."""
    on_jax()
    from keras.src.applications.convnext import StochasticDepth

    return Keras("StochasticDepth", lambda p, ndim, dtype: StochasticDepth(p, dtype=dtype))


def dropout() -> Backend:
    """Return keras.layers.Dropout with one draw for each row."""
    on_jax()
    import keras

    return Keras(
        "Dropout(noise_shape)",
        lambda p, ndim, dtype: keras.layers.Dropout(
            p, noise_shape=(None, *[1] * (ndim - 1)), dtype=dtype
        ),
    )
