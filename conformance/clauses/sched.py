"""SCHED: rates over depth and over training."""

import math
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from itertools import product
from typing import Any

import numpy as np

from conformance.check import Finding, Results, Subject, check, holds, refuses, told
from conformance.protocol import Array, Call, Outcome

# Block i of L, as in SCHED-1; one block under the linear rule has the full rate (SCHED-2).
RULES: dict[str, Callable[[int, int], Fraction]] = {
    "linear": lambda i, blocks: Fraction(i, blocks - 1) if blocks > 1 else Fraction(1),
    "paper": lambda i, blocks: Fraction(i + 1, blocks),
    "exclusive": lambda i, blocks: Fraction(i, blocks),
    "uniform": lambda i, blocks: Fraction(1),
}
# For L = 4 blocks at 0.3, by hand.
BY_HAND = {
    "linear": [0.0, 0.1, 0.2, 0.3],
    "paper": [0.075, 0.15, 0.225, 0.3],
    "exclusive": [0.0, 0.075, 0.15, 0.225],
    "uniform": [0.3, 0.3, 0.3, 0.3],
}
TOLERANCE = 1e-12
STAGES: tuple[list[int], ...] = (
    *([2, 2], [1, 3], [3, 0, 1], [0, 4], [0, 0, 3, 1, 0], [1, 1, 1, 1], [4], [2, 2, 6, 2]),
    *([3, 3, 27, 3], [1], [0, 1], [], [0], [0, 0]),
)


def rates_call(rule: Any, depth: Any, rate: Any = 0.3) -> Call:
    """Return a call of drop_path_rates."""
    options = {"drop_path_rate": rate, "depth": depth, "rule": rule}
    return Call(op="drop_path_rates", options=options)


def near(case: str, want: list[float], got: Array) -> Finding | None:
    """Compare within SCHED-1's tolerance."""
    same = got.shape == (len(want),)
    same = same and bool((np.abs(got - np.array(want)) <= TOLERANCE).all())
    return holds(case, same, str(want), got)


def by_rule(rule: str, blocks: int, rate: float) -> list[float]:
    """Return the rates of a flat model, each rounded once."""
    return [float(Fraction(rate) * RULES[rule](i, blocks)) for i in range(blocks)]


@check("SCHED-1", needs=("schedule",))
def rules_over_depth(subject: Subject) -> Results:
    for rule, want in BY_HAND.items():
        yield near(rule, want, subject.run(rates_call(rule, 4)).y)
        for blocks, rate in product((2, 3, 12, 54), (0, 0.0, 1, 1.0, 0.1, 0.7, 1e-9)):
            got = subject.run(rates_call(rule, blocks, rate)).y
            case = f"{rule}, L={blocks}, {rate!r}"
            yield near(case, by_rule(rule, blocks, rate), got)
            if rule in ("linear", "paper") and got.size:
                yield holds(f"{case}, last", got[-1] == rate, str(rate), got[-1])
            in_range = bool(((got >= 0) & (got <= min(rate + TOLERANCE, 1))).all())
            yield holds(f"{case}, range", in_range, "0 to drop_path_rate", got)
    wrong: tuple[Any, ...] = (-0.1, 1.5, math.nan, math.inf, True, None, "0.1", 0.1 + 0j)
    depths: tuple[Any, ...] = (4, [2, 2], 1, 0)
    for given, depth in product(wrong, depths):
        yield refuses(subject, f"{given!r}, depth={depth}", rates_call("linear", depth, given))


@check("SCHED-2", needs=("schedule",))
def short_models(subject: Subject) -> Results:
    for rule, full in (("linear", 1), ("paper", 1), ("exclusive", 0), ("uniform", 1)):
        for rate in (0.3, 0.0, 1.0, 0.1):
            got = subject.run(rates_call(rule, 0, rate)).y
            yield holds(f"{rule}, L=0, {rate}", got.size == 0, "no rates", got)
            got = subject.run(rates_call(rule, 1, rate)).y
            yield holds(
                f"{rule}, L=1, {rate}", got.tolist() == [rate * full], str(rate * full), got
            )


