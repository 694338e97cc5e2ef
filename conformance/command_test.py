"""The command line: exit statuses, known failures, files that are written."""

import json
import time

import pytest

from conformance import command, golden
from conformance.command import main

BARE, SWAPPED = (f"conformance.adapter_mutants:{name}" for name in ("bare", "swapped"))


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """Writes a module of one's own."""
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path / "mine.py"


def test_exit_status_0_conforms(capsys):
    assert main([BARE]) == 0
    assert "conforms" in capsys.readouterr().out


def test_exit_status_1_does_not_and_the_report_names_the_clause_and_both_values(capsys, tmp_path):
    file = tmp_path / "report.json"
    assert main([SWAPPED, "--json", str(file)]) == 1
    out = capsys.readouterr().out
    assert "does not conform" in out
    assert all(
        text in out for text in ("MASK-4", "want", "got", "see  conformance/clauses/mask.py")
    )
    (report,) = json.loads(file.read_text())["reports"]
    assert not report["conforms"]
    failed = {v["clause"] for v in report["verdicts"] if v["findings"]}
    assert {"MASK-4", "KEY-2"} <= failed


def test_a_known_failure_is_no_failure_and_a_known_failure_that_passes_is_one(tmp_path, capsys):
    known = tmp_path / "known.toml"
    name = SWAPPED
    run = [name, "--only", "MASK-4", "--only", "TYPE-2", "--known", str(known)]
    known.write_text(f'["{name}"]\nMASK-4 = "it keeps what it should drop"\n')
    assert main(run) == 0
    known.write_text(f'["{name}"]\nMASK-4 = "a reason"\nTYPE-2 = "a reason"\n')
    assert main(run) == 1
    assert "TYPE-2 known failure" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('[reference]\nMASK-9 = "x"', "[reference] MASK-9 must be a clause with a reason"),
        ('[reference]\nMASK-4 = ""', "[reference] MASK-4 must be a clause with a reason"),
        ("reference = 1", "[reference] must be a table of CLAUSE = reason"),
        ('[timm]\nMASK-4 = "x"', "[timm] must be one of reference"),
    ],
)
def test_a_list_of_known_failures_that_names_nothing_is_refused(text, reason, tmp_path, capsys):
    file = tmp_path / "known.toml"
    file.write_text(text)
    assert main(["reference", "--only", "MASK-4", "--known", str(file)]) == 2
    assert capsys.readouterr().err == f"{file}: {reason}\n"


def test_a_vector_file_that_is_cut_short_is_exit_2_before_anything_runs(monkeypatch, capsys):
    def broken():
        raise ValueError("apply.json: is cut short")

    golden._vectors.cache_clear()
    monkeypatch.setattr("conformance.golden.load", broken)
    assert main(["reference"]) == 2
    assert capsys.readouterr().err == "apply.json: is cut short\n"


def test_what_was_never_compared_does_not_conform(capsys, tmp_path):
    assert main([BARE, "--only", "KEY-1"]) == 2
    assert "nothing was tested" in capsys.readouterr().err
    known = tmp_path / "known.toml"
    known.write_text(f'["{BARE}"]\nKEY-1 = "a reason"\n')
    assert main([BARE, "--only", "KEY-1", "--only", "TYPE-2", "--known", str(known)]) == 1
    with pytest.raises(SystemExit, match="2"):
        main(["--cross", "reference", "torch", "--only", "SCALE-1"])


@pytest.mark.parametrize("option", ["--json", "--markdown", "--html"])
@pytest.mark.parametrize("place", [".", "none/file"])
def test_a_report_that_cannot_be_written_is_said_before_the_run(option, place, tmp_path, capsys):
    file = tmp_path / place
    assert main(["nothing", option, str(file)]) == 2
    error = f"{option} must name a file that can be written, got {file}\n"
    assert capsys.readouterr().err == error


def test_a_run_that_breaks_writes_no_file_and_empties_none(tmp_path):
    old, new = tmp_path / "old.json", tmp_path / "new.html"
    old.write_text("what was found yesterday")
    assert main(["nothing", "--json", str(old), "--html", str(new)]) == 2
    assert old.read_text() == "what was found yesterday"
    assert not new.exists()


LATE = """
import os
from conformance.adapters.reference import Reference
class Late(Reference):
    def run(self, call):
        return os._exit(0) if call.op == "ramp" else super().run(call)
backend = Late
"""


def test_an_adapter_that_exits_in_a_check_is_exit_2_and_named_with_the_clause(mine, capsys):
    mine.write_text(LATE)
    assert main(["mine", "--only", "TYPE-2", "--only", "SCHED-4"]) == 2
    told = "SCHED-4: its process ended with exit status 0\n"
    assert capsys.readouterr().err.endswith(told)


PAIR = """
import pathlib, time
from conformance.adapters.reference import Reference
class Backend(Reference):
    def __init__(self, mine, other):
        self.mine, self.other = (pathlib.Path(__file__).with_name(n) for n in (mine, other))
    def run(self, call):
        if call.op == "ramp":
            self.mine.touch()
            deadline = time.monotonic() + 30
            while not self.other.exists():
                assert time.monotonic() < deadline
                time.sleep(0.01)
        return super().run(call)
def a(): return Backend("a", "b")
def b(): return Backend("b", "a")
def hangs(): return Backend("hangs", "nothing")
"""


def test_backends_run_beside_one_another_and_are_reported_in_order(mine, tmp_path):
    mine.write_text(PAIR)
    file = tmp_path / "report.json"
    assert main(["mine:b", "mine:a", "--only", "SCHED-4", "--json", str(file)]) == 0
    reports = json.loads(file.read_text())["reports"]
    assert [report["backend"] for report in reports] == ["mine:b", "mine:a"]
    assert all(report["complete"] for report in reports)


def test_a_backend_that_breaks_stops_the_others(mine, capsys):
    mine.write_text(PAIR + LATE)
    begin = time.monotonic()
    assert main(["mine:hangs", "mine", "--only", "SCHED-4"]) == 2
    assert "SCHED-4: its process ended with exit status 0\n" in capsys.readouterr().err
    assert time.monotonic() - begin < 20  # of the 30 s that the other would wait


def test_an_option_that_a_named_backend_does_not_take_is_refused(monkeypatch, capsys):
    assert main(["reference", "--compiled"]) == 2
    assert capsys.readouterr().err == "reference takes no --compiled\n"
    monkeypatch.setattr(command, "installed", lambda: ["reference"])
    assert main(["--compiled", "--device", "cuda", "--only", "TYPE-2"]) == 0


def test_two_backends_that_share_no_key_cannot_be_crossed(capsys):
    assert main(["--cross", "reference", BARE]) == 2
    assert "both must claim keyed" in capsys.readouterr().err


def test_the_matrix_is_written_for_every_reader(tmp_path, capsys):
    page, text, data = (tmp_path / name for name in ("m.html", "m.md", "m.json"))
    files = ["--html", str(page), "--markdown", str(text), "--json", str(data)]
    assert main([SWAPPED, "--only", "MASK-4", "--only", "TYPE-2", "--matrix", *files]) == 1
    assert "✗" in capsys.readouterr().out
    assert "| ✗ 4 |" in text.read_text()
    assert 'title="MASK-4 P(dropped) = p: FAIL"' in page.read_text()
    assert "<script" not in page.read_text()
    (report,) = json.loads(data.read_text())["reports"]
    assert {v["clause"]: v["result"] for v in report["verdicts"]} == {
        "MASK-4": "FAIL",
        "TYPE-2": "pass",
    }
