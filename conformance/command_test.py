"""The command line: exit statuses, known failures, files that are written."""

import json
from dataclasses import replace

import pytest

from conformance.adapters.reference import Reference
from conformance.clauses.mask_mutants import MUTANTS
from conformance.command import main
from conformance.loading import load
from conformance.protocol import Info

SWAPPED = next(mutant for mutant in MUTANTS if mutant.name == "keep and drop swapped")


class Bare(Reference):
    """A right DropPath that claims nothing but to need a key."""

    def info(self):
        return Info("bare", frozenset({"stateless"}))


def bare():
    return Bare()


def swapped():
    return SWAPPED.backend()


def changed(**changes):
    """A backend whose outcomes differ from the reference's as said."""

    class Changed(Bare):
        def run(self, call):
            outcome = load("reference").run(call)
            return replace(outcome, **{name: new(call, outcome) for name, new in changes.items()})

    return Changed


def test_exit_status_0_conforms(capsys):
    assert main([f"{__name__}:bare"]) == 0
    assert "conforms" in capsys.readouterr().out


def test_exit_status_1_does_not_and_the_report_names_the_clause_and_both_values(capsys, tmp_path):
    file = tmp_path / "report.json"
    assert main([f"{__name__}:swapped", "--json", str(file)]) == 1
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
    name = f"{__name__}:swapped"
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

    monkeypatch.setattr("conformance.golden.load", broken)
    assert main(["reference"]) == 2
    assert capsys.readouterr().err == "apply.json: is cut short\n"


def test_what_was_never_compared_does_not_conform(capsys, tmp_path):
    assert main([f"{__name__}:bare", "--only", "KEY-1"]) == 2
    assert "nothing was tested" in capsys.readouterr().err
    known = tmp_path / "known.toml"
    known.write_text(f'["{__name__}:bare"]\nKEY-1 = "a reason"\n')
    assert (
        main([f"{__name__}:bare", "--only", "KEY-1", "--only", "TYPE-2", "--known", str(known)])
        == 1
    )
    with pytest.raises(SystemExit, match="2"):
        main(["--cross", "reference", "torch", "--only", "SCALE-1"])


def test_a_report_that_cannot_be_written_is_said_before_the_run(tmp_path, capsys):
    assert main(["reference", "--json", str(tmp_path / "none" / "file")]) == 2
    assert "none/file" in capsys.readouterr().err


def test_an_adapter_that_breaks_the_protocol_late_is_exit_2(monkeypatch, capsys):
    late = changed(dtype=lambda c, o: "bf16" if c.drop_prob == 1.0 else o.dtype)
    monkeypatch.setitem(globals(), "made", late)
    assert main([f"{__name__}:made", "--only", "DROP-2"]) == 2
    assert "DROP-2: dtype must be one of" in capsys.readouterr().err


def test_two_backends_that_share_no_key_cannot_be_crossed(capsys):
    assert main(["--cross", "reference", f"{__name__}:bare"]) == 2
    assert "both must claim keyed" in capsys.readouterr().err


def test_the_matrix_is_written_for_every_reader(tmp_path, capsys):
    page, text, data = (tmp_path / name for name in ("m.html", "m.md", "m.json"))
    files = ["--html", str(page), "--markdown", str(text), "--json", str(data)]
    assert (
        main([f"{__name__}:swapped", "--only", "MASK-4", "--only", "TYPE-2", "--matrix", *files])
        == 1
    )
    assert "✗" in capsys.readouterr().out
    assert "| ✗ 4 |" in text.read_text()
    assert 'title="MASK-4 P(dropped) = p: FAIL"' in page.read_text()
    assert "<script" not in page.read_text()
    (report,) = json.loads(data.read_text())["reports"]
    assert {v["clause"]: v["result"] for v in report["verdicts"]} == {
        "MASK-4": "FAIL",
        "TYPE-2": "pass",
    }
