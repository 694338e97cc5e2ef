"""How a mutant is built: a wrong DropPath, a few lines away from the reference.

A mutant replaces parts of the reference backend; it names the clauses that it breaks at least, and
the tests hold the checks to that. Every clause has a mutant: a check that nothing fails counts for
nothing. The mutants stand beside the checks, in clauses/*_mutants.py. Most are found in public
code; none is meant to be used.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

import droppath
from conformance.loading import make
from conformance.protocol import Array, Backend, Call, Outcome

Part = Callable[..., Any]
REFERENCE: Any = make("reference")
TWO_23 = 1 << 23


@dataclass(frozen=True)
class Mutant:
    """A name, the clauses it breaks, and the methods of the reference adapter that it replaces."""

    name: str
    clauses: tuple[str, ...]
    parts: Mapping[str, Part]

    def backend(self) -> Backend:
        """Return the wrong backend. A part is called as the method is, without self."""
        mutant = make("reference")
        for method, part in self.parts.items():
            setattr(mutant, method, part)
        return mutant


def mutant(name: str, clauses: str, **parts: Part) -> Mutant:
    """Return a mutant; clauses are separated by spaces."""
    return Mutant(name, tuple(clauses.split()), parts)


def calling(**changes: Any) -> Part:
    """Return a `run` that runs the reference on a changed call: a value, or a function of it."""

    def run(call: Call) -> Outcome:
        given = {name: new(call) if callable(new) else new for name, new in changes.items()}
        return REFERENCE.run(replace(call, **given))

    return run


def overlooking(*names: str, where: Callable[[Call], bool] = lambda call: True) -> Part:
    """Return a `run` that overlooks the options of these names where a call is so."""

    def left(call: Call) -> dict[str, Any]:
        return {k: v for k, v in call.options.items() if k not in names or not where(call)}

    return calling(options=left)


def overriding(where: Callable[[Call], bool], **options: Any) -> Part:
    """Return a `run` with other options where a call is so."""
    return calling(options=lambda call: {**call.options, **(options if where(call) else {})})


def answering(**changes: Callable[[Call, Outcome], Any]) -> Part:
    """Return a `run` that changes the reference's outcome: a function of call and outcome each."""

    def run(call: Call) -> Outcome:
        outcome = REFERENCE.run(call)
        return replace(outcome, **{name: new(call, outcome) for name, new in changes.items()})

    return run


def op(name: str, wrong: Callable[..., Any]) -> Part:
    """Return a `compute` with one op replaced; wrong: its options."""

    def compute(call: Call) -> Any:
        return wrong(**call.options) if call.op == name else REFERENCE.compute(call)

    return compute


def words(call: Call) -> Array:
    """Return the key of a call."""
    return droppath.key(call.seed or 0) if call.key is None else np.asarray(call.key)


def drops(call: Call) -> bool:
    """Return whether the call draws at all, with arguments that are right."""
    p = call.drop_prob
    right = isinstance(p, float) and 0 < p < 1 and call.x.ndim > 0
    return bool(call.op == "drop_path" and call.training and right and call.keep is None)


def is_skipping(call: Call) -> bool:
    """Return whether the call is of a residual block that may skip."""
    return call.op == "residual" and call.options.get("skip") is not False


def drawing(draw: Callable[[Call, int], Array]) -> Part:
    """Return a `draw` that is the reference's unless the call drops in row mode along axis 0."""

    def part(call: Call, x: Array) -> Array:
        keep = REFERENCE.draw(call, x)
        plain = call.options.get("mode", "row") == "row" and not call.options.get("axis")
        return draw(call, len(keep)) if drops(call) and plain else keep

    return part


def drawing_balanced(draw: Callable[[Call, int, int], Array]) -> Part:
    """Return a `draw` that is the reference's unless the call drops in balanced mode.

    draw: of call, group_size and groups, bool [groups, group_size].
    """

    def part(call: Call, x: Array) -> Array:
        keep = REFERENCE.draw(call, x)
        if not (drops(call) and call.options.get("mode") == "balanced" and keep.size):
            return keep
        groups = call.options.get("groups", 1)
        return draw(call, len(keep) // groups, groups).reshape(-1)

    return part


def ranks(call: Call, group_size: int, groups: int) -> Array:
    """Return for each group the rank of each row's word: int [groups, group_size]."""
    bits = droppath.random_bits(droppath.fold_in(words(call), 0), group_size * groups)
    return bits.reshape(groups, group_size).argsort(1).argsort(1)


def count(call: Call, group_size: int, groups: int) -> Array:
    """Return how many rows each group drops: int [groups, 1]."""
    scaled = group_size * int(np.ceil(np.float32(call.drop_prob) * np.float32(TWO_23)))
    up = droppath.random_bits(droppath.fold_in(words(call), 1), groups) >> 9
    return (scaled // TWO_23 + (up < scaled % TWO_23))[:, None]


def nan_at_1(call: Call, value: Array | None) -> Array | None:
    """Return NaN at p = 1 in training."""
    at_1 = call.training and call.drop_prob == 1 and value is not None
    return np.full_like(value, np.nan) if at_1 and value is not None else value


def compiling(
    answer: Callable[[Call, Outcome], Outcome] = lambda call, outcome: outcome,
) -> dict[str, Part]:
    """Return the parts of a reference that claims a compiler and devices; answer: its fault.

    NumPy has neither: the program is the call itself, made at the first call, and says nothing.
    """
    info = REFERENCE.info()
    info = replace(info, claims=info.claims | {"compile", "collectives"})

    def run(call: Call) -> Outcome:
        return answer(call, replace(REFERENCE.run(call), built=False, collectives=0))

    return {"info": lambda: info, "run": run}
