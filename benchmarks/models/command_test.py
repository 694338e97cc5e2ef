import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.child import Failed
from benchmarks.models import command
from benchmarks.models.listed import MODELS, RATES, TUNED
from benchmarks.models.page import page
from benchmarks.models.picture import draw
from benchmarks.models.rows import Point, Report, Row

FACTS = {"cpu": "a CPU", "cores": 2, "system": "Linux", "versions": {"torch": "2.13.0"}}
FACTS |= {"date": "2026-01-02T03:04:05", "load": 0.1, "command": "python -m benchmarks.models"}
FINE = Row("timm a", True, 32, (3, 64, 64), {}, 4, 1, 2, 4, {}, 1e-7, 0.65)
REASONS = {"BatchNorm2d mixes the samples: output 0 differs by 2": 1, "its mode": 1}
REASONS |= {"call 1 of 2: BatchNorm2d mixes the samples: ValueError: 5": 2}
SWEEP = [Point(p, 1 - 0.8 * p, 1 - 0.7 * p, 1 - p, 9) for p in (0.0, 0.4)]


@pytest.fixture
def tried(monkeypatch):
    """The titles of the models that children were asked for; each child has a fine row."""

    def in_child(title, function, *arguments, say):
        titles.append(title)
        say("keyed")
        if title in killed:
            raise Failed(f"{title}: its process was killed by SIGKILL")
        if "at p = " in title:
            return Point(arguments[0], 0.8, 0.7, 0.6, 9)
        return replace(FINE, title=title, tuned_on=arguments[0] in TUNED)

    titles, killed = [], {"timm levit_128s"}
    monkeypatch.setattr(command, "in_child", in_child)
    monkeypatch.setattr(command, "LIBRARIES", ())
    return titles


@pytest.fixture
def files(tmp_path):
    return ["--json", str(tmp_path / "models.json"), "--markdown", str(tmp_path / "models.md")]


def report(files):
    return Report.from_json(Path(files[1]).read_text(encoding="utf-8"))


def test_each_model_is_a_row_and_a_line_of_the_page(tried, files):
    assert command.main(files) == 0
    assert tried == [model.title for model in MODELS] == [row.title for row in report(files).rows]
    lines = Path(files[3]).read_text(encoding="utf-8").splitlines()
    assert len([line for line in lines if line.startswith("| t")]) == len(MODELS)


def test_a_child_that_is_killed_is_a_row_that_names_the_step(tried, files):
    assert command.main(["--only", "levit", *files]) == 0
    errors = {"keyed": "its process was killed by SIGKILL"}
    assert [row.errors for row in report(files).rows] == [errors]


def test_the_same_command_goes_on_where_it_was_stopped(tried, files):
    assert command.main(["--only", "edgenext", "coat_lite", *files]) == 0
    assert command.main(["--only", "edgenext", "resnet18", *files]) == 0
    assert tried == ["timm coat_lite_tiny", "timm edgenext_xx_small", "timm resnet18"]
    assert len(report(files).rows) == 3
    assert command.main(["--only", "resnet18", "--anew", *files]) == 0
    assert tried[3:] == ["timm resnet18"]
    assert len(report(files).rows) == 3


def test_rows_of_another_machine_are_not_added_to(tried, files, monkeypatch, capsys):
    assert command.main(["--only", "edgenext", *files]) == 0
    monkeypatch.setattr(command, "facts", lambda *_: FACTS)
    assert command.main(["--only", "resnet18", *files]) == 2
    assert "is of another cpu" in capsys.readouterr().err
    assert command.main(["--only", "resnet18", "--anew", *files]) == 0
    assert [row.title for row in report(files).rows] == ["timm resnet18"]


def test_the_sweep_is_drawn_beside_the_page_and_keeps_the_rows(tried, files):
    assert command.main(["--only", "edgenext", *files]) == 0
    assert command.main(["--sweep", *files]) == 0
    assert Path(files[3]).with_name("skipping_vit.png").exists()
    assert "![Step time against p](skipping_vit.png)" in Path(files[3]).read_text("utf-8")
    assert [point.drop_prob for point in report(files).sweep] == [*RATES]
    assert len(report(files).rows) == 1
    assert command.main(["--sweep", *files]) == 0
    assert len(tried) == 1 + len(RATES)  # none again


