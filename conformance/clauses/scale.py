"""SCALE: the factor on kept rows: in every mode, dtype and phase, from the least number to NaN."""

import math
from dataclasses import replace
from typing import Any

import numpy as np

from conformance.calls import LARGE, MIDDLE, RATES, SMALL, mode_options, modes
from conformance.check import Finding, Results, Subject, check, equal, holds, told
from conformance.numerics import edges, flushed, product, sample
from conformance.protocol import Array, Call

Shape = tuple[int, ...]
MANY: Shape = (70_000, 3)  # rows enough to keep some at a rate next to 1
ALONG_1: Shape = (3, 64, 5)
# s is a power of 2 or 1.5 (ties), or is 1 in float32 and not in float64.
MORE_RATES = (0.001, 0.05, 0.15, 1 / 3, 0.4, 0.5, 1e-9, 2**-30)
NEXT_TO_1 = (1 - 2**-12, 1 - 2**-24, math.nextafter(1, 0))
KEEP = np.arange(64) % 3 != 1


def filled(shape: Shape, dtype: str) -> Array:
    """Return 3 sin n, and the numbers at the edges of dtype in every fourth place."""
    x, ends = sample(shape, dtype).reshape(-1), edges(dtype)
    x[::4] = np.resize(ends, x[::4].shape)
    return x.reshape(shape)


def seeded(subject: Subject, call: Call, kept: bool) -> Call:
    """Return the call with the first seed whose mask keeps some element, or drops one."""
    for seed in range(64):
        if (subject.keep(replace(call, seed=seed)) == kept).any():
            return replace(call, seed=seed)
    return call


def applied(subject: Subject, call: Call, s: float) -> Results:
    """Yield the comparison of y, and of dx if dy is given, with x * s on kept rows."""
    call = seeded(subject, call, kept=True)
    keep, outcome = subject.keep(call), subject.run(call)
    case = f"p={call.drop_prob!r}, {call.dtype}, {call.x.shape}, {call.options}"
    yield holds(case, bool(keep.any()), "some row kept", "none")
    yield times(case, call.x, s, outcome.y, call.dtype, keep)
    if (dy := call.dy) is not None:
        case = f"gradient, {case}"
        yield told("dx", outcome.dx, lambda dx: times(case, dy, s, dx, call.dtype, keep))


def times(
    case: str, x: Array, s: float, y: Array, dtype: str, keep: Array | None = None
) -> Finding | None:
    """Return a finding unless y is x * s: everywhere, or where kept; +0 everywhere if s is 0."""
    want = product(x, s, dtype) if s else np.zeros_like(x)
    want = flushed(want, y, x, dtype) if s else want
    if keep is not None and want.shape == y.shape:
        want, y = np.where(keep, want, 0.0), np.where(keep, y, 0.0)
    return equal(case, want, y, dtype)


def layouts(subject: Subject) -> list[tuple[Shape, dict[str, Any]]]:
    """Return a shape and options for each mode but rows, and for other axes, as is claimed."""
    found: list[tuple[Shape, dict[str, Any]]] = [
        (SMALL, mode_options(mode)) for mode in modes(subject)[1:]
    ]
    if "axis" in subject.info.claims:
        found += [(ALONG_1, {**mode_options(mode), "axis": 1}) for mode in modes(subject)]
    return found


@check("SCALE-1")
def kept_rows_are_scaled(subject: Subject) -> Results:
    for dtype in subject.info.dtypes:
        x = filled(SMALL, dtype)
        for p in (*RATES, *MORE_RATES):
            yield from applied(subject, Call(x, p, dtype), 1 / (1 - p))
        for size in (MIDDLE, LARGE, (5,)):
            yield from applied(subject, Call(filled(size, dtype), 0.37, dtype), 1 / (1 - 0.37))
        for shape, options in layouts(subject):
            for p in (0.1, 0.37):
                call = Call(filled(shape, dtype), p, dtype, options=options)
                yield from applied(subject, call, 1 / (1 - p))
        for p in NEXT_TO_1 if "keep" in subject.info.claims else ():
            call = Call(x, p, dtype, keep=KEEP, seed=None)
            yield from applied(subject, call, 1 / (1 - p))
    dtype = subject.info.dtypes[-1]
    yield from applied(subject, Call(filled(MANY, dtype), 1 - 2**-12, dtype), 2.0**12)


