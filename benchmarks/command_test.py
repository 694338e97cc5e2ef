import pytest

from benchmarks import __main__ as command
from benchmarks.cases import Case
from benchmarks.measure import FEWEST, Step, interleave, measure, median_ratio, quartiles
from benchmarks.records import Report

CASE = Case("vit-small", "vit", 32, 65, 192, 4, 0.4)


def test_runs_take_turns_behind_one_of_their_setup_that_is_not_timed():
    calls = []
    setups = [
        {name: lambda name=name: calls.append(name) for name in names} for names in ("abc", "de")
    ]
    times = interleave(setups, seconds=0)
    assert {name: len(taken) for name, taken in times.items()} == dict.fromkeys("abcde", FEWEST)
    rounds = ["".join(calls[i : i + 7]) for i in range(0, len(calls), 7)]
    assert len(rounds) == FEWEST
    for each in rounds:
        first, second = (each[:4], each[4:]) if each[0] in "abc" else (each[3:], each[:3])
        assert ("".join(sorted(first[1:])), "".join(sorted(second[1:]))) == ("abc", "de")
        assert (first[0], second[0]) == (first[-1], second[-1])
    assert len(set(rounds)) > 1


def test_a_ratio_is_formed_within_each_round():
    assert median_ratio([2.0, 4.0, 9.0], [1.0, 4.0, 3.0]) == 2.0  # of 2, 1, 3


def test_quartiles_are_those_of_the_sorted_values():
    assert quartiles([5.0, 1.0, 2.0, 3.0, 4.0]) == (2.0, 3.0, 4.0)


class Fake:
    name, device = "torch", "cpu"

    def labels(self, block):
        return {"timm": "timm 0", "balanced": "ours, balanced"}

    def prepare(self, case, method):
        return Step(lambda: None, 100 if method == "timm" else 60)

    def realised_rate(self, method, drop_prob, batch, draws):
        return drop_prob


def test_a_case_is_measured_by_the_methods_that_a_setup_has():
    said = []
    found = measure(CASE, [Fake()], 0, said.append)
    assert [(r.method, r.label, r.memory, r.rate) for r in found] == [
        ("timm", "timm 0", 100, 0.4), ("balanced", "ours, balanced", 60, 0.4),
    ]  # fmt: skip
    assert all(len(said_text) > 0 for said_text in said)


def test_the_command_measures_writes_and_prints(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(command, "load", lambda device: ([Fake()], {}))
    path = tmp_path / "new" / "cpu.json"
    assert command.main(["--quick", "--only", "vit-small", "--json", str(path)]) == 0
    made = Report.from_json(path.read_text(encoding="utf-8"))
    assert [record.method for record in made.records] == ["timm", "balanced"] * 2
    assert made.facts["command"].startswith("python -m benchmarks --quick --only vit-small")
    printed = capsys.readouterr().out
    assert "timm 0" in printed
    assert "cpu-step.png" in printed
    assert path.with_name("cpu-memory.png").exists()


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["--only", "vit-huge"], "--only must name one of vit-small, "),
        (["--methods", "ours"], "--methods must name one of none, timm, "),
        (["--seconds", "0"], "--seconds must be above 0, got 0.0"),
        (["--device", "tpu"], "argument --device: invalid choice: 'tpu'"),
        (["--json"], "argument --json: expected one argument"),
        (["--json", f"{__file__}/x.json"], "--json must be a file that can be written: "),
    ],
)
def test_what_cannot_be_run_is_refused_in_one_line(arguments, error, monkeypatch, capsys):
    monkeypatch.setattr(command, "load", lambda device: ([Fake()], {}))
    try:
        status = command.main(arguments)
    except SystemExit as stop:  # argparse
        status = stop.code
    line = capsys.readouterr().err
    assert status == 2
    assert line.count("\n") == 1
    assert line.startswith(f"python -m benchmarks: {error}")


def test_cuda_is_refused_where_no_framework_sees_it(monkeypatch):
    def absent(device):
        raise RuntimeError("there is none")

    monkeypatch.setattr(command, "_torch", absent)
    monkeypatch.setattr(command, "_flax", absent)
    with pytest.raises(
        command.Refused, match=r"--device cuda needs .* there is none; there is none"
    ):
        command.load("cuda")


def test_a_framework_that_is_not_installed_is_left_out(monkeypatch):
    def absent(device):
        raise ModuleNotFoundError("No module named 'jax'", name="jax")

    monkeypatch.setattr(command, "_torch", lambda device: [Fake()])
    monkeypatch.setattr(command, "_flax", absent)
    setups, left_out = command.load("cpu")
    assert [setup.name for setup in setups] == ["torch"]
    assert left_out["Flax"] == "jax is not installed"
