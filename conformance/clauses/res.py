"""RES: x + drop_path(branch(x)) as one operation, and the rows that its branch runs on."""

from dataclasses import replace
from typing import Any

import numpy as np

from conformance.blocks import (
    BLOCK,
    block,
    residual_mask,
    residual_steps,
    same_block,
    same_call,
    with_claimed,
)
from conformance.calls import RATES, gradient, minus_half, mode_options, modes, threshold
from conformance.check import Finding, Results, Subject, check, equal, holds, refusal, refuses
from conformance.numerics import compute_type, product, sample
from conformance.protocol import Array, Call


def not_finite(x: Any) -> Any:
    """Return a branch's output that overflows everywhere."""
    return x * float("inf") + float("inf")


def residual(
    subject: Subject, branch: Any, p: float, dtype: str, mode: str
) -> tuple[Array, Array, Array]:
    """Return x, its mask and y of a residual block."""
    options = {"branch": branch, **mode_options(mode)}
    call = Call(sample(BLOCK, dtype), p, dtype, "residual", options=options)
    return call.x, residual_mask(subject, call), subject.run(call).y


def rowwise(subject: Subject) -> list[str]:
    """Return the claimed modes in which some rows are kept and others dropped."""
    return [mode for mode in modes(subject) if mode != "batch"]


@check("RES-1", needs=("residual",))
def kept_residuals(subject: Subject) -> Results:
    for mode in rowwise(subject):
        for p in RATES if mode == "row" else RATES[2:3]:
            for dtype in subject.info.dtypes:
                x, keep, y = residual(subject, minus_half, p, dtype, mode)
                s = product(np.ones(()), 1 / (1 - p), compute_type(dtype))
                want = np.where(keep, product(x - s * (0.5 * x), 1.0, dtype), x)
                yield equal(f"{mode}, p={p}, {dtype}", want, y, dtype, residual_steps(dtype))
    for dtype in subject.info.dtypes:
        x = sample(BLOCK, dtype)
        options = {"branch": minus_half}
        y = subject.run(Call(x, 0.37, dtype, "residual", training=False, options=options)).y
        yield equal(f"evaluation, {dtype}", x * 0.5, y, dtype)


@check("RES-2", needs=("residual",))
def dropped_residuals(subject: Subject) -> Results:
    for mode in rowwise(subject):
        for p in (0.37, 1.0):
            for dtype in subject.info.dtypes:
                with np.errstate(invalid="ignore"):
                    x, keep, y = residual(subject, not_finite, p, dtype, mode)
                dropped, case = ~keep, f"{mode}, p={p}, {dtype}"
                yield holds(case, bool(dropped.any()), "some row dropped", "none")
                yield equal(case, x[dropped], y[dropped], dtype)


@check("RES-3", needs=("residual",))
def stream_keeps_its_dtype(subject: Subject) -> Results:
    for dtype in subject.info.dtypes:
        call = Call(sample(BLOCK, dtype), 0.37, dtype, "residual", options={"branch": minus_half})
        got = subject.run(call).dtype
        yield holds(dtype, got == dtype, dtype, got)


@check("RES-4", needs=("residual", "skip"))
def runs_what_it_must(subject: Subject) -> Results:
    if "balanced" in subject.info.claims:
        yield from runs_the_kept_or_the_capacity(subject)
        yield from spare_rows_leave_no_trace(subject)
    for mode in [mode for mode in modes(subject) if mode != "balanced"]:
        for seed in range(4):
            call = replace(block(0.6, mode, (4, 5), skip=True), seed=seed)
            kept = rows_kept(subject, call)
            can = not refusal(subject, call)
            must = (max(kept, 1) if mode == "row" else kept) if can else 4
            for skip in (True, None) if can else (None,):
                case = f"{mode}, seed={seed}, {kept} of 4 kept, skip={skip}"
                yield ran(subject, case, skipping(call, skip), must)
    call = replace(block(0.37, "row", (4, 5)), training=False)
    yield ran(subject, "evaluation", call, 4)


