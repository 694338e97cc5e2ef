import pytest
from rich.progress import Progress

from benchmarks import command, setups
from benchmarks.cases import Case
from benchmarks.measure import FEWEST, Step, interleave, measure, median_ratio, quartiles
from benchmarks.records import Report

CASE = Case("vit-small", "vit", 32, 65, 192, 4, 0.4)


def test_runs_take_turns_after_a_round_that_is_not_timed():
    calls = []
    runs = {name: lambda name=name: calls.append(name) for name in "abc"}
    times = interleave(runs, seconds=0)
    assert {name: len(taken) for name, taken in times.items()} == dict.fromkeys("abc", FEWEST)
    rounds = ["".join(calls[i : i + 3]) for i in range(0, len(calls), 3)]
    assert len(rounds) == 1 + FEWEST
    assert {"".join(sorted(each)) for each in rounds} == {"abc"}
    assert len(set(rounds)) > 1


def test_a_ratio_is_formed_within_each_round():
    assert median_ratio([2.0, 4.0, 9.0], [1.0, 4.0, 3.0]) == 2.0  # of 2, 1, 3


def test_quartiles_are_those_of_the_sorted_values():
    assert quartiles([5.0, 1.0, 2.0, 3.0, 4.0]) == (2.0, 3.0, 4.0)


class Fake:
    device = "cpu"

    def __init__(self, name="torch"):
        self.name = name

    def labels(self, block):
        return {"timm": "timm 0", "balanced": "ours, balanced"}

    def prepare(self, case, method):
        return Step(lambda: None, 100 if method == "timm" else 60)

    def realised_rate(self, method, drop_prob, batch, draws):
        return drop_prob


def test_a_case_is_measured_by_the_methods_that_a_setup_has():
    said = []
    found = measure(CASE, Fake(), 0, said.append)
    assert [(r.method, r.label, r.memory, r.rate) for r in found] == [
        ("timm", "timm 0", 100, 0.4), ("balanced", "ours, balanced", 60, 0.4),
    ]  # fmt: skip
    assert all(len(said_text) > 0 for said_text in said)


@pytest.fixture
def in_process(monkeypatch):
    """What a child would do, done here by a setup that takes no time."""
    monkeypatch.setattr(
        command, "in_child", lambda title, function, *args, say: function(*args, say)
    )
    monkeypatch.setattr(setups, "make", lambda name, device: Fake(name))
    monkeypatch.delenv("FORCE_COLOR", raising=False)  # it makes a log a terminal


def test_the_command_measures_writes_and_prints(in_process, tmp_path, capsys):
    path = tmp_path / "new" / "cpu.json"
    assert command.main(["--quick", "--only", "vit-small", "--json", str(path)]) == 0
    made = Report.from_json(path.read_text(encoding="utf-8"))
    assert [(r.case.drop_prob, r.setup, r.method) for r in made.records] == [
        (p, setup, method)
        for p in (0.1, 0.4)
        for setup in ("torch", "flax")  # this group is not compiled
        for method in ("timm", "balanced")
    ]
    assert made.facts["command"].startswith("python -m benchmarks --quick --only vit-small")
    printed = capsys.readouterr().out
    assert "timm 0" in printed
    assert "cpu-step.png" in printed
    assert path.with_name("cpu-memory.png").exists()


def test_a_terminal_sees_what_is_being_measured(in_process, tmp_path, monkeypatch, capsys):
    for name, value in {"FORCE_COLOR": "1", "TERM": "xterm", "COLUMNS": "120"}.items():
        monkeypatch.setenv(name, value)
    said = []
    monkeypatch.setattr(Progress, "update", lambda *args, description: said.append(description))
    assert command.main(["--quick", "--only", "op", "--json", str(tmp_path / "cpu.json")]) == 0
    assert "0/3" in capsys.readouterr().err
    assert said[0] == "loading PyTorch"
    assert "op, 32 x 256 x 256, depth 1, p = 0.4, flax: ours, balanced" in said


def test_the_seconds_of_a_case_are_shared_by_its_setups(in_process, tmp_path, monkeypatch):
    shares = []
    monkeypatch.setattr(command, "records", lambda *args: shares.append(args[3]) or [])
    arguments = ["--quick", "--only", "op", "--seconds", "6", "--json", str(tmp_path / "cpu.json")]
    assert command.main(arguments) == 0
    assert shares == [2.0, 2.0, 2.0]


