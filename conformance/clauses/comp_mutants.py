"""What the checks of COMP must reject."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

import droppath
from conformance.mutant import REFERENCE, Part, compiling, mutant, words
from conformance.numerics import round_to
from conformance.protocol import Call, Outcome


def several(name: str, **changes: Callable[[Call], Any]) -> Part:
    """Return a `compute` that runs the op of this name, of several masks, on a changed call."""

    def compute(call: Call) -> Any:
        given = {field: new(call) for field, new in changes.items()} if call.op == name else {}
        return REFERENCE.compute(replace(call, **given))

    return compute


def frozen() -> Callable[[Call, Outcome], Outcome]:
    """Return an answer that has the mask of the first key that the program was called with."""
    first: dict[str, Any] = {}

    def answer(call: Call, outcome: Outcome) -> Outcome:
        if not call.compiled:
            return outcome
        key = first.setdefault(
            f"{call.op} {call.options.keys()} {call.options.get('mode')}", call.key
        )
        return replace(outcome, y=REFERENCE.run(replace(call, key=key)).y)

    return answer


def other_draws(call: Call, outcome: Outcome) -> Outcome:
    """Return the outcome of a program that draws by another rule."""
    if not call.compiled or call.keep is not None:
        return outcome
    return REFERENCE.run(replace(call, key=droppath.fold_in(words(call), 1)))


def frozen_in(field: str) -> Callable[[Call, Outcome], Outcome]:
    """Return an answer whose program has frozen a field, or an option, of its first call."""
    first: dict[str, Any] = {}

    def answer(call: Call, outcome: Outcome) -> Outcome:
        if not call.compiled:
            return outcome
        how = call.op, call.options.get("mode"), call.dtype, call.x.shape, call.keep is None
        value = getattr(call, field, call.options.get(field, 0))
        value = first.setdefault(f"{how} {call.dy is None}", value)
        if field in call.options:
            return REFERENCE.run(replace(call, options={**call.options, field: value}))
        return REFERENCE.run(replace(call, **{field: value}) if hasattr(call, field) else call)

    return answer


def unscaled_along(call: Call, outcome: Outcome) -> Outcome:
    """Return the outcome of a program that forgets the factor along other axes than the first."""
    if not (call.compiled and call.options.get("axis")):
        return outcome
    return REFERENCE.run(replace(call, options={**call.options, "scale_by_keep": False}))


def in_bfloat16(p: float) -> float:
    """Return a rate rounded to bfloat16."""
    return float(round_to(np.asarray(p), "bfloat16"))


MUTANTS = (
    *(
        mutant(f"{field} frozen by the compiler", "COMP-1", **compiling(frozen_in(field)))
        for field in ("drop_prob", "training", "keep", "x", "offset", "per_sample")
    ),
    mutant("compiled along another axis without the factor", "COMP-1", **compiling(unscaled_along)),
    mutant(
        "a program for each call of a gradient",
        "COMP-2",
        **compiling(lambda c, o: replace(o, built=c.compiled and c.dy is not None)),
    ),
    mutant(
        "rates as data in bfloat16",
        "COMP-3",
        compute=several("layers", drop_prob=lambda c: [in_bfloat16(p) for p in c.drop_prob]),
    ),
    mutant(
        "rates as data that are 0 below 2^-23",
        "COMP-3",
        compute=several("layers", drop_prob=lambda c: [p * (p > 2.0**-23) for p in c.drop_prob]),
    ),
    mutant(
        "mapped without NaN",
        "COMP-4",
        compute=several("mapped", x=lambda c: np.where(np.isfinite(c.x), c.x, 0.0)),
    ),
    mutant(
        "mapped over sorted keys",
        "COMP-4",
        compute=several("mapped", key=lambda c: np.array(sorted(c.key.tolist()), np.uint32)),
    ),
    mutant("another mask when compiled", "COMP-1", **compiling(other_draws)),
    mutant("a coin frozen by the compiler", "COMP-2", **compiling(frozen())),
    mutant(
        "a program for each key",
        "COMP-2",
        **compiling(lambda c, o: replace(o, built=c.compiled)),
    ),
    mutant(
        "the first layer's rate for all",
        "COMP-3",
        compute=several("layers", drop_prob=lambda c: [c.drop_prob[0]] * len(c.drop_prob)),
    ),
    mutant(
        "one mask for all that is mapped",
        "COMP-4",
        compute=several("mapped", key=lambda c: c.key[:1].repeat(len(c.key), 0)),
    ),
    mutant(
        "a program that takes no keep",
        "COMP-1",
        **compiling(
            lambda c, o: (
                REFERENCE.run(replace(c, keep=c.keep | True))
                if c.compiled and c.keep is not None
                else o
            )
        ),
    ),
)
