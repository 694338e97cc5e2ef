"""What the checks of SCHED must reject."""

from collections.abc import Callable
from typing import Any

import numpy as np

import droppath
from conformance.mutant import Mutant, answering, mutant, op
from conformance.protocol import Array


def ramp_that_stays(**options: Any) -> Array:
    """Return a ramp that is updated only while it lasts, in ten steps."""
    last = options["end"] - (options["end"] - options["begin"]) / 10
    return droppath.ramp(**options | {"step": np.minimum(options["step"], last)})


def clipped_ramp(**options: Any) -> Array:
    """Return a ramp held between start and stop, as if it always rose."""
    value = droppath.ramp(**options)
    return np.minimum(np.maximum(value, options["start"]), options["stop"])


def late_ramp(**options: Any) -> Array:
    """Return a ramp that goes on to the whole step after its end."""
    at, end, length = options["step"], options["end"], options["end"] - options["begin"]
    beyond = (np.asarray(at) > end) & (np.asarray(at) < end + 1)
    more = (options["stop"] - options["start"]) * (np.asarray(at) - end) / (length or 1)
    return droppath.ramp(**options) + np.where(beyond, more, 0)


def staged(**options: Any) -> Any:
    """Return rates as if all stages were as deep as the first."""
    depth = options["depth"]
    if np.ndim(depth) == 0 or not len(depth):
        return droppath.drop_path_rates(**options)
    flat = droppath.drop_path_rates(**options | {"depth": max(depth[0], 1) * len(depth)})
    flat += [options["drop_path_rate"]] * sum(depth)
    return [flat[i * depth[0] : i * depth[0] + size] for i, size in enumerate(depth)]


def each_stage(**options: Any) -> Any:
    """Return rates whose rule begins anew in each stage."""
    if np.ndim(options["depth"]) == 0:
        return droppath.drop_path_rates(**options)
    return [droppath.drop_path_rates(**options | {"depth": size}) for size in options["depth"]]


def rates_mutant(name: str, clauses: str, wrong: Any) -> Mutant:
    """Return a mutant of drop_path_rates."""
    return mutant(name, clauses, compute=op("drop_path_rates", wrong))


def ramp_mutant(name: str, wrong: Any) -> Mutant:
    """Return a mutant of ramp."""
    return mutant(name, "SCHED-4", compute=op("ramp", wrong))


def whole_mutant(name: str, wrong: Callable[[list[float]], list[float]]) -> Mutant:
    """Return a mutant of what makes the rates of a stage whole."""

    def rates_of(whole: bool = False, **options: Any) -> Any:
        rates = droppath.drop_path_rates(**options)
        if not whole:
            return rates
        nested = np.ndim(options["depth"])
        return [wrong(stage) for stage in rates] if nested else wrong(rates)

    return rates_mutant(name, "SCHED-6", rates_of)


MUTANTS = (
    rates_mutant(
        "linear is exclusive",
        "SCHED-1",
        lambda rule, **o: droppath.drop_path_rates(
            **o, rule="exclusive" if rule == "linear" else rule
        ),
    ),
    rates_mutant(
        "rates out of range are clipped",
        "SCHED-1",
        lambda drop_path_rate, **o: droppath.drop_path_rates(
            float(np.clip(np.float64(drop_path_rate), 0, 1)), **o
        ),
    ),
    rates_mutant(
        "rates in float32",
        "SCHED-1",
        lambda drop_path_rate, **o: (
            droppath.drop_path_rates(drop_path_rate, **o)
            if np.ndim(o["depth"])
            else np.array(droppath.drop_path_rates(drop_path_rate, **o), np.float32)
        ),
    ),
    rates_mutant(
        "one block is never dropped",
        "SCHED-2",
        lambda depth, **o: [0.0] if depth == 1 else droppath.drop_path_rates(depth=depth, **o),
    ),
    mutant(
        "stages are flattened",
        "SCHED-3",
        run=answering(stages=lambda c, o: o.stages and (sum(o.stages),)),
    ),
    rates_mutant("all stages as deep as the first", "SCHED-3", staged),
    rates_mutant("the rule begins anew in each stage", "SCHED-3", each_stage),
    ramp_mutant("a ramp that never lands", ramp_that_stays),
    ramp_mutant("a ramp that cannot fall", clipped_ramp),
    ramp_mutant("a ramp that overshoots up to the next step", late_ramp),
    ramp_mutant(
        "a ramp over steps in float32",
        lambda step, **o: droppath.ramp(np.float64(np.float32(step)), **o),
    ),
    ramp_mutant(
        "a ramp of whole steps", lambda step, **o: droppath.ramp(np.trunc(np.float64(step)), **o)
    ),
    ramp_mutant(
        "a ramp that is 0 before it begins",
        lambda step, **o: np.where(
            np.asarray(step) < o["begin"], 0 * o["start"], droppath.ramp(step, **o)
        ),
    ),
    mutant(
        "depth of what is dropped",
        "SCHED-5",
        compute=op(
            "expected_depth",
            lambda rates: float(np.sum(np.concatenate([[0], *map(np.atleast_1d, rates)]))),
        ),
    ),
    mutant(
        "depth by the mean rate of each stage",
        "SCHED-5",
        compute=op(
            "expected_depth",
            lambda rates: sum(
                np.size(stage) * (1 - np.mean(rates[0])) for stage in rates if np.size(stage)
            ),
        ),
    ),
    whole_mutant("rates that stay as they are", lambda rates: rates),
    whole_mutant(
        "whole, and rounded as NumPy divides",
        lambda rates: np.multiply(rates, round(sum(rates)) / (sum(rates) or 1)).tolist(),
    ),
    whole_mutant(
        "whole by the last layer",
        lambda rates: [*rates[:-1], min(max(round(sum(rates)) - sum(rates[:-1]), 0), 1)],
    ),
    whole_mutant(
        "whole by the same for every layer",
        lambda rates: [
            min(max(p + (round(sum(rates)) - sum(rates)) / len(rates), 0), 1) for p in rates
        ],
    ),
)
