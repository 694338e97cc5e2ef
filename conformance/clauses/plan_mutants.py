"""What the checks of PLAN must reject."""

from collections.abc import Callable
from typing import Any

import numpy as np

import droppath
from conformance.calls import threshold
from conformance.mutant import Mutant, mutant, op
from conformance.protocol import Array

GRID = 1 << 23


def staged(plan: Callable[[Array, Any], Array]) -> Callable[..., Any]:
    """Return a layer_plan that plans each stage in this way."""

    def planned(key: Array, rates: Any) -> Any:
        droppath.layer_plan(key, rates)  # refuses what must be refused
        if np.ndim(rates[0]) == 0:
            return plan(key, rates)
        return [plan(droppath.fold_in(key, s), stage) for s, stage in enumerate(rates)]

    return planned


def sampled(
    order: Callable[[Array, int], Any] = lambda key, n: np.argsort(
        droppath.random_bits(droppath.fold_in(key, 0), n), kind="stable"
    ),
    mark: Callable[[Array], int] = lambda key: (
        int(droppath.random_bits(droppath.fold_in(key, 1), 1)[0]) >> 9
    ),
    of: Callable[[float], int] = threshold,
) -> Callable[..., Any]:
    """Return a layer_plan with another order, another first mark or other thresholds."""

    def plan(key: Array, rates: Any) -> Array:
        places, end = order(key, len(rates)), mark(key)
        runs = np.ones(len(rates))
        for layer in places:
            begin, end = end, end + of(rates[layer])
            runs[layer] = begin // GRID == end // GRID
        return runs

    return staged(plan)


def coins(key: Array, rates: Any) -> Array:
    """Return a plan by a coin for each layer: mode "batch" of all layers."""
    keys = droppath.split(key, len(rates))
    pairs = zip(keys, rates, strict=True)
    return np.array([droppath.keep_mask(one, p, 1, mode="batch")[0] for one, p in pairs])


def smallest(key: Array, rates: Any) -> Array:
    """Return a plan that drops the right number of layers, those of the smallest draw / rate."""
    most = len(rates) - droppath.planned_depth(rates)
    drawn = droppath.random_bits(key, len(rates)) / (np.array(rates) + 1e-9)
    return np.argsort(np.argsort(drawn)) >= most


def plan_mutant(name: str, clauses: str, wrong: Callable[..., Any]) -> Mutant:
    """Return a mutant of layer_plan."""
    return mutant(name, clauses, compute=op("layer_plan", wrong))


def depth_mutant(name: str, clauses: str, wrong: Callable[[Any], int]) -> Mutant:
    """Return a mutant of planned_depth, which refuses what must be refused."""

    def depth(rates: Any) -> int:
        droppath.planned_depth(rates)
        return wrong(rates)

    return mutant(name, clauses, compute=op("planned_depth", depth))


MUTANTS = (
    plan_mutant("a coin for each layer", "PLAN-1 PLAN-3", staged(coins)),
    plan_mutant("the smallest draws by their rates", "PLAN-1 PLAN-2", staged(smallest)),
    plan_mutant("layers in their order", "PLAN-1 PLAN-5", sampled(order=lambda key, n: range(n))),
    plan_mutant(
        "the order of the first key for ever",
        "PLAN-1 PLAN-5",
        sampled(order=lambda key, n: np.argsort(droppath.random_bits(droppath.key(0), n))),
    ),
    plan_mutant("the first mark at 0", "PLAN-1 PLAN-2", sampled(mark=lambda key: 0)),
    plan_mutant(
        "order and mark of one word",
        "PLAN-1",
        sampled(mark=lambda key: int(droppath.random_bits(droppath.fold_in(key, 0), 1)[0]) >> 9),
    ),
    plan_mutant("rates cut to the grid", "PLAN-1", sampled(of=lambda p: int(p * GRID))),
    plan_mutant(
        "runs and dropped swapped",
        "PLAN-1 PLAN-2 PLAN-3 PLAN-4",
        staged(lambda key, rates: ~droppath.layer_plan(key, [*rates, 0.0])[:-1]),
    ),
    plan_mutant(
        "a plan of rates that are clipped",
        "PLAN-1",
        lambda key, rates: droppath.layer_plan(
            key, np.clip(np.array(rates, float), 0, 1) if np.ndim(rates) == 1 else rates
        ),
    ),
    plan_mutant(
        "one key for all stages",
        "PLAN-4",
        lambda key, rates: (
            [droppath.layer_plan(key, [*stage, 0.0])[:-1] for stage in rates]
            if rates and np.ndim(rates[0])
            else droppath.layer_plan(key, rates)
        ),
    ),
    plan_mutant(
        "a plan over all stages",
        "PLAN-4",
        lambda key, rates: (
            np.split(
                droppath.layer_plan(key, [p for stage in rates for p in stage]),
                np.cumsum([len(stage) for stage in rates])[:-1],
            )
            if rates and np.ndim(rates[0])
            else droppath.layer_plan(key, rates)
        ),
    ),
    depth_mutant(
        "the depth that is expected",
        "PLAN-3",
        lambda rates: round(droppath.expected_depth(rates)),
    ),
    depth_mutant(
        "stages without a rest of their own",
        "PLAN-4",
        lambda rates: droppath.planned_depth(
            [p for stage in rates for p in stage] if np.ndim(rates[0]) else rates
        ),
    ),
    depth_mutant("the least that run", "PLAN-3", lambda rates: droppath.planned_depth(rates) - 1),
)
