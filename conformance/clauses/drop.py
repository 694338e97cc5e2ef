"""DROP: dropped rows are zero, whatever they held."""

from dataclasses import replace
from itertools import cycle

import numpy as np

from conformance.calls import LARGE, MIDDLE, SMALL, mode_options, modes
from conformance.check import Results, Subject, check, equal, holds
from conformance.clauses.scale import MANY, Shape, layouts, seeded
from conformance.numerics import edges
from conformance.protocol import Array, Call


def dropped_is_zero(subject: Subject, call: Call) -> Results:
    """Yield the comparison of what is dropped with +0."""
    call = seeded(subject, call, kept=False)
    dropped = ~subject.keep(call)
    case = f"p={call.drop_prob!r}, {call.dtype}, {call.x.shape}, {call.options}"
    yield holds(case, bool(dropped.any()), "some row dropped", "none")
    y = subject.run(call).y
    y = np.where(dropped, y, 0.0) if y.shape == dropped.shape else y
    yield equal(case, np.zeros_like(call.x), y, call.dtype)


@check("DROP-1")
def dropped_rows_are_zero(subject: Subject) -> Results:
    dtypes = subject.info.dtypes
    for dtype in dtypes:
        for p in (0.02, 0.37, 0.9):
            yield from dropped_is_zero(subject, Call(special(SMALL, dtype), p, dtype))
        for size in (MIDDLE, LARGE):
            yield from dropped_is_zero(subject, Call(special(size, dtype), 0.37, dtype))
        for shape, options in layouts(subject):
            call = Call(special(shape, dtype), 0.37, dtype, options=options)
            yield from dropped_is_zero(subject, call)
        if "keep" in subject.info.claims:
            for p in (0.0, 1e-9, 0.37):
                keep = np.arange(64) % 3 != 1
                call = Call(special(SMALL, dtype), p, dtype, keep=keep, seed=None)
                yield from dropped_is_zero(subject, call)
    sizes: tuple[Shape, ...] = ((3, 9), (65, 5), (257, 6), MANY, (64,))
    for shape, dtype in zip(sizes, cycle(dtypes), strict=False):
        for mode in modes(subject):
            call = Call(special(shape, dtype), 0.37, dtype, options=mode_options(mode))
            yield from dropped_is_zero(subject, call)
    for options in scalings(subject):
        call = Call(special(SMALL, dtypes[0]), 0.37, dtypes[0], options=options)
        yield from dropped_is_zero(subject, call)


def special(shape: Shape, dtype: str) -> Array:
    """Return the numbers at the edges of dtype, over and over."""
    return np.resize(edges(dtype), shape)


def scalings(subject: Subject) -> list[dict[str, object]]:
    """Return the options that move or leave out the factor, as is claimed."""
    options = {"scale_by_keep": False, "scale_at": "eval"}
    return [{name: value} for name, value in options.items() if name in subject.info.claims]


@check("DROP-2")
def rate_1_gives_zeros(subject: Subject) -> Results:
    gradients = "gradient" in subject.info.claims
    for dtype in subject.info.dtypes:
        row = Call(special(SMALL, dtype), 1.0, dtype)
        calls = [row, *(replace(row, options=options) for options in scalings(subject))]
        calls += [replace(row, x=special(shape, dtype), options=o) for shape, o in layouts(subject)]
        if "keep" in subject.info.claims:
            keeps = np.ones(64, bool), np.zeros(64, bool), np.arange(64) % 3 != 1
            calls += [replace(row, keep=keep, seed=None) for keep in keeps]
        calls += [replace(call, dy=call.x) for call in calls] if gradients else []
        for call in calls:
            case = f"{dtype}, {call.x.shape}, {call.options}, keep={call.keep is not None}"
            case += "" if call.dy is None else ", with a gradient"
            yield equal(case, np.zeros_like(call.x), subject.run(call).y, dtype)
    for shape in ((0, 3), (1,), (1, 2, 1, 3, 1, 2)):
        y = subject.run(Call(np.ones(shape), 1)).y
        yield equal(f"{shape}", np.zeros(shape), y, subject.info.dtypes[0])