def of_each_kind(subject: Subject, dtype: str, p: float, **options: Any) -> list[Call]:
    """Return calls with these options in every mode and axis, with a gradient, with a keep."""
    claims = subject.info.claims
    dy = sample(SMALL, dtype, first=9000) if "gradient" in claims else None
    row = Call(filled(SMALL, dtype), p, dtype, dy=dy, options=options)
    calls = [row] if dy is None else [replace(row, dy=None), row]
    if "keep" in claims:
        calls.append(replace(row, keep=KEEP, seed=None))
    for shape, more in layouts(subject):
        dy = None if dy is None else sample(shape, dtype, first=9000)
        calls.append(Call(filled(shape, dtype), p, dtype, dy=dy, options={**options, **more}))
    return calls


def unscaled(subject: Subject, dtypes: tuple[str, ...], **options: Any) -> Results:
    """Yield whether kept rows are x bit for bit in training, and none is kept at p = 1."""
    for dtype in dtypes:
        for p in (0.0, *RATES, 1e-9):
            calls = of_each_kind(subject, dtype, p, **options)
            for call in calls if p == 0.37 else calls[:2] if p == 0 else calls[:1]:
                yield from applied(subject, call, 1.0)
        for call in of_each_kind(subject, dtype, 1.0, **options)[:3]:
            outcome = subject.run(call)
            yield times(f"p=1, {dtype}, {call.options}", call.x, 0.0, outcome.y, dtype)


def in_evaluation(subject: Subject, dtypes: tuple[str, ...], **options: Any) -> Results:
    """Yield whether every row is x by the factor that evaluation has with these options."""
    moved = options == {"scale_at": "eval"}
    for dtype in dtypes:
        for p in (0.0, *RATES, 1e-9, *NEXT_TO_1, 1.0):
            q = 1 - p if moved else 1.0
            calls = of_each_kind(subject, dtype, p, **options)
            for call in calls if p == 0.37 else calls[:3] if p == 1 else calls[:1]:
                outcome = subject.run(replace(call, training=False, seed=None))
                case = f"evaluation, p={p!r}, {dtype}, {call.x.shape}, {call.options}"
                yield times(case, call.x, q, outcome.y, dtype)
                if (dy := call.dy) is not None:
                    yield told("dx", outcome.dx, gradient_is(f"gradient, {case}", dy, q, dtype))


def gradient_is(case: str, dy: Array, q: float, dtype: str) -> Any:
    """Return what finds a dx that is not dy * q."""
    return lambda dx: times(case, dy, q, dx, dtype)


@check("SCALE-2", needs=("scale_by_keep",))
def kept_rows_may_stay(subject: Subject) -> Results:
    dtypes = subject.info.dtypes
    yield from unscaled(subject, dtypes, scale_by_keep=False)
    yield from in_evaluation(subject, dtypes, scale_by_keep=False)
    for at in ("train", "eval") if "scale_at" in subject.info.claims else ():
        yield from unscaled(subject, dtypes[-1:], scale_by_keep=False, scale_at=at)
        yield from in_evaluation(subject, dtypes[-1:], scale_by_keep=False, scale_at=at)


@check("SCALE-3", needs=("scale_at",))
def factor_moves_to_evaluation(subject: Subject) -> Results:
    yield from unscaled(subject, subject.info.dtypes, scale_at="eval")
    yield from in_evaluation(subject, subject.info.dtypes, scale_at="eval")
    yield from in_evaluation(subject, subject.info.dtypes[-1:], scale_at="train")
