"""PLAN: which layers of a model run in a step."""

import math
from collections.abc import Iterator
from itertools import combinations
from typing import Any

import numpy as np

import droppath
from conformance.calls import KEY, threshold
from conformance.check import Results, Subject, check, equal, holds, likely, refuses, told
from conformance.protocol import Array, Call, Outcome

KEYS = 600  # from which the statistics are
# Of few lengths: a compiler takes each for a program of its own.
RATES: dict[str, list[float]] = {
    "linear": [i / 22 for i in range(12)],
    "equal, of a whole sum": [0.25] * 12,
    "falling": [0.9, 0.5, 0.2, 0.05, 0.0],
    "equal": [0.37] * 5,
    "0 and 1": [1.0, 0.0, 0.3, 1.0, 0.0],
    "small": [1e-3, 2.0**-24, 1e-9, 2.0**-23, 0.0],
    "next to 1": [1 - 2.0**-12, 1 - 2.0**-24, 0.5, 0.999, 1 - 2.0**-23],
    "one": [0.4],
    "600 layers": [(i * 29 % 64) / 64 for i in range(600)],
}
STAGES: dict[str, list[list[float]]] = {
    "stages": [[0.1, 0.5, 0.9, 0.5, 0.5], [0.3]],
    "equal stages": [[0.5] * 5] * 3,
    "empty stages": [[], [0.5, 0.25, 0.5, 0.25, 0.1], [], [0.75]],
    "one stage": [[0.25, 0.5, 0.75, 0.1, 0.9]],
}


NO_RATES: tuple[Any, ...] = [], [0.5, 1.5]
WRONG = (*NO_RATES, [0.5, -0.1], [math.nan], [True, 0.5], [None], ["0.5"], 0.5)


def call_of(rates: Any, key: Array = KEY, compiled: bool = False) -> Call:
    """Return the call that asks for a plan."""
    options = {"key": key, "rates": rates}
    return Call(op="layer_plan", seed=None, compiled=compiled, options=options)


def depth_of(rates: Any) -> Call:
    """Return the call that asks for the planned depth."""
    return Call(op="planned_depth", options={"rates": rates})


def planned(rates: list[float], key: Array) -> list[float]:
    """Return the plan of a stage in integers: 1 where a layer runs."""
    drawn = droppath.random_bits(droppath.fold_in(key, 0), len(rates)).tolist()
    end = int(droppath.random_bits(droppath.fold_in(key, 1), 1)[0]) >> 9
    plan = [1.0] * len(rates)
    for _, layer in sorted(zip(drawn, range(len(rates)), strict=True)):
        begin, end = end, end + threshold(rates[layer])
        plan[layer] = float(begin >> 23 == end >> 23)
    return plan


def plans_of(subject: Subject, rates: list[float], keys: int = KEYS) -> Array:
    """Return which layers are dropped, by so many keys: bool [keys, L]."""
    every = [call_of(rates, key) for key in droppath.split(KEY, keys)]
    return np.stack([outcome.y == 0 for outcome in subject.run_all(every)])


@check("PLAN-1", needs=("plan",))
def plan_is_exact(subject: Subject) -> Results:
    keys = *droppath.split(KEY, 2), np.array([2**32 - 1, 2**31], np.uint32)
    compiled = (False, True) if "compile" in subject.info.claims else (False,)
    for key in keys:
        for case, rates in (*RATES.items(), *next_to_the_mark(key)):
            for how in compiled:
                got = subject.run(call_of(rates, key, how)).y
                named = f"{case}, key {key.tolist()}{', compiled' if how else ''}"
                yield equal(named, np.array(planned(rates, key)), got, "float64")
    for wrong in WRONG:
        yield refuses(subject, f"rates={wrong}", call_of(wrong))


