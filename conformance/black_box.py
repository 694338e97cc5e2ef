"""A black box for the mutants: the reference with masks of its own generator, and no keys.

What an implementation with keys draws, the KEY clauses hold to the bit; statistics are for those
without. The generator here has a state of a seed and the number of draws since.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

import droppath
from conformance.mutant import REFERENCE, Part
from conformance.protocol import Array, Call, Info, Outcome

CLAIMS = "gradient keep batch balanced axis scale_by_keep scale_at residual"

# Of the call, its rate, how many rows, the seed, and how many draws there were since.
Draw = Callable[[Call, float, int, int, int], Array]


def fair(call: Call, p: float, rows: int, seed: int, draws: int) -> Array:
    """Return the mask that the call asks for, from a generator or key made of the state."""
    mode = call.options.get("mode", "row")
    if mode == "balanced":
        key = droppath.fold_in(droppath.key(seed % 2**32), draws)
        return droppath.keep_mask(key, p, rows, mode=mode, groups=call.options.get("groups", 1))
    u = np.random.Generator(np.random.SFC64([seed, draws]))
    return np.broadcast_to(u.random(rows if mode == "row" else 1) >= p, rows).copy()


def black_box(draw: Draw = fair) -> dict[str, Part]:
    """Return the parts of an implementation that draws like this."""
    state = [0, 0]
    info = Info("a black box", frozenset(CLAIMS.split()), REFERENCE.info().dtypes)

    def run(call: Call) -> Outcome:
        if call.seed is not None:
            state[:] = call.seed, 0
        call = replace(call, seed=None)
        if not (call.training and call.keep is None and call.drop_prob > 0):
            return REFERENCE.run(call)
        rows = call.x.shape[call.options.get("axis", 0)]
        keep = draw(call, call.drop_prob, rows, state[0], state[1])
        state[1] += 1
        return replace(REFERENCE.run(replace(call, keep=keep)), drew=True)

    return {"info": lambda: info, "run": run}


def rate_times(factor: float) -> Draw:
    """Return a draw at a rate that is off by a factor."""
    return lambda call, p, *rest: fair(call, min(p * factor, 1.0), *rest)


def rearranged(change: Callable[[Array], Array]) -> Draw:
    """Return a fair draw in row mode whose mask is changed: a function of bool [B]."""

    def draw(call: Call, p: float, *rest: int) -> Array:
        keep = fair(call, p, *rest)
        return change(keep) if call.options.get("mode", "row") == "row" else keep

    return draw
