"""SCALE: the factor on kept rows."""

from typing import Any

import numpy as np

from conformance.calls import LARGE, MIDDLE, RATES, SMALL
from conformance.check import Results, Subject, check, equal, holds
from conformance.numerics import product, sample
from conformance.protocol import Call


def applied(
    subject: Subject,
    p: float,
    dtype: str,
    s: float,
    shape: tuple[int, ...] = SMALL,
    **options: Any,
) -> Results:
    """Yield the comparison of y with x * s on kept rows."""
    call = Call(sample(shape, dtype), p, dtype, options=options)
    keep = subject.keep(call)
    yield holds(f"p={p}, {dtype}", bool(keep.any()), "some row kept", "none")
    want, got = product(call.x, s, dtype), subject.run(call).y
    if got.shape == want.shape:
        want, got = np.where(keep, want, 0.0), np.where(keep, got, 0.0)
    yield equal(f"p={p}, {dtype}, {shape}", want, got, dtype)


@check("SCALE-1")
def kept_rows_are_scaled(subject: Subject) -> Results:
    for dtype in subject.info.dtypes:
        for p in (*RATES, 0.05, 0.15, 0.4):
            yield from applied(subject, p, dtype, 1 / (1 - p))
        for shape in (MIDDLE, LARGE):
            yield from applied(subject, 0.37, dtype, 1 / (1 - 0.37), shape)
    if "float16" in subject.info.dtypes:  # beyond the range: infinity
        call = Call(np.full((64, 2), 60_000.0), 0.37, "float16")
        want = np.where(subject.keep(call), np.inf, 0.0)
        yield equal("60000 / (1 - 0.37), float16", want, np.abs(subject.run(call).y), "float16")


@check("SCALE-2", needs=("scale_by_keep",))
def kept_rows_may_stay(subject: Subject) -> Results:
    for p in RATES:
        for dtype in subject.info.dtypes:
            yield from applied(subject, p, dtype, 1.0, scale_by_keep=False)
    x = sample((8, 3), "float32")
    y = subject.run(Call(x, 0.3, training=False, options={"scale_by_keep": False})).y
    yield equal("evaluation", x, y, "float32")


@check("SCALE-3", needs=("scale_at",))
def factor_moves_to_evaluation(subject: Subject) -> Results:
    options: dict[str, Any] = {"scale_at": "eval"}
    for dtype in subject.info.dtypes:
        for p in RATES:
            yield from applied(subject, p, dtype, 1.0, **options)
            x = sample((8, 33), dtype)
            y = subject.run(Call(x, p, dtype, training=False, seed=None, options=options)).y
            yield equal(f"evaluation, p={p}, {dtype}", product(x, 1 - p, dtype), y, dtype)
        x = np.array([[np.inf], [-1.0], [np.nan]])
        y = subject.run(Call(x, 1.0, dtype, training=False, options=options)).y
        yield equal(f"evaluation, p=1, {dtype}", np.zeros_like(x), y, dtype)
