"""The training that both frameworks are given: weights, data, rates and key; and what came of it.

The trainers are torch.py and flax.py beside this file, loaded by name: no framework is imported
here. Not here: the command and its table (command.py), the picture (plot.py).
"""

import importlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

import droppath
from conformance.protocol import Array

FRAMEWORKS = {"torch": "PyTorch", "flax": "JAX"}
OPTIMIZERS, DTYPES, STEPS = ("sgd", "adamw"), ("float64", "float32"), 50
KEY = droppath.key(20160330)  # the day of arXiv 1603.09382, version 1
RATES = [0.1, 0.2, 0.3, 0.4]  # rule "paper" up to 0.4; asymmetric, and none is 0

TOLERANCE = {"float64": 1e-12, "float32": 1e-4}  # measured: see command.py

BATCH, TOKENS, CHANNELS, WIDTH, HIDDEN, CLASSES = 12, 5, 12, 16, 64, 4
SHAPES = {  # the first axis of a branch's weights is the block, of a norm's the branch, then head
    "embed": (CHANNELS, WIDTH),
    "position": (TOKENS, WIDTH),
    "norm_scale": (5, WIDTH),
    "norm_shift": (5, WIDTH),
    "qkv": (2, WIDTH, 3 * WIDTH),  # without a bias: the loss does not depend on that of k
    "out": (2, WIDTH, WIDTH),
    "out_bias": (2, WIDTH),
    "up": (2, WIDTH, HIDDEN),
    "up_bias": (2, HIDDEN),
    "down": (2, HIDDEN, WIDTH),
    "down_bias": (2, WIDTH),
    "head": (WIDTH, CLASSES),
    "head_bias": (CLASSES,),
}


@dataclass(frozen=True)
class Run:
    """The losses of one optimizer and dtype in each framework: float64 [steps]."""

    optimizer: str
    dtype: str
    losses: dict[str, Array]

    @property
    def differences(self) -> Array:
        """|a - b| / |a| at each step, a and b the losses in PyTorch and in JAX."""
        a, b = self.losses.values()
        with np.errstate(divide="ignore", invalid="ignore"):  # then it is inf or NaN: no agreement
            return np.abs(a - b) / np.abs(a)

    @property
    def tolerance(self) -> float:
        """What no difference may exceed."""
        return TOLERANCE[self.dtype]

    @property
    def agrees(self) -> bool:
        """Whether all differences are within the tolerance; NaN is not."""
        return bool((self.differences <= self.tolerance).all())


def uniform(index: int, shape: tuple[int, ...]) -> Array:
    """Return multiples of 2^-23 in [-1, 1), exact in float32, from Threefry's key 0: no choice."""
    bits = droppath.random_bits(droppath.fold_in(droppath.key(0), index), math.prod(shape))
    return ((bits >> 8) / 2**23 - 1).reshape(shape)


def make_weights() -> dict[str, Array]:
    """Return float64 arrays of SHAPES."""
    limits = {name: 0.25 if name == "down" else 0.5 for name in SHAPES}  # four times the inputs
    return {
        name: uniform(index, shape) * limits[name] + (name == "norm_scale")
        for index, (name, shape) in enumerate(SHAPES.items())
    }


def make_data() -> tuple[Array, Array]:
    """Return the one batch of all steps: images float64 [B, T, C], labels int64 [B]."""
    images = 2 * uniform(len(SHAPES), (BATCH, TOKENS, CHANNELS))
    return images, np.arange(BATCH) % CLASSES


def losses(
    trainer: str, optimizer: str, dtype: str, key: Array = KEY, rates: Sequence[float] = RATES
) -> Array:
    """Return the losses of one trainer, a name in FRAMEWORKS: float64 [STEPS]."""
    train = importlib.import_module(f"conformance.parity.{trainer}").train
    images, labels = make_data()
    return np.array(
        train(make_weights(), images, labels, list(rates), key, optimizer, dtype, STEPS)
    )
