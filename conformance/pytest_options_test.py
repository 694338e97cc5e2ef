"""The suite under pytest in a clone, by the path of its file; installed: tests/package_test.py."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
SUITE = "conformance/test_clauses.py"


def pytest_in_the_clone(*arguments, **environment):
    options = "-q", "--color=no", "-p", "no:cacheprovider", "-k", "ARG-1"
    command = [sys.executable, "-m", "pytest", SUITE, *options, *arguments]
    env = {**os.environ, **environment}
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)


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


def test_a_backend_that_exits_fails(tmp_path):
    (tmp_path / "mine.py").write_text("import os\ndef backend(): os._exit(0)")
    result = pytest_in_the_clone("--backend", "mine", PYTHONPATH=str(tmp_path))
    assert result.returncode == 1
    assert "BrokenAdapter: mine: its process ended with exit status 0" in result.stdout


def test_a_device_is_refused_where_the_backend_takes_none():
    result = pytest_in_the_clone("--backend", "reference", "--device", "cuda")
    assert result.returncode == 1
    assert "NotTaken: reference takes no --device" in result.stdout
