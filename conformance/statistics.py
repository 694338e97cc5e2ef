"""Masks as samples: how they are gathered, and what independent decisions look like.

Decisions are compared in pairs: how often both are equal, against the number that independence
gives at the rates that were seen, since a wrong rate is another clause's. Pairs of one case share
no decision, so that their number is exactly binomial. Not here: the bound (check.likely), and how
small an error so many draws find (numerics.smallest_error).
"""

from collections.abc import Iterable
from dataclasses import replace
from math import ceil, floor, sqrt

from conformance.check import Finding, Results, Subject, likely
from conformance.numerics import at_least
from conformance.protocol import Array, Call

CORRELATION = 0.1


def exact(subject: Subject) -> bool:
    """Return whether every mask comes from a key, so that the KEY clauses hold its bits."""
    return {"keyed", "stateless"} <= subject.info.claims


def number(subject: Subject, calls: int) -> int:
    """Return how many calls a statistic takes: fewer where keys hold the bits of many masks."""
    if exact(subject):
        return 100
    return calls // 8 * 2 if "keyed" in subject.info.claims else calls


def over_seeds(subject: Subject, call: Call, calls: int) -> Array:
    """Return what is dropped at the seeds 0, 1, ...: bool [calls, B], for x of [B, n]."""
    return ~subject.rows_of_all([replace(call, seed=seed) for seed in range(calls)])


def successive(subject: Subject, call: Call, calls: int) -> Array:
    """Return what is dropped by calls one after the other, the first with a seed: [calls, B]."""
    seeds = [call.seed, *[None] * (calls - 1)]
    return ~subject.rows_of_all([replace(call, seed=seed) for seed in seeds])


def together(case: str, one: Array, two: Array, correlation: float = CORRELATION) -> Finding | None:
    """Hold how often the decisions of two arrays are equal to what independence gives.

    correlation: the one that is found with probability 0.99.
    """
    r, q = float(one.mean()), float(two.mean())
    p = r * q + (1 - r) * (1 - q)
    off = 2 * correlation * sqrt(r * (1 - r) * q * (1 - q)) / (p or 1)
    return likely(f"{case} alike", int((one == two).sum()), one.size, p, off=off)


def lag(dropped: Array, k: int) -> tuple[Array, Array]:
    """Return the pairs of decisions that are k apart on the last axis, none of them twice."""
    blocks = dropped.shape[-1] // (2 * k)
    pairs = dropped[..., : blocks * 2 * k].reshape(-1, 2, k)
    return pairs[:, 0], pairs[:, 1]


def mirrored(dropped: Array) -> tuple[Array, Array]:
    """Return the pairs of row i and row B - 1 - i."""
    half = dropped.shape[-1] // 2
    return dropped[..., :half], dropped[..., ::-1][..., :half]


def within(case: str, dropped: Array, lags: Iterable[int], correlation: float = 0.1) -> Results:
    """Compare decisions along the last axis at some lags, and those that mirror each other."""
    for k in lags:
        yield together(f"{case}, rows i and i + {k}", *lag(dropped, k), correlation)
    yield together(f"{case}, rows i and B - 1 - i", *mirrored(dropped), correlation)


def between(case: str, one: Array, two: Array) -> Results:
    """Compare the decisions of two draws: at the same rows, shifted, swapped and mirrored."""
    pairs = one.size // 2 * 2
    swapped = two[:pairs].reshape(-1, 2)[:, ::-1].reshape(-1)
    yield together(f"{case}, same rows", one, two)
    yield together(f"{case}, rows i and i + 1", one[:-1], two[1:])
    yield together(f"{case}, rows i + 1 and i", one[1:], two[:-1])
    yield together(f"{case}, neighbours swapped", one[:pairs], swapped)
    yield together(f"{case}, mirrored", one, two[::-1])


def rate(case: str, dropped: Array, p: float, off: float) -> Finding | None:
    """Hold how many rows are dropped, or, if most are, how many are kept."""
    count, size = int(dropped.sum()), dropped.size
    if p > 0.5:
        return likely(f"{case}, kept", size - count, size, 1 - p, off=off)
    return likely(f"{case}, dropped", count, size, p, off=off)


def spread(case: str, dropped: Array) -> Finding | None:
    """Hold how many calls drop about as many rows as is expected: too many if it is a fixed one."""
    batch, p = dropped.shape[1], float(dropped.mean())
    reach = 0.7 * (batch * p * (1 - p)) ** 0.5
    low, high = ceil(batch * p - reach), floor(batch * p + reach)
    chance = at_least(low, batch, p) - at_least(high + 1, batch, p)
    numbers = dropped.sum(1)
    count = int(((low <= numbers) & (numbers <= high)).sum())
    return likely(f"{case}, {low} to {high} rows dropped", count, len(dropped), chance, off=0.3)
