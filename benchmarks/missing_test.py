"""What `python -m benchmarks` says where a package is not installed."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

WITHOUT = """
import runpy, sys
sys.modules[{name!r}] = None
runpy.run_module("benchmarks", run_name="__main__")
"""


def run_without(name):
    command = [sys.executable, "-c", WITHOUT.format(name=name)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


@pytest.mark.parametrize("name", ["rich", "matplotlib"])
def test_a_package_that_is_not_installed_is_said_in_one_line(name):
    result = run_without(name)
    line = f"python -m benchmarks needs {name}: pip install -e '.[benchmark]'\n"
    assert (result.returncode, result.stdout, result.stderr) == (2, "", line)


@pytest.mark.parametrize("name", ["benchmarks.table", "droppath", "droppath.masks"])
def test_a_file_of_ours_that_is_missing_is_a_traceback(name):
    result = run_without(name)
    assert result.returncode == 1
    assert result.stderr.startswith("Traceback")
    assert "ModuleNotFoundError" in result.stderr.splitlines()[-1]
