"""schedules.json: rates over depth, ramps, the expected depth."""

from fractions import Fraction
from typing import Any

from conformance.make_golden.exact import nearest
from conformance.make_golden.vector import Vector, Vectors, hexes, vector

EXACT, NEAR = 0.0, 1e-12  # SCHED-1's tolerance


EXACT, NEAR = 0.0, 1e-12  # SCHED-1's tolerance


def schedule_vectors() -> Vectors:
    """Yield the vectors of schedules."""
    for rule in ("linear", "paper", "exclusive", "uniform"):
        why = "which block gets which share of the rate"
        for depth in (4, 12):
            yield rates_over_depth(f"l{depth}", "SCHED-1", why, rule, depth)
        why = "no block, no rate; one block, no division by zero"
        for depth in (0, 1):
            yield rates_over_depth(f"l{depth}", "SCHED-2", why, rule, depth)
        why = "the rule runs over the total depth, not over each stage"
        yield rates_over_depth("stages", "SCHED-3", why, rule, [3, 3])
    yield from ramps()
    why = "the sum of 1 - p; each of its additions may be off by half a step of the result"
    for depth, rate in ((12, 0.1), (54, 0.5)):
        rates = [
            nearest(Fraction(rate) * share("paper", i, depth), "float64") for i in range(depth)
        ]
        total = [sum((1 - Fraction(p) for p in rates), Fraction(0))]
        rest = {"shape": [], "steps": depth, "options": {"rates": hexes(rates)}}
        yield schedule(f"expected-depth/l{depth}", "SCHED-5", why, "expected_depth", total, **rest)


def ramps() -> Vectors:
    """Yield the vectors of ramps from 0.05 at 2 to 0.3 at 10."""
    start, stop = Fraction(0.05), Fraction(0.3)
    ends = {"begin": 2.0, "end": 10.0, "start": 0.05, "stop": 0.3}
    given = {name: value.hex() for name, value in ends.items()}
    for shape in ("linear", "cosine"):
        why = "start until begin, exactly stop from end on: a ramp that never lands trains wrongly"
        made = f"ramp/{shape}/ends", "SCHED-4", why, "ramp", [start, start, stop, stop]
        options = {"step": hexes([-1.0, 2.0, 10.0, 99.0]), **given, "shape": shape}
        yield schedule(*made, absolute=hexes([EXACT] * 4), options=options)
        why = "no jump at the ends, and half way in the middle"
        made = f"ramp/{shape}/inside", "SCHED-4", why, "ramp", [start, (start + stop) / 2, stop]
        options = {"step": hexes([2 + 1e-9, 6.0, 10 - 1e-9]), **given, "shape": shape}
        yield schedule(*made, absolute=hexes([1e-9, NEAR, 1e-9]), options=options)


def rates_over_depth(name: str, clause: str, why: str, rule: str, depth: int | list[int]) -> Vector:
    """Return a vector of drop_path_rates at 0.3; the linear and the paper rule end exactly."""
    nested = not isinstance(depth, int)
    blocks = sum(depth) if isinstance(depth, list) else depth
    values = [Fraction(0.3) * share(rule, i, blocks) for i in range(blocks)]
    end = EXACT if rule in ("linear", "paper") else NEAR
    return schedule(
        f"rates/{rule}/{name}",
        clause,
        why,
        "drop_path_rates",
        values,
        shape=[2, blocks // 2] if nested else [blocks],
        absolute=hexes([NEAR if i < blocks - 1 else end for i in range(blocks)]),
        options={"drop_path_rate": (0.3).hex(), "depth": depth, "rule": rule},
    )


def share(rule: str, i: int, blocks: int) -> Fraction:
    """Return what block i gets of drop_path_rate (SCHED-1, SCHED-2)."""
    if rule == "uniform" or (rule == "linear" and blocks == 1):
        return Fraction(1)
    shares = {"linear": (i, blocks - 1), "paper": (i + 1, blocks), "exclusive": (i, blocks)}
    return Fraction(*shares[rule])


def schedule(
    name: str, clause: str, why: str, op: str, values: list[Fraction], **rest: Any
) -> Vector:
    """Return a vector of a schedule, whose values are rounded to float64."""
    made = vector(f"schedules/{name}", clause, why, f"{clause} in exact fractions", "schedule")
    want = {"values": hexes([nearest(value, "float64") for value in values])}
    return made | {"op": op, "dtype": "float64", "shape": [len(values)]} | rest | {"want": want}
