"""What the checks of STACK must reject."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

import droppath
from conformance.mutant import REFERENCE, answering, compiling, mutant
from conformance.protocol import Array, Call, Outcome


def at_stack(**changes: Callable[[Call], Any]) -> Callable[[Call], Outcome]:
    """Return a `run_stack` on a changed call."""

    def run(call: Call) -> Outcome:
        return REFERENCE.run_stack(replace(call, **{k: new(call) for k, new in changes.items()}))

    return run


def in_training(change: Callable[[Call], Any]) -> Callable[[Call], Any]:
    """Return a change of the plan that is made in training alone, and unless one is given."""

    def plan(call: Call) -> Any:
        drawn = REFERENCE.plan(call)
        return change(call) if call.training and call.keep is None else drawn

    return plan


def added(layer: Callable[[Call, float, bool, Array, Array], Array]) -> Callable[..., Array]:
    """Return a `stack` that makes x of x and f in each layer in another way.

    layer: of the call, the rate, whether the plan runs it, x and f.
    """

    def stack(call: Call, x: Array, branch: Callable[..., Array], order: slice) -> Array:
        REFERENCE.stack(call, x, call.options["branch"], order)  # refuses what must be refused
        params = call.options["params"].astype(x.dtype)[order]
        plan, rates = REFERENCE.plan(call)[order], call.drop_prob[order]
        for w, p, runs in zip(params, rates, plan, strict=True):
            counts = not call.training or (runs and p < 1)
            x = layer(call, p, counts, x, branch(x, w=w)).astype(x.dtype)
        return x

    return stack


def s_of(call: Call, p: float) -> float:
    """Return the factor of a layer that counts."""
    at_train = call.options.get("scale_at", "train") == "train"
    if not call.options.get("scale_by_keep", True) or at_train != call.training:
        return 1.0
    return 1 / (1 - p) if call.training and p < 1 else 1 - p


def masked(call: Call, p: float, counts: bool, x: Array, f: Array) -> Array:
    """Return x with f times 0 or s: right, but where a dropped layer is not finite."""
    return x + (s_of(call, p) if counts else 0.0) * f


def selected(call: Call, p: float, counts: bool, x: Array, f: Array) -> Array:
    """Return the right sum, of a layer that was computed in any case."""
    return x + s_of(call, p) * f if counts else x


def unscaled(call: Call, p: float, counts: bool, x: Array, f: Array) -> Array:
    """Return x + f."""
    return x + f if counts else x


def zeroed(call: Call, p: float, counts: bool, x: Array, f: Array) -> Array:
    """Return zeros where the layer is dropped, which drops all layers before it too."""
    return x + s_of(call, p) * f if counts else x * 0


def scaled_whole(call: Call, p: float, counts: bool, x: Array, f: Array) -> Array:
    """Return x and f scaled."""
    return s_of(call, p) * (x + f) if counts else x


def other_program(call: Call, outcome: Outcome) -> Outcome:
    """Return the outcome of a stack that is compiled for each plan."""
    return replace(outcome, built=call.op == "stack" and call.compiled and call.keep is None)


def at_once(call: Call) -> list[float]:
    """Return rates that are all the mean of the rates."""
    return [float(np.mean(call.drop_prob))] * len(call.drop_prob)


MUTANTS = (
    mutant("a stack that is masked by zeros", "STACK-2 STACK-3", stack=added(masked)),
    mutant("a stack that selects", "STACK-3", stack=added(selected)),
    mutant("layers without their factor", "STACK-1", stack=added(unscaled)),
    mutant("a dropped layer gives zeros", "STACK-1 STACK-2", stack=added(zeroed)),
    mutant("the factor on x too", "STACK-1", stack=added(scaled_whole)),
    mutant(
        "the plan of the layers from behind",
        "STACK-1",
        plan=in_training(lambda call: REFERENCE.plan(call)[::-1]),
    ),
    mutant(
        "the plan of another step",
        "STACK-1",
        plan=in_training(
            lambda call: droppath.layer_plan(droppath.fold_in(call.key, 1), call.drop_prob)
        ),
    ),
    mutant(
        "the plan of the mean rate",
        "STACK-1",
        plan=in_training(lambda call: droppath.layer_plan(call.key, at_once(call))),
    ),
    mutant(
        "the plan in evaluation too",
        "STACK-1",
        run_stack=at_stack(
            training=lambda call: True,
            keep=lambda call: (
                REFERENCE.plan(replace(call, keep=None, key=droppath.key(2), training=True))
                if call.keep is None and call.key is None
                else call.keep
            ),
        ),
    ),
    mutant(
        "a given plan that is not looked at",
        "STACK-1",
        run_stack=at_stack(
            keep=lambda call: (
                call.keep if call.keep is None or call.key is not None else np.ones_like(call.keep)
            )
        ),
    ),
    mutant(
        "the gradient of all layers",
        "STACK-1 STACK-2",
        run=answering(
            dx=lambda call, outcome: (
                REFERENCE.run(replace(call, key=None, keep=np.ones(len(call.drop_prob), bool))).dx
                if call.op == "stack" and call.key is not None
                else outcome.dx
            )
        ),
    ),
    mutant(
        "one layer more than is planned",
        "STACK-3",
        run=answering(
            ran=lambda call, outcome: len(call.drop_prob) if call.op == "stack" else outcome.ran
        ),
    ),
    mutant("a program for each plan", "STACK-3", **compiling(other_program)),
)
