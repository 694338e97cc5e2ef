"""BAL: balanced masks drop a fixed number of rows, and every row alike."""

from fractions import Fraction

import numpy as np

from conformance.calls import RATES, balanced, threshold
from conformance.check import Results, Subject, check, holds, likely
from conformance.protocol import Array, Call


def kept_of(subject: Subject, group_size: int, groups: int, p: float) -> Array:
    """Return a balanced mask as bool [groups, group_size]."""
    call = Call(np.ones((group_size * groups, 2)), p, options=balanced(groups))
    return subject.rows(call).reshape(groups, group_size)


@check("BAL-1", needs=("balanced",))
def count_is_rounded(subject: Subject) -> Results:
    for group_size in (1, 2, 3, 10, 33):
        for p in RATES:
            dropped = (~kept_of(subject, group_size, 300, p)).sum(1)
            low = group_size * threshold(p) >> 23
            want, got = {low, low + 1}, {int(d) for d in dropped}
            yield holds(f"b={group_size}, p={p}", got <= want, f"{want} dropped", f"{got} dropped")
            rest = Fraction(group_size * threshold(p), 2**23) - low
            up = int((dropped > low).sum())
            yield likely(f"b={group_size}, p={p}, rounded up", up, dropped.size, float(rest))


@check("BAL-2", needs=("balanced",))
def every_row_alike(subject: Subject) -> Results:
    for group_size, p in ((1, 0.1), (2, 0.05), (3, 0.37), (7, 0.1)):
        keep = kept_of(subject, group_size, 20_000, p)
        for i in range(group_size):
            yield likely(f"b={group_size}, p={p}, row {i}", int((~keep[:, i]).sum()), len(keep), p)


@check("BAL-3", needs=("balanced",))
def every_subset_alike(subject: Subject) -> Results:
    keep = kept_of(subject, 4, 20_000, 0.5)  # two of four: six subsets
    subsets, counts = np.unique(keep @ (1, 2, 4, 8), return_counts=True)
    yield holds("b=4, p=0.5", len(subsets) == 6, "6 subsets", len(subsets))
    for subset, count in zip(subsets, counts, strict=True):
        yield likely(f"b=4, p=0.5, kept rows {subset:04b}", int(count), len(keep), 1 / 6)


@check("BAL-4", needs=("schedule",))
def capacity_is_the_most_kept(subject: Subject) -> Results:
    for batch, groups in ((1, 1), (10, 1), (20, 2), (30, 1), (100, 4), (4096, 1)):
        for p in (0.001, 0.1, 0.37, 0.8, 0.9, 1 - 2**-12):
            options = {"drop_prob": p, "batch": batch, "groups": groups}
            got = int(subject.run(Call(op="kept_capacity", options=options)).y)
            want = batch - groups * (batch // groups * threshold(p) >> 23)
            yield holds(f"{options}", got == want, str(want), got)
            yield holds(f"{options}", got >= groups, "at least one row a group", got)