def runs_the_kept_or_the_capacity(subject: Subject) -> Results:
    """Hold balanced mode to one of RES-4's two numbers of rows: the same one in every case."""
    layouts = ((1, 1, 0.9), (32, 8, 0.37), (33, 1, 0.1), (16, 2, 0.6))
    probe = block(0.37, "balanced", (32, 5), groups=8)  # 8 groups of 4, of which 2 or 3 are kept
    probes = [replace(probe, seed=seed) for seed in range(8)]  # all 3 in each: 0.52^64
    static = any(rows_run(subject, call) != rows_kept(subject, call) for call in probes)
    for batch, groups, p in layouts:
        capacity = batch - groups * (batch // groups * threshold(p) >> 23)
        for seed in range(3):
            call = replace(block(p, "balanced", (batch, 5), groups=groups), seed=seed)
            kept = rows_kept(subject, call)
            case = f"B={batch}, groups={groups}, seed={seed}, {kept} kept"
            must = capacity if static else max(kept, 1)
            for skip in (None, True):
                yield ran(subject, f"{case}, skip={skip}", skipping(call, skip), must)
            yield ran(subject, f"{case}, skip=False", skipping(call, False), batch)
        case, at_0 = f"B={batch}, groups={groups}", block(0.0, "balanced", (batch, 5))
        yield ran(subject, case, skipping(at_0, True), batch)
        at_1 = block(1.0, "balanced", (batch, 5), groups=groups)
        yield ran(subject, case, skipping(at_1, True), *((0, groups) if static else (1,)))


def rows_kept(subject: Subject, call: Call) -> int:
    """Return how many rows a block keeps, as it shows where nothing is skipped."""
    return int(residual_mask(subject, call, skip=False)[:, 0].sum())


def rows_run(subject: Subject, call: Call) -> int | None:
    """Return how many rows the branch ran on."""
    return subject.run(replace(call, dy=None)).ran


def skipping(call: Call, skip: bool | None) -> Call:
    """Return a block's call with this skip."""
    return replace(call, options={**call.options, "skip": skip})


def ran(subject: Subject, case: str, call: Call, *rows: int) -> Finding | None:
    """Return a finding unless the branch ran on one of so many rows."""
    got, want = rows_run(subject, call), " or ".join(map(str, rows))
    return holds(f"{case}, p={call.drop_prob}", got in rows, f"{want} rows run", got)


def spare_rows_leave_no_trace(subject: Subject) -> Results:
    for dtype in subject.info.dtypes:
        for skip in (None, False):
            call = skipping(block(0.37, "balanced", dtype=dtype, groups=8), skip)
            keep = residual_mask(subject, call)
            w = np.where(keep[:, :1], call.options["per_sample"][0], np.nan)
            want, outcome = subject.run(replace(call, dy=None)).y, subject.run(replaced(call, w))
            spare = (outcome.ran or 0) - int(keep[:, 0].sum())
            if skip is False:
                yield holds(dtype, spare > 0, "some spare row", spare)
            yield equal(f"NaN in {spare} spare rows, {dtype}", want, outcome.y, dtype)


def replaced(call: Call, w: Array) -> Call:
    """Return a block's call with another factor for each sample."""
    return replace(call, dy=None, options={**call.options, "per_sample": [w]})


@check("RES-5", needs=("residual", "skip"))
def skipping_changes_nothing(subject: Subject) -> Results:
    layouts = ((32, 2, 0.0), (32, 2, 0.37), (32, 2, 1.0), (1, 3, 0.37), (5, 5, 0.6), (33, 4, 0.05))
    for mode in modes(subject):
        skip = True if mode == "balanced" else None
        for i, (batch, rank, p) in enumerate(layouts):
            dtype = subject.info.dtypes[i % len(subject.info.dtypes)]
            call = replace(block(p, mode, (batch, 5, 2, 1, 2)[:rank], dtype), seed=batch)
            call = with_claimed(subject, call)
            dense, some = (
                replace(call, options={**call.options, "skip": how}) for how in (False, skip)
            )
            case = f"{mode}, B={batch}, rank {rank}, p={p}, {dtype}"
            yield from same_call(subject, case, dense, some)


@check("RES-6", needs=("residual",))
def arguments_follow_their_rows(subject: Subject) -> Results:
    axes = (0, 1) if "axis" in subject.info.claims else (0,)
    for mode in modes(subject):
        for axis, dtype in [(0, d) for d in subject.info.dtypes] + [
            (a, "float32") for a in axes[1:]
        ]:
            call = block(0.37, mode, dtype=dtype, branch=scaled_twice)
            (w,), x = call.options["per_sample"], call.x
            v = np.exp2(np.arange(x.size) % 3.0).reshape(x.shape)
            options = {**call.options, "per_sample": [w, v], **({"axis": 1} if axis else {})}
            x = np.stack([x, -x]) if axis else x
            call = replace(call, x=x, dy=None, options=options)
            keep, s = residual_mask(subject, call), 1 / (1 - call.drop_prob)
            want = np.where(keep, product(x + s * (x * w * v), 1.0, dtype), x)
            case = f"{mode}, axis={axis}, {dtype}"
            yield from same_block(case, keep, want, subject.run(call).y, dtype)
        for batch in (1, 31, 33):
            call = replaced(block(0.37, mode), np.ones((batch, 1)))
            yield refuses(subject, f"{mode}, an argument of {batch} rows for 32", call)


def scaled_twice(x: Any, w: Any, v: Any) -> Any:
    """Return a branch's output with two factors for each sample."""
    return x * w * v


@check("RES-7", needs=("residual", "gradient"))
def gradient_of_a_block(subject: Subject) -> Results:
    for mode in modes(subject):
        for dtype in subject.info.dtypes:
            yield from unused_is_unfelt(subject, 0.37, mode, dtype, np.inf)
        for p in (0.9, 1.0):
            yield from unused_is_unfelt(subject, p, mode, subject.info.dtypes[-1], np.nan)


def unused_is_unfelt(subject: Subject, p: float, mode: str, dtype: str, unused: float) -> Results:
    """Compare dx where the branch's factor is `unused` on dropped rows, with and without skip."""
    call = block(p, mode, dtype=dtype)
    keep = residual_mask(subject, call)
    w, dy = call.options["per_sample"][0], sample(call.x.shape, dtype, first=9000)
    want = product(dy + (w * dy / (1 - p) if p < 1 else 0.0), 1.0, dtype)
    given = {**call.options, "per_sample": [np.where(keep[:, :1], w, unused)]}
    for skip in ({}, {"skip": False}) if "skip" in subject.info.claims else ({},):
        with np.errstate(invalid="ignore"):
            dx = gradient(subject, replace(call, dy=dy, options={**given, **skip}))
        case = f"{mode}, p={p}, {dtype}, {skip}"
        if dx.shape != dy.shape:
            yield equal(case, dy, dx, dtype)
            continue
        yield equal(f"{case}, dropped rows", dy[~keep], dx[~keep], dtype)
        yield equal(f"{case}, kept rows", want[keep], dx[keep], dtype, 2)
