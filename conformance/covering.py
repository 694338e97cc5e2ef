"""Rows of values in which every pair of values of two factors occurs together.

Not here: which factors there are (factors.py). Source: allpairspy, which may stop before every pair
has occurred where rows are not allowed; what it left out is added, a row for each pair.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import combinations, islice
from typing import Any

from allpairspy import AllPairs

Row = dict[str, Any]
Factors = Mapping[str, Sequence[Any]]
Pair = tuple[tuple[str, Any], tuple[str, Any]]  # two factors, each with a value
SOME = 8  # rows to choose from


def covering(factors: Factors, allowed: Callable[[Row], bool] = lambda row: True) -> list[Row]:
    """Return rows that hold every pair of values of two factors that some allowed row holds.

    allowed: of a row whose last factors may be missing yet; says no for good.

    >>> len(covering({"mode": ["row", "batch"], "axis": [0, 1], "rate": [0.1, 0.9]}))
    4
    """
    rows = [*_rows(factors, allowed)]
    pairs = [*_pairs(factors)]
    for pair in pairs:
        if not any(_has(row, pair) for row in rows):
            (one, a), (two, b) = pair
            with_it = islice(_rows({**factors, one: [a], two: [b]}, allowed), SOME)
            left = [other for other in pairs if not any(_has(row, other) for row in rows)]
            best = max(with_it, key=lambda row: sum(_has(row, p) for p in left), default=None)
            rows += [best] if best else []
    return rows


def _pairs(factors: Factors) -> Iterator[Pair]:
    for (one, values), (two, others) in combinations(factors.items(), 2):
        yield from (((one, a), (two, b)) for a in values for b in others)


def _has(row: Row, pair: Pair) -> bool:
    return all(row[factor] == value for factor, value in pair)


def _rows(factors: Factors, allowed: Callable[[Row], bool]) -> Iterator[Row]:
    names, values = [*factors], [[*values] for values in factors.values()]

    def may_be(chosen: list[Any]) -> bool:
        return allowed(dict(zip(names, chosen, strict=False)))

    return (dict(zip(names, row, strict=True)) for row in AllPairs(values, filter_func=may_be))
