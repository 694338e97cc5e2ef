"""What the checks of COMP must reject."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import droppath
from conformance.mutant import REFERENCE, Part, compiling, mutant, words
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
    if not call.compiled:
        return outcome
    return REFERENCE.run(replace(call, key=droppath.fold_in(words(call), 1)))


MUTANTS = (
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
)
