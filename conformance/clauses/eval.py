"""EVAL: where nothing is dropped, nothing changes and nothing is drawn."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from conformance.calls import KEY, leaves_draws, mode_options, models_are_unkeyed, modes
from conformance.check import Results, Subject, check, draws_nothing, equal
from conformance.numerics import FORMATS, sample, step
from conformance.protocol import Array, Call

TINY = (5e-324, 2.0**-150, 2.0**-24, 1e-6)
NEXT_TO_1 = (1 - 2.0**-24, 1 - 2.0**-53)


def special(dtype: str) -> Array:
    """Return [8, 5] with infinities, NaN, zeros, the largest and the smallest numbers of dtype."""
    x = sample((8, 5), dtype)
    smallest = float(step(np.zeros(()), dtype))  # subnormal
    digits, _, exponent = FORMATS[dtype]
    largest = float(np.ldexp(1 - 2.0**-digits, exponent))
    x[:, 0] = np.inf, -np.inf, np.nan, -0.0, 0.0, smallest, -smallest, largest
    x[3] = -0.0
    return x


def is_identity(subject: Subject, case: str, call: Call) -> Results:
    """Yield comparisons of y with x for inputs with special values, where nothing may be drawn."""
    x = special(call.dtype)
    outcome = subject.run(replace(call, x=x))
    tiny = (x != 0) & (np.abs(x) < np.ldexp(1.0, FORMATS[call.dtype][1] - 1))
    taken = tiny & (outcome.y == 0) if outcome.y.shape == x.shape else False  # MAY, "Types"
    yield equal(case, np.where(taken, np.copysign(0.0, x), x), outcome.y, call.dtype)
    yield draws_nothing(case, outcome)


def given(subject: Subject, training: bool) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield what a call may be given beside x and p, in words and as fields of the call."""
    claims, rows = subject.info.claims, np.arange(8) % 3 > 0
    for mode in modes(subject):
        options = mode_options(mode)
        yield mode, {"seed": None, "options": options}
        yield f"{mode}, seed 7", {"seed": 7, "options": options}
        if "keyed" in claims:
            yield f"{mode}, key", {"seed": None, "key": KEY, "options": options}
        if "keep" in claims and not training:
            yield f"{mode}, keep", {"seed": None, "keep": rows, "options": options}
        if "scale_by_keep" in claims:
            off = {**options, "scale_by_keep": False}
            yield f"{mode}, scale_by_keep=False", {"seed": None, "options": off}
    if "balanced" in claims:
        yield "4 groups", {"seed": None, "options": {"mode": "balanced", "groups": 4}}
    if "axis" in claims:
        for axis in (1, -1):
            yield f"axis={axis}", {"seed": None, "options": {"axis": axis}}
    if {"compile", "keyed"} <= claims:
        yield "compiled", {"seed": None, "key": KEY, "compiled": True}


def all_are_identities(subject: Subject, rates: tuple[float, ...], training: bool) -> Results:
    """Compare every dtype at a first rate, and all that may be given at each rate."""
    for how, fields in given(subject, training):
        dtypes = subject.info.dtypes if fields.get("compiled") is None else ("float32",)
        for p in rates[:1] if "compiled" in fields else rates:
            for dtype in dtypes if p == rates[0] else dtypes[:1]:
                call = Call(drop_prob=p, dtype=dtype, training=training, **fields)
                yield from is_identity(subject, f"{how}, p={p!r}, {dtype}", call)
    for p in rates:
        call = Call(np.ones((8, 5)), p, training=training)
        yield from leaves_draws(subject, f"p={p!r}", call)


@check("EVAL-1")
def evaluation_is_identity(subject: Subject) -> Results:
    rates = (0.3, 0.0, 1.0, 0.999, *TINY, *NEXT_TO_1)
    yield from all_are_identities(subject, rates, training=False)


@check("EVAL-2")
def rate_0_is_identity(subject: Subject) -> Results:
    yield from all_are_identities(subject, (0.0, 0, -0.0), training=True)
    if models_are_unkeyed(subject):
        y = subject.run(Call(np.ones((8, 2)), [0.0, 0.0, 0.0], seed=None, op="model")).y
        yield equal("a model, no key", np.ones((3, 8)), y, "float32")
