"""RES: x + drop_path(branch(x)) as one operation, and the rows that its branch runs on."""

from dataclasses import replace
from functools import partial
from itertools import chain, cycle
from typing import Any

import numpy as np

from conformance.blocks import (
    BLOCK,
    BLOCK_OF_AXIS,
    at_rows,
    axes,
    axis_options,
    block,
    block_mask,
    block_sum,
    by_row,
    powers,
    residual_mask,
    residual_steps,
    same_block,
    same_call,
    spoiled,
    with_claimed,
    with_options,
)
from conformance.branches import (
    given,
    in_float16,
    in_float32,
    in_float64,
    scaled_by_column,
    scaled_by_first,
    scaled_twice,
)
from conformance.calls import KEY, gradient, modes
from conformance.check import (
    Finding,
    Results,
    Subject,
    Untold,
    check,
    equal,
    holds,
    refusal,
    refuses,
    told,
)
from conformance.looks import axis_dtypes, looks, of_each_mode, of_each_setting
from conformance.numerics import product
from conformance.protocol import Array, Call, Outcome
from conformance.skips import drawn_and_given, must_run, number_is_static, rows_kept, rows_run

# Every pair of two of them stands in a block, as x and f: 64 pairs in 160 elements.
ODD = np.array([0.0, -0.0, 1.0, -1.5, np.inf, -np.inf, np.nan, 60000.0])


