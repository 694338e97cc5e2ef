"""What an adapter implements: one verb, NumPy in and out.

Arrays travel as float64, which holds every number of the dtypes that SPEC.md knows; the dtype
itself travels as text. So an adapter needs no bfloat16 of its own, and no framework is seen here.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

# What an adapter may claim. Unclaimed is "not tested"; a claim that fails is a failure.
CAPABILITIES = {
    "gradient": "Call.dy is answered by Outcome.dx",
    "recompute": "Call.recompute runs the forward again for the gradient (checkpointing, remat)",
    "keyed": "Call.key draws the mask of the KEY clauses, at Call.options['offset']",
    "stateless": "there is no generator of its own: without key and keep it refuses to train",
    "keep": "Call.keep is the mask itself",
    "batch": "options: mode='batch'",
    "balanced": "options: mode='balanced', groups",
    "axis": "options: axis",
    "scale_by_keep": "options: scale_by_keep",
    "scale_at": "options: scale_at",
    "model": "op 'model': the masks of a model's layers, from one key: y is [L, B], 1 where kept",
    "residual": "op 'residual': options['branch'] maps arrays by operators alone",
    "random": "ops 'key', 'fold_in', 'split', 'random_bits'",
    "schedule": "ops 'drop_path_rates', 'ramp', 'expected_depth', 'kept_capacity'",
}


class BrokenAdapter(Exception):
    """The adapter, not the implementation behind it, does not do what the protocol says."""


@dataclass(frozen=True)
class Info:
    """What is tested: its name and version as the report prints it, and what it claims."""

    name: str
    claims: frozenset[str] = frozenset()
    dtypes: tuple[str, ...] = ("float32",)


@dataclass(frozen=True)
class Call:
    """One call of the implementation.

    x: float64 [..., B, ...], each number one of `dtype`. dy: the gradient of y, if dx is wanted.
    seed: what to seed the implementation's generator with, or to make its key from; None leaves the
    generator as it is and gives no key. key: uint32 [2], keep: bool [B], each instead of the seed.
    options: further keyword arguments, named as in SPEC.md; only what is claimed is asked for.
    """

    x: Array = field(default_factory=lambda: np.ones(1))
    drop_prob: Any = 0.0
    dtype: str = "float32"
    op: str = "drop_path"
    training: bool = True
    seed: int | None = 0
    key: Any = None
    keep: Any = None
    dy: Array | None = None
    recompute: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """What came back. y, dx, x_after (x as it is after the call): float64. dtype: that of y.

    drew: whether the state of a generator outside the call moved; None if that cannot be told.
    """

    y: Array
    dtype: str = "float64"
    dx: Array | None = None
    dx_dtype: str | None = None
    x_after: Array | None = None
    drew: bool | None = None


class Backend(Protocol):
    """An implementation under test. `run` lets the implementation's own exceptions through."""

    def info(self) -> Info:
        """Return what is tested, and what it claims."""
        ...

    def run(self, call: Call) -> Outcome:
        """Return the outcome of one call."""
        ...
