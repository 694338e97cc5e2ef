"""COMP: a compiled program draws as the eager call does; keys and rates are its data."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

import droppath
from conformance.blocks import (
    BLOCK,
    BLOCK_OF_AXIS,
    axes,
    axis_options,
    block,
    plain_and_block,
    powers,
    same_call,
    some_kept,
    with_claimed,
    with_options,
)
from conformance.calls import KEY, forms, mode_options, modes
from conformance.check import Finding, Results, Subject, Untold, check, equal, holds, told
from conformance.looks import axis_dtypes
from conformance.numerics import sample
from conformance.protocol import Call, Outcome


@check("COMP-1", needs=("compile", "keyed"))
def compiled_is_eager(subject: Subject) -> Results:
    for mode in modes(subject):
        for dtype in subject.info.dtypes if mode == "row" else subject.info.dtypes[-1:]:
            made = replace(block(0.37, mode, dtype=dtype), key=KEY)
            for call in plain_and_block(subject, made):
                one = with_claimed(subject, call)
                case = f"{call.op}, {mode}, {dtype}"
                yield from same_call(subject, case, one, replace(one, compiled=True))
    for mode in modes(subject):
        made = replace(block(0.37, mode, dtype=subject.info.dtypes[-1]), key=KEY, dy=None)
        for call in plain_and_block(subject, made):
            for what, one in one_after_the_other(subject, call, mode):
                case = f"{call.op}, {mode}, {what}"
                yield from same_call(subject, case, one, replace(one, compiled=True))


def one_after_the_other(subject: Subject, call: Call, mode: str) -> Iterator[tuple[str, Call]]:
    """Return calls that differ from the one before in what a program may not have frozen."""
    yield "first", call
    yield "other values of x", replace(call, x=call.x[::-1] * 2)
    if "per_sample" in call.options:
        yield "other arguments", with_options(call, per_sample=[powers(32)[::-1].reshape(-1, 1)])
    yield "evaluation", replace(call, training=False)
    grouped = with_options(call, groups=8) if mode == "balanced" else call
    yield "offset=64", with_options(grouped, offset=64)
    for p in {"row": (0.1, 0.0, 1.0), "balanced": (0.0, 1.0), "batch": (0.1,)}[mode]:
        yield f"p={p}", replace(call, drop_prob=p)
    if "keep" in subject.info.claims and mode != "batch":
        given = replace(call, key=None, seed=None)
        yield "a keep", replace(given, keep=some_kept(32))
        yield "another keep", replace(given, keep=~some_kept(32))
    if mode != "row":
        return
    if "scale_by_keep" in subject.info.claims:
        yield "scale_by_keep=False", with_options(call, scale_by_keep=False)
    if "scale_at" in subject.info.claims:
        for training in (True, False):
            case = f"training={training}, scale_at=eval"
            yield case, replace(with_options(call, scale_at="eval"), training=training)
    for axis in axes(subject)[1:]:
        made = block(0.37, mode, BLOCK_OF_AXIS[axis], call.dtype, **axis_options(axis))
        made = replace(made, key=KEY, dy=None)
        yield f"axis={axis}", made if call.op == "residual" else plain_and_block(subject, made)[0]
    yield "first again", call


@check("COMP-2", needs=("compile", "keyed"))
def another_key_is_data(subject: Subject) -> Results:
    for mode in modes(subject):
        dtype = axis_dtypes(subject)[mode]
        for call in forms(subject, Call(np.ones(BLOCK), 0.37, dtype, options=mode_options(mode))):
            yield from of_one_program(subject, f"{call.op}, {mode}, {dtype}", call)
        if "residual" in subject.info.claims:
            call = replace(block(0.37, mode, dtype=dtype), x=np.ones(BLOCK))
            call = with_claimed(subject, call)
            yield from of_one_program(subject, f"block and gradient, {mode}, {dtype}", call)


def of_one_program(subject: Subject, case: str, call: Call) -> Results:
    """Compare calls of several keys and arguments, and hold all but the first to its program."""
    masks = set()
    for i, key in enumerate(droppath.split(KEY, 6)):
        given: dict[str, Any] = {}
        if "per_sample" in call.options:
            given = {"per_sample": [powers(32, key).reshape(-1, 1)]}
        one = replace(with_options(call, **given), key=key)
        compiled = subject.run(replace(one, compiled=True))
        yield from same_call(subject, f"{case}, key {i}", one, replace(one, compiled=True))
        if i:
            yield not_built(f"{case}, key {i}", compiled)
        masks.add((compiled.y != (1.0 if call.op == "residual" else 0.0)).tobytes())
    yield holds(case, len(masks) > 1, "several masks", "one")


def not_built(case: str, outcome: Outcome) -> Finding | Untold | None:
    """Return a finding unless the outcome came from a program that was there."""
    return told(
        "built", outcome.built, lambda built: holds(case, not built, "one program", "another")
    )


# Near the ends, beside them, on both sides of 0.1: each is another number in another dtype.
RATES_AS_DATA = (0.0, 1e-9, 2.0**-24, 0.0007, 0.02, 0.1, 1 / 3, 0.37, 0.5, 0.9, 0.9995, 1.0)


@check("COMP-3", needs=("scan", "keyed"))
def rates_are_data(subject: Subject) -> Results:
    rates = tuple(float(np.float32(p)) for p in RATES_AS_DATA)  # none loses a bit on its way
    for dtype in subject.info.dtypes:
        x = sample((64, 5), dtype)
        for i, given in enumerate((rates, rates[::-1], (0.0, *rates[5:], *rates[1:5]))):
            outcome = subject.run(Call(x, list(given), dtype, "layers", key=KEY))
            calls = [
                Call(x, p, dtype, key=droppath.fold_in(KEY, layer)) for layer, p in enumerate(given)
            ]
            want, case = np.stack([subject.run(call).y for call in calls]), f"{given}, {dtype}"
            yield equal(f"{case}, masks", (want != 0) * 1.0, (outcome.y != 0) * 1.0, "float32")
            yield equal(case, want, outcome.y, dtype, 4)
            if i and "compile" in subject.info.claims:
                yield not_built(f"other rates, {dtype}", outcome)


@check("COMP-4", needs=("vmap", "keyed"))
def mapped_is_alone(subject: Subject) -> Results:
    keys = droppath.split(KEY, 5)
    for mode in modes(subject):
        for dtype in subject.info.dtypes:
            x = sample((5, *BLOCK), dtype)
            x[1, ::2], x[2, 1::2, 0] = np.nan, np.inf
            for order in (keys, keys[[3, 0, 0, 4, 2]]):
                call = Call(x, 0.37, dtype, options=mode_options(mode))
                got = subject.run(replace(call, op="mapped", key=order)).y
                pairs = zip(x, order, strict=True)
                want = [subject.run(replace(call, x=one, key=key)).y for one, key in pairs]
                yield equal(f"{mode}, {dtype}", np.stack(want), got, dtype)