@check("SCHED-3", needs=("schedule",))
def stages_nest(subject: Subject) -> Results:
    told_apart = subject.run(rates_call("linear", [2, 2])).stages is not None
    cases = STAGES if told_apart else ([2, 2], [1, 1, 1, 1])  # an array can hold these alone
    for rule, stages in ((rule, stages) for rule in RULES for stages in cases):
        outcome = subject.run(rates_call(rule, stages))
        case, y, blocks = f"{rule}, stages of {stages}", outcome.y.reshape(-1), sum(stages)
        yield near(case, by_rule(rule, blocks, 0.3), y)
        yield from stages_are(case, stages, outcome)
        if rule in ("linear", "paper") and blocks:
            yield holds(f"{case}, last", y[-1:].tolist() == [0.3], "0.3", y[-1:])


def stages_are(case: str, want: list[int], outcome: Outcome) -> Results:
    """Compare how many rates each stage has."""
    yield told(
        "stages", outcome.stages, lambda got: holds(case, got == tuple(want), f"{want}", got)
    )


def ramp_call(step: Any, **options: Any) -> Call:
    """Return a call of ramp."""
    return Call(op="ramp", options={"step": step, **options})


@check("SCHED-4", needs=("schedule",))
def ramps_land(subject: Subject) -> Results:
    ends = ((0.05, 0.3), (0.3, 0.05), (0.0, 1.0), (1, 0), (0.2, 0.2), (0.1, 0.7))
    spans = (
        (2, 10),
        (0, 10),
        (-8, -4),
        (1_000_000, 1_000_008),
        (0, 1_000_000),
        (0.5, 1.75),
        (0.25, 0.5),
        (-4, 4),
    )
    for shape, (start, stop), (begin, end) in product(("linear", "cosine"), ends, spans):
        options = {"begin": begin, "end": end, "start": start, "stop": stop, "shape": shape}
        case = ", ".join(f"{name}={value}" for name, value in options.items())
        yield from ramp_is_right(subject, case, options)
    for shape in ("linear", "cosine"):
        yield from ramp_without_length(subject, shape)