def test_the_rows_have_the_facts_of_their_own_command_though_a_sweep_came_first(tried, files):
    assert command.main(["--sweep", *files]) == 0
    assert command.main(["--only", "edgenext", *files]) == 0
    found = report(files)
    assert "--sweep" in found.sweep_facts["command"]
    assert "--only edgenext" in found.facts["command"]


def test_a_sweep_that_fails_is_said_in_one_line(tried, files, monkeypatch, capsys):
    def failed(*arguments, say):
        raise Failed("a sweep: its process ended with exit status 1")

    monkeypatch.setattr(command, "in_child", failed)
    assert command.main(["--sweep", *files]) == 1
    assert capsys.readouterr().err.startswith("python -m benchmarks.models: a sweep: its process")


def test_the_list_is_printed_and_nothing_tried(tried, files, capsys):
    assert command.main(["--list", "--only", "cait", *files]) == 0
    assert capsys.readouterr().out == "timm cait_xxs24_224\n"
    assert tried == []
    assert not Path(files[1]).exists()


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["--only", "alexnet"], "--only must be in a title that --list prints, got alexnet"),
        (["--seconds", "nan"], "--seconds must be above 0, got nan"),
        (["--json", f"{__file__}/x.json"], f"{__file__}/x.json must be a file that can be"),
    ],
)
def test_what_cannot_be_run_is_refused_in_one_line(arguments, error, tried, files, capsys):
    assert command.main([*files, *arguments]) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert line.startswith(f"python -m benchmarks.models: {error}")


def test_a_library_that_is_not_installed_is_named(tried, files, monkeypatch, capsys):
    monkeypatch.setattr(command, "LIBRARIES", ("json", "no_such_library"))
    assert command.main(files) == 2
    assert "no_such_library must be installed" in capsys.readouterr().err


def test_ctrl_c_keeps_what_was_found(tried, files, monkeypatch):
    def stopped(*arguments, say):
        raise KeyboardInterrupt

    assert command.main(["--only", "edgenext", *files]) == 0
    monkeypatch.setattr(command, "in_child", stopped)
    assert command.main(["--only", "resnet18", *files]) == 130
    assert len(report(files).rows) == 1


def test_the_page_counts_what_passes_and_what_is_skipped():
    rows = [
        FINE,
        replace(FINE, title="timm b", skipped=1, errors={"keyed": "Wrong: a | b"}),
        Row("timm c", True, 32, (3, 64, 64), {"convert": "E: no"}),
        replace(FINE, title="timm d", tuned_on=False, skipped=0, reasons=REASONS),
    ]
    text = page(Report(FACTS, rows))
    assert "of 3 models, 2 pass convert, 2 rates, 1 keyed, 1 all three." in text
    assert "2 skip something, 1 of them everything." in text
    assert "of 1 models, 1 pass convert, 1 rates, 1 keyed, 1 all three." in text
    assert "| timm b | 4 | 1 | ok | NO | 1 of 4 | 0.65 | keyed: Wrong: a \\| b |" in text
    assert "| timm c |  |  | NO | NO |  |  | convert: E: no |" in text
    assert (
        "| timm d | 4 | 1 | ok | ok | 0 of 4 | 0.65 | BatchNorm2d mixes the samples (3) |" in text
    )


def test_a_report_is_read_as_it_was_written():
    made = Report(FACTS, [FINE], SWEEP, FACTS)
    assert Report.from_json(made.to_json()) == made


def test_the_picture_is_drawn(tmp_path):
    draw(SWEEP, tmp_path / "sweep.png")
    assert (tmp_path / "sweep.png").read_bytes().startswith(b"\x89PNG")


def test_a_package_that_is_not_installed_is_said_in_one_line():
    code = "import runpy, sys\nsys.modules['matplotlib'] = None\n"
    code += "runpy.run_module('benchmarks.models', run_name='__main__')"
    root = Path(__file__).parents[2]
    result = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    line = "python -m benchmarks.models needs matplotlib: pip install -e '.[benchmark]'\n"
    assert (result.returncode, result.stderr) == (2, line)
