"""The comparison: two runs, one table, and the same table again."""

import json
import re

import numpy as np
import pytest

from examples.train_flax import compare, loop
from examples.train_flax.compare import Runs, main
from examples.train_flax.loop import Result
from examples.train_flax.metrics import Row


@pytest.fixture(autouse=True)
def screen(monkeypatch):
    """A log of 80 columns, wherever the tests run."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.delenv("FORCE_COLOR", raising=False)


@pytest.mark.slow
def test_the_table_has_both_depths_and_is_the_same_again(tmp_path, capsys, monkeypatch):
    argv = ["--preset", "smoke", "--run-dir", str(tmp_path / "run")]
    assert main(argv) == 0
    first = capsys.readouterr().out
    table = first[first.index("drop_path_rate") :]
    assert "0 (constant)" in table
    assert "3.00 of 3" in table
    assert "0.2 (stochastic)" in table
    assert "2.70 of 3" in table  # rates 0, 0.1, 0.2
    assert max(map(len, first.splitlines()[:-1])) <= 80  # the last is a path
    monkeypatch.setattr(loop, "train_epoch", None)
    assert main(argv) == 0
    assert capsys.readouterr().out.endswith(table)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"run-constant", "run-stochastic", "run-compare"}
    assert_report_links_what_is_there(tmp_path / "run-compare")
    configs = [json.loads((tmp_path / f"run-{name}/config.json").read_text())
               for name in ("constant", "stochastic")]  # fmt: skip
    differing = {name for name in configs[0] if configs[0][name] != configs[1][name]}
    assert differing == {"run_dir", "drop_path_rate"}
    assert np.allclose([c["drop_path_rate"] for c in configs], [0, 0.2])


def assert_report_links_what_is_there(folder):
    links = re.findall(r"\]\((.*?)\)", (folder / "report.md").read_text())
    assert links == [
        "comparison.png",
        "../run-constant/report.md",
        "../run-stochastic/report.md",
    ]
    assert all((folder / link).is_file() for link in links)


def result(cfg, error, seconds, skipped):
    row = Row(2, 20, 0.5, None, error, 0.6, 0.1, skipped, 640 / seconds, 10 * seconds)
    return Result([row._replace(epoch=1, step=10, seconds=9.0), row], None, 4934, 1297, 500, 10)


@pytest.fixture
def canned(monkeypatch):
    """Runs that are not run: errors of 1 % and 3 % at constant depth, of 2 % and 4 % else."""
    seen = []

    def train(cfg, console):
        seen.append((cfg.run_dir.split("/")[-1], cfg.seed, cfg.drop_path_rate))
        assert cfg.ramps <= (cfg.drop_path_rate > 0)  # constant depth has nothing to ramp
        skipped = None if cfg.mode == "row" else cfg.drop_path_rate / 2
        slow = 0.02 if cfg.drop_path_rate == 0 else 0.015
        return result(cfg, (cfg.drop_path_rate > 0) / 100 + cfg.seed / 50 + 0.01, slow, skipped)

    monkeypatch.setattr(compare, "train", train)
    return seen


def test_seeds_give_a_mean_and_the_deviation_of_a_sample(canned, tmp_path, capsys):
    assert main(["--preset", "smoke", "--run-dir", str(tmp_path / "run"), "--seeds", "2"]) == 0
    assert canned == [
        ("run-constant", 0, 0.0),
        ("run-stochastic", 0, 0.2),
        ("run-constant-seed1", 1, 0.0),
        ("run-stochastic-seed1", 1, 0.2),
    ]
    screen, text = capsys.readouterr().out, (tmp_path / "run-compare" / "report.md").read_text()
    assert "| test error | 2.0% ± 1.4% | 3.0% ± 1.4% |" in text  # 1 and 3, 2 and 4: sqrt(2)
    assert "2 seeds, mean ± standard deviation" in text
    assert "1,297 images to train on and 500 to test on. Training: 20 steps of 128 images" in text
    assert "python -m examples.train_flax.compare" in text
    assert "--seeds 2\n" in text
    assert "2.0% ± 1.4%" in screen
    assert "one of the 500 test images is 0.2%" in " ".join(screen.split())
    assert max(map(len, screen.splitlines()[:-1])) <= 80
    assert "skipped" not in text + screen
    # 1 point more in both, so that the interval has no width
    line = "rror of stochastic depth: -1.00 points lower, 95 % interval -1.00 to -1.00"
    assert line in screen
    assert line in text


def test_the_interval_is_students_of_the_paired_differences():
    def runs(errors):
        return Runs([], [result(None, error, 0.02, None) for error in errors])

    both = {"constant": runs([0.03, 0.02, 0.05]), "stochastic": runs([0.01, 0.01, 0.02])}
    mean, low, high = compare.difference(both)
    assert mean == pytest.approx(0.02)  # of 0.02, 0.01 and 0.03, whose deviation is 0.01
    reach = 4.302653 * 0.01 / 3**0.5  # t of 2 degrees of freedom at 97.5 %, from tables
    assert (high - mean, mean - low) == (pytest.approx(reach), pytest.approx(reach))


def test_batch_mode_says_what_the_draw_skipped_and_what_the_clock_saved(canned, tmp_path, capsys):
    argv = ["--preset", "smoke", "--mode", "batch", "--run-dir", str(tmp_path / "run")]
    assert main(argv) == 0
    lines = (
        "a step takes 0.75 of constant depth's: 25% of the time saved",
        "branches skipped by the draw: 10.0%",
    )
    assert capsys.readouterr().out.splitlines()[-3:-1] == [*lines]  # 0.015 for 0.02
    text = (tmp_path / "run-compare" / "report.md").read_text()
    assert all(f"{line[0].upper()}{line[1:]}." in text for line in lines)


def test_a_ramp_is_told_and_the_expected_depth_is_the_mean_over_the_steps(canned, tmp_path, capsys):
    argv = ["--preset", "smoke", "--ramp", "late", "--ramp-end", "0.5", "--epochs", "2"]
    assert main([*argv, "--run-dir", str(tmp_path / "run"), "--seeds", "2"]) == 0
    screen, text = capsys.readouterr().out, (tmp_path / "run-compare" / "report.md").read_text()
    told = "late: 0 before step 10 of 20, full from there on"
    assert f"| rates over training | the same at all steps | {told} |" in text
    assert told in " ".join(screen.split())
    assert max(map(len, screen.splitlines()[:-1])) <= 80
    # rates 0, 0.1 and 0.2 at 10 of 20 steps: 3 - 0.3 * 0.5 = 2.85
    assert "| expected depth in branches | 3.00 of 3 | 2.85 of 3 |" in text
    assert "2.85 of 3" in screen


@pytest.mark.parametrize("seeds", ["0", "-1", "two", "1.5"])
def test_a_number_of_seeds_that_is_none_is_refused(seeds, tmp_path, capsys):
    assert main(["--run-dir", str(tmp_path / "run"), "--seeds", seeds]) == 2
    assert (
        capsys.readouterr().err == f"error: seeds must be an integer of at least 1, got {seeds}\n"
    )
    assert not list(tmp_path.iterdir())


def test_constant_depth_is_not_compared_with_itself(tmp_path, capsys):
    assert main(["--drop-path-rate", "0", "--run-dir", str(tmp_path / "run")]) == 2
    assert capsys.readouterr().err.startswith("error: drop_path_rate must be above 0")
    assert not list(tmp_path.iterdir())