def ramp_is_right(subject: Subject, case: str, options: dict[str, Any]) -> Results:
    """Hold a ramp before, at, between and after its ends, as an array and step by step."""
    begin, end, start, stop = (options[name] for name in ("begin", "end", "start", "stop"))
    length, tiny = end - begin, (end - begin) * 1e-9
    u = np.array([0.0625, 0.125, 0.25, 1 / 3, 0.5, 0.75, 0.9375])
    before, after = [begin - 1e6, begin - 1, begin], [end, end + 0.5 * length, end + 1, end + 1e6]
    inside = begin + u * length
    w = (
        u
        if options["shape"] == "linear"
        else np.array([(1 - math.cos(math.pi * v)) / 2 for v in u])
    )
    steps = np.array([*before, begin + tiny, *inside, end - tiny, *after], np.float64)
    y = subject.run(ramp_call(steps, **options)).y
    if y.shape != steps.shape:
        yield holds(case, False, f"shape {steps.shape}", f"shape {y.shape}")
        return
    yield holds(f"{case}, before", bool((y[:3] == start).all()), f"{start}", y[:3])
    yield holds(f"{case}, after", bool((y[-4:] == stop).all()), f"{stop}", y[-4:])
    jump = max(abs(y[3] - start), abs(y[11] - stop))
    yield holds(f"{case}, ends", jump < 1e-8, "no jump", jump)
    want = start + (stop - start) * w
    yield holds(f"{case}, u={u}", bool((np.abs(y[4:11] - want) < 1e-10).all()), str(want), y[4:11])
    rises = np.diff(y) * np.sign(stop - start)
    yield holds(f"{case}, order", bool((rises >= -TOLERANCE).all()), "one direction", y)
    for i in (0, 2, 6, 12, 15):
        alone = subject.run(ramp_call(float(steps[i]), **options)).y
        yield holds(
            f"{case}, step {steps[i]} alone",
            abs(alone.item() - y[i]) <= TOLERANCE,
            str(y[i]),
            alone,
        )
    whole = [int(step) for step in (begin, begin + length // 2, end, end + 1)]
    both = [subject.run(ramp_call(np.array(whole, t), **options)).y for t in (np.int64, np.float64)]
    yield holds(
        f"{case}, integer steps",
        bool((np.abs(both[0] - both[1]) <= TOLERANCE).all()),
        str(both[1]),
        both[0],
    )


def ramp_without_length(subject: Subject, shape: str) -> Results:
    """Hold a ramp whose begin is its end: start before, stop after, and there one of both."""
    for at, (start, stop) in product((0, 5, 1_000_000), ((0.1, 0.9), (0.9, 0.1))):
        options = {"begin": at, "end": at, "start": start, "stop": stop, "shape": shape}
        y = subject.run(
            ramp_call(np.array([at - 1, at - 1e-6, at, at + 1e-6, at + 1]), **options)
        ).y
        want = [start, start, stop if y[2:3] == stop else start, stop, stop]
        yield holds(f"{options}", y.tolist() == want, str(want), y)


@check("SCHED-5", needs=("schedule",))
def depth_is_expected(subject: Subject) -> Results:
    for case, rates, want in (
        ("L=54, p_L=0.5, paper", by_rule("paper", 54, 0.5), 40.25),
        ("L=54, p_L=0.5, linear", by_rule("linear", 54, 0.5), 40.5),
        ("stages of 18", np.reshape(by_rule("paper", 54, 0.5), (3, 18)).tolist(), 40.25),
        ("ragged stages", [[0.25], [], [0.5, 1.0, 0.0], [0.75]], 2.5),
        ("no blocks", [], 0.0),
        ("empty stages", [[], []], 0.0),
        ("rates of 0 and 1", [0, 1, 0.0, 1.0, 0], 3.0),
        ("one block", [0.375], 0.625),
        ("1000 rates of 0.1", [0.1] * 1000, 900.0),
    ):
        got = float(subject.run(Call(op="expected_depth", options={"rates": rates})).y)
        yield holds(case, abs(got - want) < 1e-9, str(want), got)


@check("SCHED-6", needs=("schedule", "plan"))
def whole_rates(subject: Subject) -> Results:
    grid = 2**23
    depths: tuple[Any, ...] = (12, 54, 1, 2, 5, 0, [3, 3, 27, 3], [2, 0, 1], [18, 18, 18])
    for rule, depth, rate in product(RULES, depths, (0.0, 0.1, 0.37, 0.5, 0.9, 1.0)):
        call = rates_call(rule, depth, rate)
        outcome = subject.run(replace(call, options={**call.options, "whole": True}))
        case = f"{rule}, depth={depth}, {rate}, whole"
        sizes: list[int] = depth if isinstance(depth, list) else [depth]
        by_rule = np.split(by_rule_of(rule, sum(sizes), rate), np.cumsum(sizes)[:-1])
        if isinstance(depth, list):
            yield from stages_are(case, depth, outcome)
        if outcome.y.size != sum(sizes):
            yield holds(case, False, f"{sum(sizes)} rates", outcome.y)
            continue
        for want, got in zip(by_rule, np.split(outcome.y, np.cumsum(sizes)[:-1]), strict=True):
            units = got * grid
            yield holds(f"{case}, grid", bool((units == np.rint(units)).all()), "n / 2^23", got)
            total = math.ceil(math.fsum(want) - 0.5 - 1e-9)
            yield holds(f"{case}, sum", units.sum() == total * grid, f"{total}", got.sum())
            near = bool((np.abs(got - scaled_to(want, total)) <= 1 / grid).all())
            yield holds(case, near, f"{scaled_to(want, total)}", got)


def by_rule_of(rule: str, blocks: int, rate: float) -> Array:
    """Return by_rule as an array."""
    return np.array(by_rule(rule, blocks, rate), np.float64)


def scaled_to(rates: Array, total: int) -> Array:
    """Return the rates times one factor, at most 1 each, whose sum is total: by bisection."""
    low, high = 0.0, 2.0**40
    for _ in range(200):
        middle = (low + high) / 2
        few = np.minimum(rates * middle, 1).sum() < total
        low, high = (middle, high) if few else (low, middle)
    return np.minimum(rates * low, 1)
