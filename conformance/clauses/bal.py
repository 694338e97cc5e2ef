"""BAL: balanced masks drop a fixed number of rows, and every row alike."""

import math
from collections.abc import Iterator
from fractions import Fraction
from itertools import combinations, product

import numpy as np

from conformance.blocks import residual_mask
from conformance.calls import balanced, threshold
from conformance.check import Results, Subject, check, holds, likely
from conformance.protocol import Array, Call
from conformance.statistics import between, exact, together, within

SIZES = (1, 2, 3, 5, 7, 10, 33, 65)
EDGES = (1e-6, 0.001, 0.02, 0.05, 0.999, 1 - 2**-12)
LAGS = (1, 2, 3, 4, 8, 64, 1024)


def draw(
    subject: Subject, group_size: int, p: float, seed: int | None = 0, rows: int = 210_000
) -> Call:
    """Return a balanced call; where each mask is exact, one shape for each size of its groups."""
    groups = (63_000 if exact(subject) else rows) // group_size
    return Call(np.ones((group_size * groups, 1)), p, seed=seed, options=balanced(groups))


def dropped_by(subject: Subject, call: Call) -> Array:
    """Return what a balanced call drops: bool [groups, group_size]."""
    keep = (residual_mask if call.op == "residual" else Subject.keep)(subject, call)
    rows = np.moveaxis(keep, call.options.get("axis", 0), 0)
    groups = call.options["groups"]
    return ~rows.reshape(groups, len(rows) // groups, -1)[:, :, 0]


def sizes_for(subject: Subject) -> tuple[int, ...]:
    """Return sizes of groups: half of them where KEY-4 holds the masks to the bit."""
    return SIZES[::2] if exact(subject) else SIZES


def low_and_rest(group_size: int, p: float) -> tuple[int, float]:
    """Return how many rows a group drops at least, and the probability of one more."""
    low, rest = divmod(group_size * threshold(p), 2**23)
    return low, float(Fraction(rest, 2**23))


@check("BAL-1", needs=("balanced",))
def count_is_rounded(subject: Subject) -> Results:
    sizes = sizes_for(subject)
    pairs = [(b, (0.37, 0.9)[i % 2], 210_000) for i, b in enumerate(sizes)]
    pairs += [(b, EDGES[(i + j) % 6], 63_000) for i, b in enumerate(sizes) for j in range(3)]
    for b, p, rows in pairs:
        counts = dropped_by(subject, draw(subject, b, p, rows=rows)).sum(1)
        yield from counts_are(f"b={b}, p={p}", counts, b, p)
        low, rest = low_and_rest(b, p)
        up, rarer = int((counts > low).sum()), min(rest, 1 - rest)
        off = 0.05 * b * p / rest if p in (0.37, 0.9) and rarer > 0.001 else math.inf
        yield likely(f"b={b}, p={p}, rounded up", up, counts.size, rest, off=off)
    for case, call in other_calls(subject):
        yield from counts_are(case, dropped_by(subject, call).sum(1), 10, call.drop_prob)


def counts_are(case: str, counts: Array, group_size: int, p: float) -> Results:
    """Hold that each group drops the whole number of rows, or one more."""
    low, rest = low_and_rest(group_size, p)
    want, got = {low, low + 1} if rest else {low}, {int(d) for d in counts}
    yield holds(case, got <= want, f"{want} dropped", f"{got} dropped")


def other_calls(subject: Subject) -> Iterator[tuple[str, Call]]:
    """Yield small calls of 4 groups of 10: of blocks, at other axes, seeds, and in succession."""
    ops = [op for op in ("drop_path", "residual") if op in {"drop_path", *subject.info.claims}]
    axis, shape = (1, (2, 40)) if "axis" in subject.info.claims else (0, (40, 2))
    unkeyed = [] if "stateless" in subject.info.claims else [None] * 5
    options = balanced(4) | ({"axis": axis} if axis else {})
    for op, p in product(ops, (0.02, 0.37, 0.9, 0.999)):
        for i, seed in enumerate([*range(5), *unkeyed]):
            call = Call(np.ones(shape), p, op=op, seed=seed, options=options)
            yield f"{op}, b=10, p={p}, axis={axis}, seed {seed}, call {i}", call


@check("BAL-2", needs=("balanced",))
def every_row_alike(subject: Subject) -> Results:
    for b, p, off in (
        *((1, 0.001, 0.8), (1, 0.05, 0.1), (2, 0.05, 0.14), (3, 0.37, 0.05), (5, 0.37, 0.07)),
        *((7, 0.9, 0.05), (10, 0.37, 0.1), (33, 0.5, 0.13), (65, 0.5, 0.18), (3, 0.999, 0.05)),
    ):
        if b not in sizes_for(subject):
            continue
        dropped = dropped_by(subject, draw(subject, b, p))
        yield likely(f"b={b}, p={p}, row", dropped.sum(0), len(dropped), p, off=off)


@check("BAL-3", needs=("balanced",))
def every_subset_alike(subject: Subject) -> Results:
    for b, p, off in (
        (3, 0.37, 0.18),
        (5, 0.5, 0.25),
        (7, 0.1, 0.2),
        (7, 0.9, 0.2),
        (10, 0.9, 0.25),
    ):
        if b not in sizes_for(subject):
            continue
        dropped = dropped_by(subject, draw(subject, b, p))
        subsets = dropped @ (1 << np.arange(b))
        for m in {low_and_rest(b, p)[0], low_and_rest(b, p)[0] + 1}:
            every = [sum(1 << i for i in rows) for rows in combinations(range(b), m)]
            groups = int((dropped.sum(1) == m).sum())
            if len(every) > 1 and groups > 1000:
                counts = np.bincount(subsets, minlength=1 << b)[every]
                case = f"b={b}, p={p}, {m} dropped, subset"
                yield likely(case, counts, groups, 1 / len(every), off=off)
    for b in sizes_for(subject)[-1:]:
        yield from pairs_of_rows(subject, b)
    yield from groups_are_independent(subject)


def pairs_of_rows(subject: Subject, b: int) -> Results:
    """Hold how often two rows of a group are alike, where its subsets are too many to count."""
    dropped = dropped_by(subject, draw(subject, b, 0.5))
    low, rest = low_and_rest(b, 0.5)
    alike = [1 - 2 * m * (b - m) / (b * (b - 1)) for m in (low, low + 1)]
    chance = alike[0] * (1 - rest) + alike[1] * rest
    for i, j in ((0, 1), (1, 2), (b - 2, b - 1), (0, b - 1), (0, b // 2), (0, 16), (0, 32)):
        count = int((dropped[:, i] == dropped[:, j]).sum())
        case = f"b={b}, p=0.5, rows {i} and {j} alike"
        yield likely(case, count, len(dropped), chance, off=0.18)


def groups_are_independent(subject: Subject) -> Results:
    """Compare the first rows of groups, and what is rounded up, at p = 1/2 and b = 3."""

    def drawn(seed: int | None) -> tuple[Array, Array, Array]:
        dropped = dropped_by(subject, draw(subject, 3, 0.5, seed))
        return dropped[:, 0], dropped.sum(1) > 1, dropped.reshape(-1)

    first, up, rows = drawn(0)
    yield from within("first rows of groups", first, LAGS)
    yield from within("groups rounded up", up, LAGS)
    yield together("first row and the next group rounded up", first[:-1], up[1:])
    yield together("first row and the group before rounded up", first[1:], up[:-1])
    yield together("row i and group i rounded up", rows[3 : len(up)], up[3:])
    unkeyed = [] if "stateless" in subject.info.claims else [("the next call", drawn(None))]
    for case, (later, later_up, _) in [*unkeyed, ("seed 1", drawn(1))]:
        yield from between(f"seed 0 and {case}, first rows of groups", first, later)
        yield from between(f"seed 0 and {case}, groups rounded up", up, later_up)


@check("BAL-4", needs=("schedule",))
def capacity_is_the_most_kept(subject: Subject) -> Results:
    sizes = (
        (1, 1),
        (2, 1),
        (3, 1),
        (10, 1),
        (65, 1),
        (4096, 1),
        (20, 2),
        (65, 13),
        (100, 4),
        (64, 64),
    )
    for batch, groups in sizes:
        b = batch // groups
        exact_rates = [k / b for k in range(1, b)][:: max(1, b // 4)]
        near = [np.nextafter(p, to) for p in exact_rates for to in (0, 1)]  # float32 rounds: as k/b
        next_t = [(2**23 * p // 1 + 1) / 2**23 for p in exact_rates]
        rates = (0.0, 2.0**-150, 1e-9, 0.001, 0.1, 0.37, 0.8, 0.9, 1 - 2**-12, 1 - 2**-24, 1.0)
        for p in (*rates, *exact_rates, *map(float, near), *next_t):
            options = {"drop_prob": p, "batch": batch, "groups": groups}
            got = int(subject.run(Call(op="kept_capacity", options=options)).y)
            want = batch - groups * (b * threshold(p) >> 23)
            yield holds(f"{options}", got == want, str(want), got)
            least = groups if threshold(p) < 2**23 else 0
            yield holds(f"{options}", got >= least, "at least one row a group if T < 2**23", got)
