"""STACK: layers one after the other, of which a plan runs some.

The rates are such that s is a power of 2, and the layers multiply by such numbers that every sum is
exact in every dtype: the order of the sums, and one rounding more or less, cannot show.
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import product
from typing import Any

import numpy as np

import droppath
from conformance.blocks import factor, with_claimed
from conformance.branches import scaled_by
from conformance.calls import KEY
from conformance.check import Finding, Results, Subject, check, equal, holds, refuses, told
from conformance.clauses.plan import planned, threshold
from conformance.protocol import Array, Call

SHAPE = (5, 4)
# The rates of the layers, and for each layer s w.
STACKS: dict[str, tuple[list[float], list[float]]] = {
    "a whole sum": ([0.0, 0.5, 0.75, 0.5, 0.75, 0.5], [1.0, 2.0, -3.0, 1.0, -2.0, 4.0]),
    "a spare": ([0.5, 0.75, 0.5], [2.0, -3.0, 4.0]),
    "0 and 1": ([1.0, 0.5, 0.0, 0.5], [8.0, 2.0, 3.0, -2.0]),
    "one": ([0.75], [-3.0]),
    "none dropped": ([0.0, 0.0], [2.0, -3.0]),
    "all dropped": ([1.0, 1.0], [2.0, -3.0]),
}
SPECIAL = np.array([np.inf, -np.inf, np.nan, -0.0, 0.0])
LATE = {"scale_at": "eval"}


def stack(case: str, dtype: str = "float32", key: Any = KEY, **options: Any) -> Call:
    """Return the call of a stack, with its dy."""
    rates, gains = STACKS[case]
    params = np.array([g * (1 - p if p < 1 else 1) for p, g in zip(rates, gains, strict=True)])
    x = np.resize([1.0, -2.0, 0.5, 3.0, -1.5, 2.0], SHAPE)
    options = {"branch": scaled_by, "params": params, **options}
    return Call(x, rates, dtype, "stack", seed=None, key=key, dy=x[::-1].copy(), options=options)


def wanted(call: Call, x: Array) -> Array:
    """Return x after the stack, whose layers are linear: dy, too, gives dx so."""
    plan = [1.0] * len(call.drop_prob)
    if call.training:
        plan = planned(call.drop_prob, call.key) if call.keep is None else call.keep
    for p, w, runs in zip(call.drop_prob, call.options["params"], plan, strict=True):
        s = factor(replace(call, drop_prob=p))
        if runs and s:
            with np.errstate(invalid="ignore"):
                x = x + s * (x * w)
    return x


def cases(subject: Subject) -> Iterator[tuple[str, str]]:
    """Yield each case in the first dtype, and some in the others: a compiler takes each anew."""
    first, *others = subject.info.dtypes
    yield from ((case, first) for case in STACKS)
    yield from product([*STACKS][:2], others)


def asked(subject: Subject) -> Iterator[tuple[str, Call]]:
    """Yield the calls of both phases, and what they are called."""
    claims = subject.info.claims
    settings: list[dict[str, Any]] = [{}, *([LATE] if "scale_at" in claims else [])]
    settings += [{"scale_by_keep": False}] if "scale_by_keep" in claims else []
    for case, dtype in cases(subject):
        for key in droppath.split(KEY, 4):
            yield f"{case}, {dtype}, key {key.tolist()}", stack(case, dtype, key)
    for case in ("a whole sum", "0 and 1"):
        for options in settings:
            given = "".join(f", {k}={v}" for k, v in options.items())
            call = stack(case, subject.info.dtypes[0], **options)
            if options:
                yield f"{case}{given}", call
            yield f"{case}{given}, evaluation", replace(call, training=False, key=None)
        for keep in ([True] * 6, [False, True, False, False, True, True]):
            plan = np.array(keep[: len(STACKS[case][0])])
            call = replace(stack(case), key=None, keep=plan)
            yield f"{case}, the plan {plan.tolist()}", call


@check("STACK-1", needs=("stack",))
def layers_are_added(subject: Subject) -> Results:
    for case, call in asked(subject):
        call = with_claimed(subject, call)
        outcome = subject.run(call)
        yield equal(case, wanted(call, call.x), outcome.y, call.dtype)
        if call.dy is not None:
            dx = np.zeros(()) if outcome.dx is None else outcome.dx
            yield equal(f"{case}, dx", wanted(call, call.dy), dx, call.dtype)
    right = stack("a whole sum")
    if "stateless" in subject.info.claims:
        yield refuses(subject, "no key in training", replace(right, key=None))
    plan = np.ones(6, bool)
    for case, wrong in (
        ("key and plan", replace(right, keep=plan)),
        ("a plan of 5 layers", replace(right, key=None, keep=plan[:5])),
        ("5 rates", replace(right, drop_prob=right.drop_prob[:5])),
        ("a rate of 1.5", replace(right, drop_prob=[1.5] * 6)),
        ("no rate", replace(right, drop_prob=[])),
    ):
        yield refuses(subject, case, replace(wrong, dy=None))


@check("STACK-2", needs=("stack",))
def dropped_layers_count_for_nothing(subject: Subject) -> Results:
    for case, dtype in cases(subject):
        call = stack(case, dtype)
        runs = np.array(planned(call.drop_prob, KEY)) > 0
        for value in (np.nan, np.inf):
            params = np.where(runs, call.options["params"], value)
            spoiled = replace(call, options={**call.options, "params": params})
            outcome = subject.run(with_claimed(subject, spoiled))
            named = f"{case}, {dtype}, dropped layers hold {value}"
            yield equal(named, wanted(call, call.x), outcome.y, dtype)
            if outcome.dx is not None and call.dy is not None:
                yield equal(f"{named}, dx", wanted(call, call.dy), outcome.dx, dtype)
        x = np.resize(SPECIAL, SHAPE)
        special = subject.run(with_claimed(subject, replace(call, x=x)))
        yield equal(f"{case}, {dtype}, special x", wanted(call, x), special.y, dtype)


@check("STACK-3", needs=("stack",))
def dropped_layers_are_not_computed(subject: Subject) -> Results:
    for case, (rates, _) in STACKS.items():
        most = len(rates) - (sum(map(threshold, rates)) >> 23)
        for key in droppath.split(KEY, 6):
            ran = subject.run(replace(stack(case, key=key), dy=None)).ran
            named, want = f"{case}, key {key.tolist()}", f"at most {most} layers"
            yield told("ran", ran, partial(not_above, named, most, want))
    if "compile" in subject.info.claims:
        for case in STACKS:
            call = replace(stack(case), compiled=True, dy=None)
            every = replace(call, key=None, keep=np.array(call.drop_prob) < 1)
            for first in (every, call):  # in PyTorch each layer is a program, made when it runs
                subject.run(first)
            other = replace(call, key=droppath.fold_in(KEY, 9))
            outcome = subject.run(other)
            yield equal(f"{case}, compiled", wanted(other, other.x), outcome.y, other.dtype)
            yield told("built", outcome.built, partial(not_built, f"{case}, another key"))


def not_above(case: str, most: int, want: str, got: int) -> Finding | None:
    """Return a finding if a number is above the most."""
    return holds(case, got <= most, want, got)


def not_built(case: str, built: bool) -> Finding | None:
    """Return a finding if a program was made."""
    return holds(case, not built, "no other program", "one more")
