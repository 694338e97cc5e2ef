"""The suite under pytest in a clone, by the path of its file; installed: tests/package_test.py."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
SUITE = "conformance/test_clauses.py"


def pytest_in_the_clone(*arguments):
    options = "-q", "--color=no", "-p", "no:cacheprovider", "-k", "ARG-1"
    command = [sys.executable, "-m", "pytest", SUITE, *options, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_the_backends_of_the_command_line_are_tested():
    result = pytest_in_the_clone("--backend", "reference")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "1 passed" in result.stdout


def test_the_plugin_may_be_asked_for_once_more():
    result = pytest_in_the_clone("-p", "conformance.pytest_options", "--backend", "reference")
    assert result.returncode == 0, result.stdout + result.stderr


def test_a_backend_that_cannot_be_loaded_fails():
    result = pytest_in_the_clone("--backend", "nothing:here")
    assert result.returncode == 1
    assert "BrokenAdapter: nothing:here: ModuleNotFoundError" in result.stdout
