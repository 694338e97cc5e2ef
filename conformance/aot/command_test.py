"""The command without its packages, and what it compiles, here for the CPU that is at hand."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import jax
import pytest
from rich.console import Console

from conformance.aot import __main__, blocks, command, table
from conformance.aot.program import measure
from conformance.aot.targets import Target

HERE = Target("4 CPU", "CPU", jax.devices()[:4])


@pytest.fixture(scope="module")
def rows():
    return list(command.compile_all([HERE], True, Console(file=sys.stderr)))


def test_a_block_that_skips_takes_the_flops_of_its_rows_and_exchanges_what_the_plain_one_does(rows):
    assert all(row.good for row in rows)
    kept = {row.compiled.program: row.kept for row in rows}
    assert kept["balanced"] == kept["balanced, Explicit"] == dict.fromkeys("BCFM", True)
    assert kept["keep_mask balanced"] == dict.fromkeys("BC", True)
    assert kept["stack, a plan"] == dict.fromkeys("BCFM", True)


def test_what_one_should_not_do_is_found(rows):
    (row,) = (row for row in rows if row.contrary)
    assert row.compiled.program == blocks.CONTRARY
    assert not row.kept["C"]
    assert not row._replace(kept=dict.fromkeys("BC", True)).good  # a search that finds nothing


def test_the_page_gets_the_table_between_its_marks_and_the_numbers_beside_it(rows, tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"before\n{table.BEGIN}\nstale\n{table.END}\nafter\n")
    table.write(rows, page, "setting")
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "stale" not in text
    (line,) = (line for line in text.splitlines() if line.startswith("| balanced |"))
    assert [cell.strip() for cell in line.split("|")][2:6:3] == ["0.605", "96 of 96"]
    numbers = json.loads(page.with_suffix(".json").read_text())
    assert [each["program"] for each in numbers["programs"]] == [r.compiled.program for r in rows]


def test_a_page_without_marks_is_refused_and_left(rows, tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"{table.BEGIN} twice {table.BEGIN}")
    with pytest.raises(ValueError, match="write must be a page that holds"):
        table.write(rows, page, "setting")
    assert page.read_text() == f"{table.BEGIN} twice {table.BEGIN}"
    assert list(tmp_path.iterdir()) == [page]


def test_without_its_packages_the_command_says_in_one_line_which_to_install(capsys, monkeypatch):
    monkeypatch.setattr("conformance.extras.find_spec", lambda name: None)
    assert __main__.main([]) == 2
    assert capsys.readouterr().err == (
        "flax, jax, jax_cuda13_plugin, libtpu, rich must be installed: "
        "pip install 'droppath[aot]'\n"
    )


def test_the_steps_of_the_example_donate_their_state_and_are_lowered_for_any_devices():
    from conformance.aot.steps import steps

    programs = {program.name: program for program in steps(4)}
    assert len(programs) == 11
    planned = programs["vit step, a plan"]
    assert (planned.rows, planned.like, planned.loops) == (0.5, "vit step, all layers", True)
    step = programs["vit step, balanced"]
    assert step.rows == 0.5
    assert step.state > 0
    text = step.lower(HERE).as_text()
    assert "tensor<2000x32x32x3xui8>" in text


@pytest.mark.parametrize("chips", ["0", "-1"])
def test_no_chips_are_refused(chips, capsys):
    with pytest.raises(SystemExit) as stop:
        command.main(["--cuda", "h100", "--chips", chips])
    assert stop.value.code == 2
    assert f"chips must be at least 1, got {chips}" in capsys.readouterr().err


def test_the_environment_is_made_without_the_packages_too():
    made = __main__.environment()
    assert made["JAX_PLATFORMS"] == "cpu"
    assert Path(made["PATH"].split(":")[0]).name == "bin"


def test_a_compiled_program_says_its_target_and_its_share():
    program = next(iter(blocks.blocks(4)))
    row = measure(HERE, program)
    assert (row.target, row.chips, row.share, row.collectives) == ("4 CPU", 4, 96, {})
    assert replace(row, seconds=0.0).temporary >= 0


def test_what_one_should_not_do_is_compiled_only_where_its_memory_may_be_had():
    few, many = ({p.name for p in blocks.blocks(devices)} for devices in (4, 256))
    assert few - many == {blocks.CONTRARY}
    assert many < few
