"""What the checks of SCALE must reject."""

from collections.abc import Callable
from typing import Any

import numpy as np

from conformance.mutant import REFERENCE, Part, calling, drops, mutant
from conformance.numerics import product, round_to
from conformance.protocol import Array, Call


def scaling(scale: Callable[[float, str], float]) -> dict[str, Part]:
    """Return a forward and a backward with another factor on kept rows; scale: (p, dtype)."""

    def scaled(method: str) -> Part:
        def part(call: Call, x: Array, keep: Array) -> Array:
            y = getattr(REFERENCE, method)(call, x, keep)
            if not (drops(call) and call.options.keys() <= {"mode", "offset", "groups"}):
                return y
            s = scale(call.drop_prob, call.dtype)
            kept = product(x.astype(np.float64), s, call.dtype).astype(y.dtype)
            return np.where(keep.reshape(-1, *[1] * (x.ndim - 1)), kept, np.zeros((), y.dtype))

        return part

    return {"forward": scaled("forward"), "backward": scaled("backward")}


def without(**defaults: Any) -> Part:
    """Return a `run` that overwrites options that are given."""
    return calling(
        options=lambda call: {
            **call.options,
            **{k: v for k, v in defaults.items() if k in call.options},
        }
    )


MUTANTS = (
    mutant(
        "scale rounded to x's dtype",
        "SCALE-1 GRAD-1",
        **scaling(lambda p, dtype: float(round_to(np.asarray(1 / (1 - p)), dtype))),
    ),
    mutant(
        "1 - p in float32",
        "SCALE-1 GRAD-1",
        **scaling(lambda p, dtype: float(1 / (np.float32(1) - np.float32(p)))),
    ),
    mutant("keep_prob instead of its inverse", "SCALE-1", **scaling(lambda p, dtype: 1 - p)),
    mutant("always scales", "SCALE-2", run=without(scale_by_keep=True)),
    mutant("scales in training only", "SCALE-3", run=without(scale_at="train")),
)
