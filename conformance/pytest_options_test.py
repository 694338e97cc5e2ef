"""The suite as its users run it under pytest: from elsewhere, by the name of the package."""

import subprocess
import sys

SUITE = "conformance.test_clauses"  # "conformance" holds these tests too where it is not installed


def pytest_elsewhere(folder, *arguments):
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "--color=no",
        "-p",
        "no:cacheprovider",
        *arguments,
    ]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def test_each_clause_of_a_backend_is_a_test(tmp_path):
    result = pytest_elsewhere(tmp_path, "--pyargs", SUITE, "--backend", "reference")
    assert result.returncode == 0, result.stdout + result.stderr
    # without a claim: COMP-1, COMP-2, DIST-2; without a second backend: the pairs
    assert "51 passed, 4 skipped" in result.stdout


def test_a_backend_that_cannot_be_loaded_fails(tmp_path):
    result = pytest_elsewhere(tmp_path, "--pyargs", SUITE, "--backend", "nothing:here")
    assert result.returncode == 1
    assert "BrokenAdapter: nothing:here: ModuleNotFoundError" in result.stdout


def test_other_peoples_runs_may_have_options_of_these_names(tmp_path):
    text = "def pytest_addoption(parser):\n    parser.addoption('--backend')\n"
    (tmp_path / "conftest.py").write_text(text)
    (tmp_path / "test_one.py").write_text("def test_one(): pass\n")
    assert pytest_elsewhere(tmp_path, "test_one.py", "--backend", "x").returncode == 0
