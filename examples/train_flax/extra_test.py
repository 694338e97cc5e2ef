"""What the example's commands say where a package is not installed."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

WITHOUT = """
import runpy, sys
sys.modules[{name!r}] = None
runpy.run_module({module!r}, run_name="__main__", alter_sys=True)
"""


def python(code):
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)


@pytest.mark.parametrize("module", ["examples.train_flax", "examples.train_flax.compare"])
@pytest.mark.parametrize("name", ["jax", "optax", "orbax", "rich", "tensorboardX"])
def test_a_package_that_is_not_installed_is_said_in_one_line(module, name):
    result = python(WITHOUT.format(module=module, name=name))
    line = f"python -m {module} needs {name}: pip install -e '.[example]'\n"
    assert (result.returncode, result.stdout, result.stderr) == (2, "", line)


@pytest.mark.parametrize("name", ["examples.train_flax.loop", "droppath_flax"])
def test_a_file_of_ours_that_is_missing_is_a_traceback(name):
    result = python(WITHOUT.format(module="examples.train_flax", name=name))
    assert result.returncode == 1
    assert result.stderr.startswith("Traceback")
    assert "ModuleNotFoundError" in result.stderr.splitlines()[-1]


def test_who_imports_a_command_gets_the_error_itself():
    result = python("import sys; sys.modules['rich'] = None; import examples.train_flax.compare")
    assert result.returncode == 1
    assert "ModuleNotFoundError: " in result.stderr