def test_setups_and_rates_can_be_chosen(in_process, tmp_path, monkeypatch):
    ran = []
    monkeypatch.setattr(command, "records", lambda *args: ran.append((args[0], args[2])) or [])
    arguments = ["--only", "vit-small", "op", "--setups", "flax", "torch", "--rates", "0.4"]
    assert command.main([*arguments, "--json", str(tmp_path / "cpu.json")]) == 0
    assert {case.drop_prob for _, case in ran} == {0.4}
    assert [(name, case.group) for name, case in ran] == [
        ("torch", "vit-small"),
        ("flax", "vit-small"),
        ("torch", "op"),
        ("flax", "op"),
    ]


@pytest.mark.parametrize(
    ("error", "status", "text"),
    [(command.Failed("it was killed"), 1, "it was killed"), (KeyboardInterrupt(), 130, "stopped")],
)
@pytest.mark.parametrize("finished", [0, 1])
def test_a_command_that_stops_keeps_what_was_measured(
    error, status, text, finished, in_process, tmp_path, monkeypatch, capsys
):
    def records(name, device, case, seconds, say):
        if not left:
            raise error
        return left.pop()

    left = [measure(CASE, Fake("torch"), 0, print)] * finished
    monkeypatch.setattr(command, "records", records)
    path = tmp_path / "cpu.json"
    assert command.main(["--quick", "--json", str(path)]) == status
    kept = f"; {path} has what was measured before" if finished else ""
    assert capsys.readouterr().err == f"python -m benchmarks: {text}{kept}\n"
    if finished:
        assert len(Report.from_json(path.read_text(encoding="utf-8")).records) == 2


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["--only", "vit-huge"], "--only must name one of vit-small, "),
        (["--methods", "ours"], "--methods must name one of none, timm, "),
        (["--setups", "jax"], "--setups must name one of torch, flax, torch compiled, got jax"),
        (["--rates", "0.3"], "--rates must name one of 0.05, 0.1, 0.2, 0.4, 0.5, got 0.3"),
        (["--seconds", "0"], "--seconds must be above 0, got 0.0"),
        (["--device", "tpu"], "argument --device: invalid choice: 'tpu'"),
        (["--json"], "argument --json: expected one argument"),
        (["--json", f"{__file__}/x.json"], "--json must be a file that can be written: "),
    ],
)
def test_what_cannot_be_run_is_refused_in_one_line(arguments, error, in_process, capsys):
    try:
        status = command.main(arguments)
    except SystemExit as stop:  # argparse
        status = stop.code
    line = capsys.readouterr().err
    assert status == 2
    assert line.count("\n") == 1
    assert line.startswith(f"python -m benchmarks: {error}")


def without(monkeypatch, error, *absent):
    """Let the setups of these names raise error when they are made."""

    def make(name, device):
        if name in absent:
            raise error
        return Fake(name)

    monkeypatch.setattr(setups, "make", make)


def test_cuda_is_refused_where_no_framework_sees_it(in_process, monkeypatch, capsys):
    without(monkeypatch, RuntimeError("there is none"), *setups.FRAMEWORKS)
    assert command.main(["--device", "cuda"]) == 2
    assert capsys.readouterr().err == (
        "python -m benchmarks: --device cuda needs a framework that computes there: "
        "there is none; there is none\n"
    )


def test_a_framework_that_is_not_installed_is_left_out(monkeypatch):
    without(monkeypatch, ModuleNotFoundError("No module named 'jax'", name="jax"), "flax")
    found = setups.find("cpu", print)
    assert found.devices == {"torch": "cpu", "torch compiled": "cpu"}
    assert found.left_out["Flax"] == "jax is not installed"


def test_a_file_of_ours_that_is_missing_leaves_no_framework_out(monkeypatch):
    name = "conformance.adapters.gone"
    without(monkeypatch, ModuleNotFoundError(f"No module named {name!r}", name=name), "torch")
    with pytest.raises(ModuleNotFoundError, match="gone"):
        setups.find("cpu", print)
