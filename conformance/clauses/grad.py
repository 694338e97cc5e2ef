"""GRAD: the gradient has the forward's mask and factor."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from conformance.blocks import (
    BLOCK,
    BLOCK_OF_AXIS,
    EXTREMES,
    SHAPES,
    axes,
    axis_options,
    block_mask,
    factor,
    settings,
    some_kept,
    with_options,
)
from conformance.calls import (
    KEY,
    LARGE,
    MIDDLE,
    RATES,
    SMALL,
    SPECIAL,
    forms,
    gradient,
    minus_half,
    mode_options,
    modes,
)
from conformance.check import Results, Subject, check, equal
from conformance.looks import axis_dtypes
from conformance.numerics import product, sample
from conformance.protocol import Array, Call


@check("GRAD-1", needs=("gradient",))
def gradient_follows_the_rule(subject: Subject) -> Results:
    for case, call in plain_calls(subject):
        x, axis = call.x, call.options.get("axis", 0)
        dy = sample(x.shape, call.dtype, first=9000)
        special = np.resize(np.append(SPECIAL, 0.0), dy[..., :2].size)  # in rows kept and dropped
        dy[..., :2] = product(special, 1.0, call.dtype).reshape(dy[..., :2].shape)
        keep = mask_of(subject, call, axis)
        want = np.where(keep, product(dy, factor(call), call.dtype), 0.0)
        yield equal(case, want, gradient(subject, replace(call, dy=dy)), call.dtype)


def plain_calls(subject: Subject) -> Iterator[tuple[str, Call]]:
    """Return calls of drop_path whose gradient is looked at, and what they are called."""
    for dtype in subject.info.dtypes:
        x = sample(SMALL, dtype)
        for p in (*RATES, *EXTREMES):
            yield f"p={p}, {dtype}", Call(x, p, dtype)
        for shape in (MIDDLE, LARGE):
            yield f"{dtype}, {shape}", Call(sample(shape, dtype), 0.37, dtype)
        for training, options in settings(subject):
            call = Call(x, 0.37, dtype, training=training, options=options)
            yield f"training={training}, {dtype}, {options}", call
            if not training:
                for p in (0.0, 1.0):
                    yield f"training=False, p={p}, {dtype}, {options}", replace(call, drop_prob=p)
            if "keep" in subject.info.claims:
                for p in (0.37, *EXTREMES[:2]):
                    given = replace(call, drop_prob=p, keep=some_kept(len(x)), seed=None)
                    yield f"training={training}, a keep, p={p}, {dtype}, {options}", given
        for mode in modes(subject)[1:]:
            for seed in range(6 if mode == "batch" else 1):
                call = Call(x, 0.37, dtype, seed=seed, options=mode_options(mode))
                yield f"{mode}, {dtype}, seed={seed}", call
    for small in SHAPES:
        yield f"{small}", Call(sample(small, "float32"), 0.37)
    for mode, dtype in axis_dtypes(subject).items():
        for axis in axes(subject)[1:]:
            x, options = sample(BLOCK_OF_AXIS[axis], dtype), mode_options(mode)
            options = {**options, **axis_options(axis)}
            yield f"{mode}, axis={axis}, {dtype}", Call(x, 0.37, dtype, options=options)


def mask_of(subject: Subject, call: Call, axis: int) -> Array:
    """Return which rows of drop_path count: as it shows in a draw, else as SPEC.md says."""
    if call.training and call.keep is None:
        return subject.keep(call)
    return block_mask(subject, call)


@check("GRAD-2", needs=("gradient",))
def one_mask_both_ways(subject: Subject) -> Results:
    calls = [
        (f"{mode}, seed={seed}", Call(np.ones(BLOCK), 0.37, seed=seed, options=mode_options(mode)))
        for mode in modes(subject)
        for seed in (range(3) if mode == "batch" else range(1))
    ]
    for axis in axes(subject)[1:]:
        x, options = np.ones(BLOCK_OF_AXIS[axis]), axis_options(axis)
        calls.append((f"axis={axis}", Call(x, 0.37, options=options)))
    if "keyed" in subject.info.claims:
        calls += [(f"{case}, keyed", replace(call, key=KEY)) for case, call in calls]
        calls.append(("offset=96", with_options(replace(calls[0][1], key=KEY), offset=96)))
    for recompute in (False, True) if "recompute" in subject.info.claims else (False,):
        for what, call in calls:
            for form in forms(subject, replace(call, dy=np.ones_like(call.x), recompute=recompute)):
                outcome, dropped = subject.run(form), 0.0 if form.op == "drop_path" else 1.0
                case = f"{form.op}, {what}, forward {'run again' if recompute else 'kept'}"
                dx = np.zeros(()) if outcome.dx is None else outcome.dx
                yield equal(case, (outcome.y != dropped) * 1.0, (dx != dropped) * 1.0, "float32")


@check("GRAD-3", needs=("gradient",))
def gradient_is_zero_at_rate_1(subject: Subject) -> Results:
    for dtype in subject.info.dtypes:
        x, dy = (product(np.resize(v, BLOCK), 1.0, dtype) for v in (SPECIAL, SPECIAL[::-1]))
        for mode in modes(subject):
            call = Call(x, 1.0, dtype, dy=dy, options=mode_options(mode))
            yield equal(f"{mode}, {dtype}", np.zeros_like(x), gradient(subject, call), dtype)
            if "residual" in subject.info.claims:
                block = with_options(replace(call, op="residual"), branch=minus_half)
                with np.errstate(invalid="ignore"):
                    dx = gradient(subject, block)
                yield equal(f"a block, {mode}, {dtype}", dy + 0.0, dx + 0.0, dtype)
            if "keep" in subject.info.claims:
                given = replace(call, keep=some_kept(len(x)) | (mode == "batch"), seed=None)
                case = f"{mode}, a keep, {dtype}"
                yield equal(case, np.zeros_like(x), gradient(subject, given), dtype)
