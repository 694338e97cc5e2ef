import io
import json
from dataclasses import replace

import pytest
from matplotlib.figure import Figure
from rich.console import Console

from benchmarks.acceptance import lines
from benchmarks.cases import Case
from benchmarks.machine import facts
from benchmarks.plots import draw
from benchmarks.records import Record, Report, beside, memory_ratio, time_ratio
from benchmarks.table import table

CASE = Case("vit-small", "vit", 32, 65, 192, 4, 0.4)
MASKED = Record(
    case=CASE,
    setup="torch",
    method="timm",
    label="timm's method",
    seconds=(0.18, 0.2, 0.23),
    repeats=9,
    ratios={"timm": 1.0},
    memory=50_000_000,
    rate=0.401,
    draws=10,
)
OURS = replace(
    MASKED,
    method="balanced",
    label="ours, balanced",
    seconds=(0.1, 0.12, 0.125),
    ratios={"timm": 0.61},
    memory=32_500_000,
    rate=0.4,
)


def report(*records):
    return Report(facts("cpu", "python -m benchmarks"), {"Flax": "not installed"}, list(records))


def shown(made):
    console = Console(file=io.StringIO(), width=120)
    console.print(table(made))
    return console.file.getvalue()


def at(record, **case):
    return replace(record, case=replace(CASE, **case))


def test_a_report_is_read_as_it_was_written():
    made = report(MASKED, OURS)
    assert Report.from_json(made.to_json()) == made


def test_facts_name_the_machine_and_the_versions():
    known = json.loads(json.dumps(facts("cpu", "python -m benchmarks --quick")))
    assert known["device"] == known["cpu"] != ""
    assert known["dtype"] == "float32"
    assert known["cores"] >= 1
    assert known["command"] == "python -m benchmarks --quick"
    assert {"python", "numpy"} <= set(known["versions"])
    assert facts("GPU", "")["dtype"] == "bfloat16"


def test_ratios_are_to_masking_on_the_same_case_in_the_same_setup():
    elsewhere = replace(MASKED, setup="flax")
    assert beside(OURS, [elsewhere, MASKED]) == MASKED
    assert time_ratio(OURS, MASKED) == 0.61
    assert memory_ratio(OURS, MASKED) == 0.65
    assert beside(OURS, [elsewhere, at(MASKED, batch=16)]) is None
    assert time_ratio(OURS, None) is None


def test_the_table_shows_each_record_and_what_was_left_out():
    text = shown(report(MASKED, OURS))
    row = next(line for line in text.splitlines() if "ours, balanced" in line)
    assert [cell.strip() for cell in row.strip("│").split("│")] == [
        "ours, balanced", "0.400", "120", "100 to 125", "0.61", "32.5", "0.65", "", "",
    ]  # fmt: skip
    assert "Left out: Flax: not installed." in text
    assert "vit, 32 x 65 x 192, depth 4" in text
    assert "reached: torch, balanced at p = 0.4, step to masking: 0.610, at most 0.650" in text


def test_the_table_shows_the_bandwidth_of_the_plain_op():
    # 32 * 65 * 192 float32 are 1,597,440 bytes, moved four times in 0.2 s: 0.03 GB/s
    op = at(MASKED, block="op")
    copy = replace(op, method="none", label="copy", seconds=(0.1, 0.1, 0.1))
    text = shown(report(op, copy))
    row = next(line for line in text.splitlines() if "timm's method" in line)
    assert [cell.strip() for cell in row.strip("│").split("│")][-2:] == ["0.0", "0.50"]


def test_plots_are_drawn_where_there_are_several_rates(tmp_path):
    others = [at(record, drop_prob=0.1) for record in (MASKED, OURS)]
    paths = draw([MASKED, OURS, *others], tmp_path / "cpu")
    assert [path.name for path in paths] == ["cpu-step.png", "cpu-memory.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in paths)
    assert draw([MASKED, OURS], tmp_path / "none") == []


def test_what_is_far_above_masking_does_not_flatten_the_plot(tmp_path, monkeypatch):
    limits = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, path: limits.append(
        {axes.get_ylim() for axes in figure.axes}
    ))  # fmt: skip
    slow = replace(OURS, setup="flax", ratios={"timm": 31.0})
    records = [MASKED, OURS, replace(MASKED, setup="flax"), slow]
    draw([*records, *(at(record, drop_prob=0.1) for record in records)], tmp_path / "cpu")
    assert limits[0] == {(0.0, 2.1)}


def test_a_demand_is_reached_up_to_its_limit_and_missed_beyond():
    step, memory = lines([MASKED, OURS])  # 32.5 of 50 MB
    assert (step.figure, step.limit, step.reached) == (0.61, 0.65, True)
    assert (memory.figure, memory.limit, memory.reached) == (0.65, pytest.approx(0.7), True)
    slow = replace(OURS, ratios={"timm": 0.7})
    assert [line.reached for line in lines([MASKED, slow])] == [False, True]
    assert str(lines([MASKED, slow])[0]).startswith("missed: torch, balanced at p = 0.4")


@pytest.mark.parametrize(("setup", "computed"), [("torch", 19.2), ("flax", 20)])
def test_dinov2s_method_is_also_compared_by_the_rows_that_run(setup, computed):
    ours = replace(OURS, setup=setup, ratios={"timm": 0.61, "dinov2": 1.02 * computed / 19})
    masked = replace(MASKED, setup=setup)
    subset = replace(masked, method="dinov2", rate=13 / 32)  # it computes 19 rows of 32
    step, row = [line for line in lines([masked, ours, subset]) if "DINOv2" in line.demand]
    assert (step.figure, step.reached) == (1.02 * computed / 19, False)
    assert row.figure == pytest.approx(1.02)


def test_the_worst_of_several_cases_is_judged():
    large = [at(MASKED, group="vit-large"), at(OURS, group="vit-large")]
    slow = replace(large[1], ratios={"timm": 0.75})
    assert lines([MASKED, OURS, large[0], slow])[0].figure == 0.75


def test_at_batch_2_the_rate_must_be_within_binomial_bounds():
    small = {"group": "batch-2", "batch": 2, "drop_prob": 0.05}
    right, wrong = (at(replace(OURS, rate=rate, draws=10_000), **small)
                    for rate in (0.052, 0.5))  # fmt: skip
    (line,) = lines([right])
    assert line.limit == pytest.approx(4 * (0.05 * 0.95 / 20_000) ** 0.5)
    assert line.reached
    assert not lines([wrong])[0].reached


def test_a_plan_takes_what_its_layers_take_and_varies_no_more_than_all():
    stack = {"block": "decoder", "depth": 4, "drop_prob": 0.5}  # of the sum 1: three of four run
    full = at(replace(MASKED, method="none", seconds=(0.19, 0.2, 0.21)), **stack)
    plan = replace(full, method="plan", seconds=(0.15, 0.16, 0.17), ratios={"none": 0.78})
    step, spread = lines([full, plan])
    assert (step.figure, step.limit, step.reached) == (0.78, pytest.approx(0.78), True)
    assert spread.figure == pytest.approx(0.02 / 0.16 - 0.02 / 0.2)
    assert spread.reached
    restless = replace(plan, seconds=(0.14, 0.16, 0.17), ratios={"none": 0.79})
    assert [line.reached for line in lines([full, restless])] == [False, False]
    in_jax = [replace(record, setup="flax") for record in (full, restless)]
    assert lines(in_jax)[0].limit == pytest.approx(0.8)
    assert not lines([plan])  # beside nothing
