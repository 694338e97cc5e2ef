"""Black boxes with wrong statistics, which the checks of MASK must reject."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

import droppath
from conformance.black_box import Draw, black_box, fair, rate_times, rearranged
from conformance.mutant import Mutant, mutant
from conformance.protocol import Array, Call


def batch_only(wrong: Draw) -> Draw:
    """Return a draw that is wrong in batch mode."""
    return lambda c, *rest: (wrong if c.options.get("mode") == "batch" else fair)(c, *rest)


def at_offset(offset: Callable[[int, int], int]) -> Draw:
    """Return a draw of rows of one long mask: from an offset made of the seed and the draws."""

    def draw(call: Call, p: float, rows: int, seed: int, draws: int) -> Array:
        if call.options.get("mode", "row") != "row":
            return fair(call, p, rows, seed, draws)
        return droppath.keep_mask(droppath.key(7), p, rows, offset=offset(seed, draws))

    return draw


def words(n: int, seed: int, draws: int) -> Array:
    """Return n numbers in [0, 1) for a state of the generator."""
    key = droppath.fold_in(droppath.key(seed % 2**32), draws)
    return droppath.random_bits(key, n) / 2.0**32


def sticky(call: Call, p: float, rows: int, seed: int, draws: int) -> Array:
    """Return a mask in which a tenth of the rows do as the row before."""
    keep = fair(call, p, rows, seed, draws)
    return np.where(words(rows, draws, seed % 2**32) < 0.1, np.roll(keep, 1), keep)


def antithetic(call: Call, p: float, rows: int, seed: int, draws: int) -> Array:
    """Return a mask of u for the first half of the rows, and 1 - u for the second."""
    u = words(rows - rows // 2, seed, draws)
    return np.concatenate([u, 1 - u[: rows // 2]]) >= p


def uneven(call: Call, p: float, rows: int, seed: int, draws: int) -> Array:
    """Return a mask that drops even rows more often than odd ones."""
    state = rows, seed, draws
    even, odd = fair(call, min(p * 1.1, 1.0), *state), fair(call, p * 0.9, *state)
    return np.where(np.arange(rows) % 2, odd, even)


def fixed_number(call: Call, p: float, rows: int, seed: int, draws: int) -> Array:
    """Return a mask that drops a fixed number of rows of a small batch, rounded at random."""
    small = rows < 1000 and not call.options
    call = replace(call, options={"mode": "balanced"}) if small else call
    return fair(call, p, rows, seed, draws)


def boxed(name: str, clauses: str, draw: Draw) -> Mutant:
    """Return a mutant that is a black box."""
    return mutant(name, clauses, **black_box(draw))


BLACK_BOXES = (
    boxed("drops 5 % too often", "MASK-4", rate_times(1.05)),
    boxed("drops 5 % too rarely", "MASK-4", rate_times(0.95)),
    boxed("batch mode drops 10 % too rarely", "MASK-4", batch_only(rate_times(0.89))),
    boxed(
        "blocks drop 5 % too often",
        "MASK-4",
        lambda c, p, *rest: fair(c, min(p * 1.05, 1.0) if c.op == "residual" else p, *rest),
    ),
    boxed(
        "never drops the last row",
        "MASK-4",
        rearranged(lambda keep: keep | (np.arange(keep.size) == keep.size - 1)),
    ),
    boxed(
        "never drops beyond 2**16 rows",
        "MASK-4",
        rearranged(lambda keep: keep | (np.arange(keep.size) >= 1 << 16)),
    ),
    boxed("drops even rows more often", "MASK-4", uneven),
    boxed(
        "repeats after 2**16 rows",
        "MASK-5",
        rearranged(lambda keep: np.resize(keep[: 1 << 16], keep.size)),
    ),
    boxed(
        "repeats after 256 rows",
        "MASK-5",
        rearranged(lambda keep: np.resize(keep[:256], keep.size)),
    ),
    boxed("a tenth of the rows do as the row before", "MASK-5", sticky),
    boxed(
        "the second half mirrors the first",
        "MASK-5",
        rearranged(lambda keep: np.where(np.arange(keep.size) < keep.size // 2, keep, keep[::-1])),
    ),
    boxed("antithetic halves", "MASK-5", antithetic),
    boxed(
        "seed s + 1 is seed s, one row later",
        "MASK-5",
        at_offset(lambda seed, draws: seed + (draws << 40)),
    ),
    boxed(
        "the next call is one row later",
        "MASK-5",
        at_offset(lambda seed, draws: (seed << 20) + draws),
    ),
    boxed(
        "seeds of 16 bits",
        "MASK-5",
        lambda c, p, n, seed, draws: fair(c, p, n, seed % 2**16, draws),
    ),
    boxed(
        "a coin frozen at the first call",
        "MASK-5",
        lambda c, p, n, seed, draws: fair(c, p, n, seed, 0),
    ),
    boxed(
        "batch mode freezes its coin",
        "MASK-5",
        batch_only(lambda c, p, n, seed, draws: fair(c, p, n, seed, 0)),
    ),
    boxed(
        "batch mode draws at every second call",
        "MASK-5",
        batch_only(lambda c, p, n, seed, draws: fair(c, p, n, seed, draws // 2)),
    ),
    boxed("row mode drops a fixed number of rows", "MASK-5", fixed_number),
)
