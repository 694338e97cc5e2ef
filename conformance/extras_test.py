"""Where a package of an extra is missing, the commands say in one line what to install."""

import subprocess
import sys

import pytest


def run_without(absent, module):
    code = (
        f"import runpy, sys; sys.modules[{absent!r}] = None; sys.argv[1:] = []\n"
        f"runpy.run_module({module!r}, run_name='__main__')"
    )
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)


@pytest.mark.parametrize("absent", ["allpairspy", "jsonschema", "ml_dtypes", "rich"])
def test_the_suite_names_its_extra(absent):
    result = run_without(absent, "conformance")
    assert result.stderr == f"{absent} must be installed: pip install 'droppath[conformance]'\n"
    assert result.stdout == ""
    assert result.returncode == 2


@pytest.mark.parametrize("absent", ["flax", "jax", "optax", "rich", "torch"])
def test_parity_training_names_its_extras(absent):
    result = run_without(absent, "conformance.parity")
    extras = "torch,flax,conformance,example"
    assert result.stderr == f"{absent} must be installed: pip install 'droppath[{extras}]'\n"
    assert result.stdout == ""
    assert result.returncode == 2
