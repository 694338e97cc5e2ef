"""TYPE: dtype and shape are those of x."""

from dataclasses import replace
from typing import Any

import numpy as np

from conformance.blocks import BLOCK
from conformance.calls import forms, mode_options, modes
from conformance.check import Results, Subject, check, holds, told
from conformance.clauses.drop import scalings
from conformance.protocol import Array, Call

RANKS = ((5,), (1, 1), (3, 5), (1, 7, 1), (2, 3, 4, 5), (2, 1, 3, 1, 2), (2, 1, 1, 3, 1, 2))


def of_all_options(subject: Subject, x: Array, dtype: str) -> list[Call]:
    """Return calls in each phase at rates to 1, with each option, in each mode, along each axis."""
    row = Call(x, 0.37, dtype)
    options: list[dict[str, Any]] = [{}, *scalings(subject)]
    phases = [(p, training) for p in (0.37, 1.0) for training in (True, False)]
    calls = [replace(row, drop_prob=0.0)] + [
        replace(row, drop_prob=p, training=training, options=option)
        for p, training in phases
        for option in options
    ]
    calls += [replace(row, options=mode_options(mode)) for mode in modes(subject)[1:]]
    if "axis" in subject.info.claims:
        calls.append(replace(row, options={"axis": 1}))
    if "keep" in subject.info.claims:
        calls.append(replace(row, keep=np.arange(len(x)) % 2 == 0, seed=None))
    return calls


def with_gradients(subject: Subject, calls: list[Call]) -> list[Call]:
    """Return the calls and those of residual blocks, with a gradient, as is claimed."""
    calls = [form for call in calls for form in forms(subject, call)]
    gradients = "gradient" in subject.info.claims
    return [replace(call, dy=call.x) for call in calls] if gradients else calls


def shown(call: Call) -> str:
    """Return what a case of a call is."""
    with_dy = "" if call.dy is None else ", with a gradient"
    phase = "training" if call.training else "evaluation"
    return f"{call.op} of {call.x.shape}, p={call.drop_prob}, {phase}, {call.options}{with_dy}"


@check("TYPE-1")
def dtype_stays(subject: Subject) -> Results:
    for dtype in subject.info.dtypes:
        alone = of_all_options(subject, np.ones(BLOCK), dtype)
        in_rows = [call for call in alone if "mode" not in call.options]
        last = dtype == subject.info.dtypes[-1]  # a block compiles anew for each mode and dtype
        calls = alone + with_gradients(subject, alone if last else in_rows)
        if last:
            calls += [form for call in alone for form in forms(subject, call)[1:]]
        calls += [Call(np.ones(shape), 0.37, dtype) for shape in ((0, 3), (1,))]
        for call in calls:
            outcome, case = subject.run(call), shown(call)
            yield holds(case, outcome.dtype == dtype, dtype, outcome.dtype)
            if call.dy is not None:
                yield told("dx_dtype", outcome.dx_dtype, dtype_is(f"{case}: dx", dtype))


def dtype_is(case: str, dtype: str) -> Any:
    """Return what finds another dtype."""
    return lambda got: holds(case, got == dtype, dtype, got)


@check("TYPE-2")
def shape_stays(subject: Subject) -> Results:
    dtypes = subject.info.dtypes
    dtype = "float32" if "float32" in dtypes else dtypes[0]
    calls = of_all_options(subject, np.ones(BLOCK), dtype)
    calls.append(Call(np.ones((2, 3, 4, 5)), 0.37, dtype))
    calls += with_gradients(subject, calls)
    for shape in (*RANKS, (0,), (0, 3), (3, 0), (1,), (1, 4)):
        row = Call(np.ones(shape), 0.37, dtype)
        calls += [row, replace(row, drop_prob=0.0), replace(row, drop_prob=1.0)]
        calls.append(replace(row, training=False))
        calls += [replace(row, options=mode_options(mode)) for mode in modes(subject)[1:]]
    for call in calls:
        shape, outcome, case = call.x.shape, subject.run(call), shown(call)
        yield holds(case, outcome.y.shape == shape, f"shape {shape}", outcome.y.shape)
        if call.dy is not None:
            yield told("dx", outcome.dx, shape_is(f"{case}: dx", shape))


def shape_is(case: str, shape: tuple[int, ...]) -> Any:
    """Return what finds a dx of another shape."""
    return lambda dx: holds(case, dx.shape == shape, f"shape {shape}", dx.shape)
