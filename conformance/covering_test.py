"""The covering: complete, checked on its own, also where rows are not allowed."""

from itertools import combinations, product

import pytest

from conformance.check import Subject
from conformance.covering import covering
from conformance.factors import COMPILED, DRAWN, ELSEWHERE, UNDRAWN, is_defined, values
from conformance.loading import load

REFERENCE = load("reference")
SUBJECT = Subject(REFERENCE, REFERENCE.info())


def pairs(rows):
    return {pair for row in rows for pair in combinations(row.items(), 2)}


def test_every_pair_that_an_allowed_row_holds_is_there():
    factors = {"a": [0, 1, 2], "b": [0, 1, 2], "c": [0, 1], "d": [0, 1]}

    def allowed(row):  # the last factors may be missing yet
        return not (row.get("a") == 1 and row.get("c") == 0) and not (
            row.get("b") == 2 and row.get("c") == 1
        )

    every = [dict(zip(factors, v, strict=True)) for v in product(*factors.values())]
    rows = covering(factors, allowed)
    assert all(allowed(row) for row in rows)
    possible = pairs(row for row in every if allowed(row))
    assert pairs(rows) == possible
    assert len(possible) < len(pairs(every))
    assert (("a", 1), ("b", 2)) not in possible  # which no rule names: two rules together do


@pytest.mark.parametrize(
    "part", [DRAWN, UNDRAWN, COMPILED | {"how": ("eager",)}, ELSEWHERE | {"how": ("2 shards",)}]
)
def test_every_pair_of_a_part_is_there(part):
    given = values(SUBJECT, part)
    every = {
        ((one, a), (two, b))
        for (one, first), (two, second) in combinations(given.items(), 2)
        for a in first
        for b in second
    }
    rows = covering(given, is_defined)
    assert len(every) > 300
    assert pairs(rows) == every
    assert all(is_defined(row) for row in rows)
    assert len(rows) < 60
