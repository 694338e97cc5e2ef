"""Each limit is kept by numbers that keep it, and found by numbers that do not."""

from dataclasses import replace

import pytest

from conformance.aot.limits import LIMITS, judge
from conformance.aot.program import Compiled, Program


def lower(target):
    raise AssertionError("nothing is compiled here")


SUMS = {"all-reduce": 2}
DENSE = Compiled("4 H100", "H100", 4, "dense", 100.0, 1.0, 900, 0, SUMS, 96, 96, 1.0)
MASKED = replace(DENSE, program="masked", temporary=1000)
BALANCED = replace(DENSE, program="balanced", flops=60.5, donated=700)
BESIDE = {"dense": DENSE, "masked": MASKED}
PROGRAM = Program("balanced", lower, 96, "dense", "masked", rows=0.6, state=700)
BATCH = PROGRAM._replace(name="batch", rows=None)


def test_what_is_within_the_limits_keeps_them():
    first = replace(BALANCED, chips=2)
    assert judge(PROGRAM, BALANCED, BESIDE, first) == dict.fromkeys(sorted(LIMITS), True)


@pytest.mark.parametrize(
    ("letter", "change"),
    [
        ("F", {"flops": 61.3}),
        ("F", {"flops": 58.7}),
        ("M", {"temporary": 1001}),
        ("C", {"collectives": {"all-reduce": 3}}),
        ("C", {"collectives": SUMS | {"all-gather": 1}}),
        ("B", {"batch": 384}),
        ("D", {"donated": 699}),
    ],
)
def test_what_is_beyond_a_limit_is_found(letter, change):
    row = replace(BALANCED, **change)
    assert judge(PROGRAM, row, BESIDE, row) == {
        each: each != letter for each in sorted(LIMITS) if each != "S"
    }


@pytest.mark.parametrize("change", [{"flops": 70.0}, {"collectives": {"all-reduce": 3}}])
def test_more_chips_must_compile_alike(change):
    first = replace(BALANCED, chips=2, **change)
    assert judge(PROGRAM, BALANCED, BESIDE, first)["S"] is False


def test_batch_mode_may_take_a_tenth_more_memory_on_a_gpu_and_keep_its_sums_apart():
    row = replace(BALANCED, temporary=1100, collectives={"all-reduce": 5})
    kept = judge(BATCH, row, BESIDE, row)
    assert kept["M"]
    assert kept["C"]
    assert not judge(BATCH, replace(row, temporary=1101), BESIDE, row)["M"]
    assert not judge(BATCH, replace(row, collectives={"all-gather": 1}), BESIDE, row)["C"]
    assert "M" not in judge(BATCH, replace(row, kind="TPU v5e"), BESIDE, row)


def test_a_plan_exchanges_no_more_than_all_layers_do():
    plan = PROGRAM._replace(name="stack, a plan", loops=True)
    for collectives, kept in (
        ({"all-reduce": 1}, True),
        (SUMS, True),
        ({"all-reduce": 3}, False),
        ({"all-gather": 1}, False),
    ):
        row = replace(BALANCED, collectives=collectives)
        assert judge(plan, row, BESIDE, row)["C"] == kept


def test_a_mask_is_to_exchange_nothing_and_is_held_to_no_more():
    mask = Program("keep_mask row", lower, 96)
    row = replace(DENSE, program=mask.name, collectives={})
    assert judge(mask, row, BESIDE, row) == {"B": True, "C": True}
    assert not judge(mask, replace(row, collectives=SUMS), BESIDE, row)["C"]


def test_where_the_compiler_gives_no_flops_none_are_held():
    row = replace(BALANCED, flops=None)
    assert "F" not in judge(PROGRAM, row, BESIDE, row)