def next_to_the_mark(key: Array) -> Iterator[tuple[str, list[float]]]:
    """Yield rates at which one layer is just dropped by a key, or just not."""
    u = int(droppath.random_bits(droppath.fold_in(key, 1), 1)[0]) >> 9
    for less in (-0.5, 0.0, 0.5, 1.0):
        p = (2**23 - u - less) / 2**23
        if 0.5 <= p <= 1:  # where float32 has a number between two of the grid
            yield f"p is {less} of the grid below 1 - u", [0.0, p, 0.0, 0.0, 0.0]


@check("PLAN-2", needs=("plan",))
def each_layer_at_its_rate(subject: Subject) -> Results:
    for case, off in (("linear", 2.5), ("falling", 1.1), ("equal", 0.25), ("one", 0.25)):
        rates = RATES[case]
        for layer, dropped in enumerate(plans_of(subject, rates).T):
            chance = threshold(rates[layer]) / 2**23
            count = int(dropped.sum())
            yield likely(f"{case}, layer {layer}", count, KEYS, chance, off=off)


@check("PLAN-3", needs=("plan",))
def number_is_rounded(subject: Subject) -> Results:
    for case, rates in RATES.items():
        total = sum(map(threshold, rates))
        low, rest = divmod(total, 2**23)
        depth = int(subject.run(depth_of(rates)).y)
        yield holds(
            f"{case}, planned depth", depth == len(rates) - low, f"{len(rates) - low}", depth
        )
        got = {int(n) for n in plans_of(subject, rates, 50).sum(1)}
        want = {low, low + 1} if rest else {low}
        yield holds(f"{case}, dropped", got <= want, f"{want}", got)
    dropped = plans_of(subject, RATES["equal"]).sum(1)
    up = sum(map(threshold, RATES["equal"])) / 2**23 - 1
    yield likely("equal, one more", int((dropped == 2).sum()), KEYS, up, off=0.1)
    for wrong in (*NO_RATES, [[], []], 0.5):
        yield refuses(subject, f"rates={wrong}, planned depth", depth_of(wrong))


@check("PLAN-4", needs=("plan",))
def stages_are_apart(subject: Subject) -> Results:
    for case, stages in STAGES.items():
        for key in droppath.split(KEY, 4):
            outcome = subject.run(call_of(stages, key))
            keys = [droppath.fold_in(key, s) for s in range(len(stages))]
            each = [planned(stage, one) for stage, one in zip(stages, keys, strict=True)]
            want = np.array([runs for plan in each for runs in plan])
            yield equal(f"{case}, key {key.tolist()}", want, outcome.y, "float64")
            yield from depths_are(case, stages, outcome)
        most = sum(len(stage) - (sum(map(threshold, stage)) >> 23) for stage in stages)
        depth = int(subject.run(depth_of(stages)).y)
        yield holds(f"{case}, planned depth", depth == most, f"{most}", depth)


def depths_are(case: str, stages: list[list[float]], outcome: Outcome) -> Results:
    """Compare how many layers each stage has."""
    want = tuple(map(len, stages))
    yield told(
        "stages", outcome.stages, lambda got: holds(case, got == want, f"stages of {want}", got)
    )


@check("PLAN-5", needs=("plan",))
def layers_alike(subject: Subject) -> Results:
    for case, rates, most in cases_of_one_rate():
        dropped = plans_of(subject, rates)
        numbers = dropped @ (1 << np.arange(len(rates)))
        every = [sum(1 << i for i in layers) for layers in combinations(range(len(rates)), most)]
        plans = int((dropped.sum(1) == most).sum())
        counts = np.bincount(numbers, minlength=1 << len(rates))[every]
        yield likely(f"{case}, subset", counts, plans, 1 / len(every), off=0.8)


def cases_of_one_rate() -> Iterator[tuple[str, list[float], int]]:
    """Yield layers of one rate, and how many of them are dropped."""
    yield "5 layers, p=0.4", [0.4] * 5, 2
    yield "5 layers, p=0.37", [0.37] * 5, 2
