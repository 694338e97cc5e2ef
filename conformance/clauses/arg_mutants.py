"""What the checks of ARG must reject."""

from typing import Any

import numpy as np

from conformance.mutant import calling, mutant, op
from conformance.protocol import Array, Call


def clipped(call: Call) -> Any:
    """Return drop_prob made good in silence."""
    try:
        return float(np.clip(np.nan_to_num(float(call.drop_prob)), 0, 1))
    except TypeError:
        return 0.0


def seed_truncated(seed: Any) -> Array:
    """Return the key of a seed modulo 2**32."""
    return np.array([0, int(seed) % 2**32], np.uint32)


MUTANTS = (
    mutant("accepts any rate", "ARG-1", run=calling(drop_prob=clipped)),
    mutant(
        "accepts integers",
        "ARG-2",
        run=calling(dtype=lambda c: c.dtype.replace("int32", "float32")),
    ),
    mutant(
        "an unknown mode is row",
        "ARG-3",
        run=calling(
            options=lambda c: {k: v for k, v in c.options.items() if v not in ("rows", None)}
        ),
    ),
    mutant(
        "keep of any dtype",
        "ARG-4",
        run=calling(keep=lambda c: None if c.keep is None else np.asarray(c.keep) != 0),
    ),
    mutant("truncates seeds", "ARG-5", compute=op("key", seed_truncated)),
    mutant(
        "residual that takes any rate",
        "ARG-1",
        run=calling(drop_prob=lambda c: clipped(c) if c.op == "residual" else c.drop_prob),
    ),
)
