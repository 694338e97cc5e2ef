"""What the checks of SCALE must reject."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from conformance.mutant import (
    REFERENCE,
    Part,
    answering,
    calling,
    drops,
    mutant,
    overlooking,
    overriding,
)
from conformance.numerics import product, round_to
from conformance.protocol import Array, Call, Outcome


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


def by_the_rows_kept() -> dict[str, Part]:
    """Return a forward of balanced masks whose s is B by the number of rows kept."""

    def forward(call: Call, x: Array, keep: Array) -> Array:
        y = REFERENCE.forward(call, x, keep)
        if not (
            drops(call) and call.options.get("mode") == "balanced" and not call.options.get("axis")
        ):
            return y
        kept = product(x.astype(np.float64), keep.size / max(keep.sum(), 1), call.dtype)
        column = keep.reshape(-1, *[1] * (x.ndim - 1))
        return np.where(column, kept.astype(y.dtype), np.zeros((), y.dtype))

    return {"forward": forward}


def unless(good: Callable[[float], bool]) -> Callable[[Call, Outcome], Array]:
    """Return what leaves kept rows as they are at rates that are not good."""

    def y(call: Call, outcome: Outcome) -> Array:
        if not drops(replace(call, keep=None)) or good(call.drop_prob):
            return outcome.y
        return np.where(outcome.y == 0, 0.0, call.x)

    return y


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
    mutant("s is that of the rows kept", "SCALE-1", **by_the_rows_kept()),
    mutant(
        "no factor in batch mode",
        "SCALE-1",
        run=overriding(lambda c: c.options.get("mode") == "batch", scale_by_keep=False),
    ),
    mutant(
        "no factor along another axis",
        "SCALE-1",
        run=overriding(lambda c: c.options.get("axis") == 1 and c.x.ndim == 3, scale_by_keep=False),
    ),
    mutant("p below 1e-7 is 0", "SCALE-1", run=answering(y=unless(lambda p: p > 1e-7))),
    mutant("1 - p is at least 2^-16", "SCALE-1", run=answering(y=unless(lambda p: p < 1 - 2**-16))),
    mutant(
        "infinities are made finite",
        "SCALE-1 SCALE-2",
        run=answering(y=lambda c, o: np.clip(o.y, -6e4, 6e4) if drops(c) else o.y),
    ),
    mutant(
        "NaN is 0",
        "SCALE-1 SCALE-2 SCALE-3",
        run=answering(y=lambda c, o: np.where(np.isnan(o.y), 0.0, o.y)),
    ),
    mutant(
        "-0 is 0",
        "SCALE-1 SCALE-2 SCALE-3",
        run=answering(y=lambda c, o: o.y + 0.0 if c.op == "drop_path" else o.y),
    ),
    mutant(
        "scale_by_keep = False in training only",
        "SCALE-2",
        run=overlooking("scale_by_keep", where=lambda c: not c.training),
    ),
    mutant(
        "the gradient is scaled all the same",
        "SCALE-2 SCALE-3",
        backward=lambda c, dy, keep: REFERENCE.backward(
            replace(c, options={k: v for k, v in c.options.items() if not k.startswith("scale")}),
            dy,
            keep,
        ),
    ),
    mutant(
        "scale_at in row mode only",
        "SCALE-3",
        run=overlooking("scale_at", where=lambda c: "mode" in c.options),
    ),
    mutant(
        "a keep is scaled all the same",
        "SCALE-2 SCALE-3",
        run=overlooking("scale_by_keep", "scale_at", where=lambda c: c.keep is not None),
    ),
    mutant(
        "NaN at p = 1 in evaluation",
        "SCALE-3",
        run=answering(
            y=lambda c, o: (
                np.where(np.isfinite(c.x), o.y, np.nan)
                if not c.training and c.drop_prob == 1 and c.op == "drop_path"
                else o.y
            )
        ),
    ),
)