def odd_values(subject: Subject, mode: str, dtype: str, training: bool = True) -> Call:
    """Return a residual call whose x and f are zeros, NaN and infinities, in all pairs."""
    i = np.arange(np.prod(BLOCK)).reshape(BLOCK)
    x, f = (product(ODD[part % 8], 1.0, dtype) for part in (i, i // 8))
    call = block(0.37, mode, dtype=dtype, branch=given, per_sample=[f])
    return replace(call, x=x, dy=None, training=training)


def dense(call: Call) -> Call:
    """Return the call without its dy."""
    return replace(call, dy=None)


@check("RES-1", needs=("residual",))
def kept_residuals(subject: Subject) -> Results:
    decisions = set()
    for case, call in looks(subject):
        (w,), keep = call.options["per_sample"], block_mask(subject, call)
        if call.options.get("mode") == "batch" and call.keep is None and 0.1 < call.drop_prob < 1:
            decisions.add(bool(keep.any()))
            yield holds(f"{case}, one decision", bool(keep.all() or not keep.any()), "one", "two")
        want, y = block_sum(call, call.x, call.x * w, keep), subject.run(dense(call)).y
        yield at_rows(case, keep, want, y, call.dtype, residual_steps(call.dtype))
    if decisions:
        yield holds("batch", len(decisions) == 2, "blocks kept and dropped", "one of them")
    yield from sums_of_odd_values(subject, kept=True)
    yield from cancelled(subject)


def sums_of_odd_values(subject: Subject, kept: bool) -> Results:
    """Compare the kept or the dropped rows of blocks of zeros, NaN and infinities."""
    for mode in modes(subject):
        for dtype in subject.info.dtypes:
            for training in (True, False) if kept else (True,):
                call = odd_values(subject, mode, dtype, training)
                keep = block_mask(subject, call) if training else np.ones(BLOCK, bool)
                want = block_sum(call, call.x, call.options["per_sample"][0], keep)
                case = f"{mode}, {dtype}, training={training}, zeros, NaN and infinities"
                steps, y = residual_steps(dtype) if kept else 0, subject.run(call).y
                yield at_rows(case, keep == kept, want, y, dtype, steps)


def cancelled(subject: Subject) -> Results:
    """Compare sums that are small beside both terms, where the terms are known to the last bit."""
    for dtype in subject.info.dtypes:
        call = block(0.36, "row", dtype=dtype, branch=given)  # s is 1/0.64, f of x nearly -1/s
        exact = dtype in ("float32", "float64")
        p, by = (0.5, -0.5) if exact else (0.36, -0.65625)
        f = product(call.x, by, dtype)
        call = replace(with_options(call, per_sample=[f]), drop_prob=p, dy=None)
        keep = block_mask(subject, call)
        want, y = block_sum(call, call.x, f, keep), subject.run(call).y
        yield from same_block(f"s f cancels x, {dtype}", keep, want, y, dtype)


@check("RES-2", needs=("residual",))
def dropped_residuals(subject: Subject) -> Results:
    for (case, call), unused in zip(looks(subject), cycle((np.inf, np.nan)), strict=False):
        keep = block_mask(subject, call)
        if call.training and not keep.all():
            with np.errstate(invalid="ignore"):
                y = subject.run(dense(spoiled(call, keep, unused))).y
            yield at_rows(f"{case}, f of {unused}", ~keep, call.x, y, call.dtype)
    yield from sums_of_odd_values(subject, kept=False)


@check("RES-3", needs=("residual",))
def stream_keeps_its_dtype(subject: Subject) -> Results:
    for case, call in chain(of_each_mode(subject), of_each_setting(subject)):
        outcome = subject.run(with_claimed(subject, call))
        yield of_dtype(case, outcome, call.dtype)
    for mode in modes(subject):
        for dtype in subject.info.dtypes if mode == "row" else subject.info.dtypes[-1:]:
            for branch in (in_float64, in_float32, in_float16):
                for training in (True, False) if mode == "row" else (True,):
                    yield from sums_of_another_dtype(subject, mode, dtype, branch, training)


def sums_of_another_dtype(
    subject: Subject, mode: str, dtype: str, branch: Any, training: bool
) -> Results:
    """Compare a block whose branch returns another dtype, that holds its numbers exactly."""
    call = replace(block(0.37, mode, dtype=dtype, branch=branch), dy=None, training=training)
    call = replace(call, x=np.exp2(call.x.round()))
    keep, outcome = block_mask(subject, call), subject.run(call)
    case = f"{mode}, {dtype}, training={training}, {branch.__name__}"
    yield of_dtype(case, outcome, dtype)
    want = block_sum(call, call.x, call.x * call.options["per_sample"][0], keep)
    yield from same_block(case, keep, want, outcome.y, dtype)


def of_dtype(case: str, outcome: Outcome, dtype: str) -> Finding | None:
    """Return a finding unless y, and dx where there is one, are of the dtype of x."""
    got = {outcome.dtype, outcome.dx_dtype or dtype}
    return holds(case, got == {dtype}, dtype, sorted(got))


@check("RES-4", needs=("residual", "skip"))
def runs_what_it_must(subject: Subject) -> Results:
    static = "balanced" in subject.info.claims and number_is_static(subject)
    for case, call, groups in drawn_and_given(subject):
        kept, rows = rows_kept(subject, call), len(by_row(call, call.x))
        can = not refusal(subject, with_options(dense(call), skip=True))
        must = must_run(call, kept, rows, groups, static) if can else (rows,)
        case = f"{case}, p={call.drop_prob}, {kept} of {rows} kept"
        # a given mask that a program cannot read may keep too many rows: it may run all, unasked
        unasked = (*must, rows) if static and call.keep is not None else must
        yield ran(subject, f"{case}, skip=None", with_options(call, skip=None), *unasked)
        if can:
            yield ran(subject, f"{case}, skip=True", with_options(call, skip=True), *must)
        yield ran(subject, f"{case}, skip=False", with_options(call, skip=False), rows)
    if "balanced" in subject.info.claims:
        yield from spare_rows_leave_no_trace(subject)


def ran(subject: Subject, case: str, call: Call, *rows: int) -> Finding | Untold | None:
    """Return a finding unless the branch ran on one of so many rows."""
    want = " or ".join(map(str, rows))
    return told(
        "ran",
        rows_run(subject, call),
        lambda got: holds(case, got in rows, f"{want} rows run", got),
    )


def spare_rows_leave_no_trace(subject: Subject) -> Results:
    for dtype in subject.info.dtypes:
        for skip in (None, False):
            call = with_options(block(0.37, "balanced", dtype=dtype, groups=8), skip=skip)
            keep = residual_mask(subject, call)
            want, outcome = (
                subject.run(dense(call)).y,
                subject.run(spoiled(dense(call), keep, np.nan)),
            )
            spare = (outcome.ran or 0) - int(keep[:, 0].sum())
            if skip is False:
                got = None if outcome.ran is None else spare
                yield told("ran", got, partial(spares, dtype))
            yield equal(f"NaN in {spare} spare rows, {dtype}", want, outcome.y, dtype)


def spares(case: str, count: int) -> Finding | None:
    """Return a finding unless there are spare rows."""
    return holds(case, count > 0, "some spare row", count)


@check("RES-5", needs=("residual", "skip"))
def skipping_changes_nothing(subject: Subject) -> Results:
    for case, call in looks(subject):
        skip = True if call.options.get("mode") == "balanced" and call.keep is None else None
        one = with_claimed(subject, call)
        pair = [with_options(one, skip=how) for how in (False, skip)]
        yield from same_call(subject, case, *pair)
    if "balanced" in subject.info.claims:
        for first in (64, 2**32 + 64):
            call = with_claimed(subject, block(0.37, "balanced", groups=8, offset=first))
            pair = [with_options(call, skip=how) for how in (False, True)]
            yield from same_call(subject, f"offset={first}", *pair)


@check("RES-6", needs=("residual",))
def arguments_follow_their_rows(subject: Subject) -> Results:
    for mode in modes(subject):
        for axis, dtype in [
            *((0, dtype) for dtype in subject.info.dtypes),
            *((axis, axis_dtypes(subject)[mode]) for axis in axes(subject)[1:]),
        ]:
            for training in (True, False):
                call = block(0.37, mode, BLOCK_OF_AXIS[axis], dtype, **axis_options(axis))
                (w,), v = call.options["per_sample"], powers(160, KEY[::-1]).reshape(BLOCK)
                call = with_options(dense(call), branch=scaled_twice, per_sample=[w, v])
                call = replace(call, training=training)
                keep = block_mask(subject, call)
                want = block_sum(call, call.x, call.x * w * v, keep)
                case = f"{mode}, axis={axis}, {dtype}, training={training}"
                yield from same_block(case, keep, want, subject.run(call).y, dtype)
        for rows in (0, 1, 31, 33, 64):
            for training in (True, False):
                call = with_options(dense(block(0.37, mode)), per_sample=[np.ones((rows, 1))])
                case = f"{mode}, training={training}, an argument of {rows} rows for 32"
                yield refuses(subject, case, replace(call, training=training))
    yield from arguments_of_other_ranks(subject)


def arguments_of_other_ranks(subject: Subject) -> Results:
    """Compare blocks whose arguments have fewer and more axes than x."""
    for mode in modes(subject):
        call, w = dense(block(0.37, mode)), powers(32 * 10)
        for shape in ((32,), (32, 5, 2)):
            v = w[: np.prod(shape)].reshape(shape)
            call = with_options(call, branch=scaled_by_first if v.ndim > 2 else scaled_by_column)
            call = with_options(call, per_sample=[v])
            keep = block_mask(subject, call)
            f = call.x * (v[:, :, 0] if v.ndim > 2 else v[:, None])
            want, case = block_sum(call, call.x, f, keep), f"{mode}, an argument of shape {shape}"
            yield from same_block(case, keep, want, subject.run(call).y, call.dtype)


@check("RES-7", needs=("residual", "gradient"))
def gradient_of_a_block(subject: Subject) -> Results:
    for case, call in looks(subject):
        keep = block_mask(subject, call)
        yield from gradient_of(subject, case, call, keep, np.inf)
        if "skip" in subject.info.claims:
            call = with_options(call, skip=False)
            yield from gradient_of(subject, f"{case}, skip=False", call, keep, np.nan)
    for mode in modes(subject):
        for dtype in subject.info.dtypes:
            for training in (True, False):
                call = replace(block(0.37, mode, dtype=dtype), training=training)
                dy = product(np.resize(ODD, BLOCK), 1.0, dtype)
                keep, case = block_mask(subject, call), f"{mode}, {dtype}, training={training}"
                case = f"{case}, zeros, NaN and infinities in dy"
                yield from gradient_of(subject, case, replace(call, dy=dy), keep, np.nan)


def gradient_of(subject: Subject, case: str, call: Call, keep: Array, unused: float) -> Results:
    """Compare dx of the branch `scaled`, whose J is `unused` on rows that training drops."""
    (w,), dy = call.options["per_sample"], np.zeros(()) if call.dy is None else call.dy
    want, dtype = block_sum(call, dy, w * dy, keep), call.dtype
    with np.errstate(over="ignore", invalid="ignore"):
        dx = gradient(subject, spoiled(call, keep, unused) if call.training else call)
    yield at_rows(f"{case}, dropped rows", ~keep, want + 0.0, dx + 0.0, dtype)  # -0 + 0 is 0
    yield at_rows(f"{case}, kept rows", keep, want, dx, dtype, 2)
