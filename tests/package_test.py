"""The package as others get it: what the wheel holds, and what it does once it is installed.

It is built, installed beside the packages of this environment, and used from an empty folder.
"""

import os
import re
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest
from packaging.version import Version

import droppath

ROOT = Path(__file__).parents[1]
PACKAGES = {"conformance", "droppath", "droppath_flax", "droppath_torch"}
IN_A_CLONE_ALONE = re.compile(
    r"_test\.py$|_mutants\.py$|\.cpp$|/__pycache__/"
    r"|^conformance/(mutant\.py$|make_golden/|aot/)"
)
SUITE = "-m pytest --pyargs conformance -p conformance.pytest_options"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (built,) = folder.iterdir()
    return built


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """A Python that has the wheel, and this environment's packages but what is editable here."""
    folder = tmp_path_factory.mktemp("installed")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    python = folder / "bin" / "python"
    ask = [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    site = Path(subprocess.run(ask, check=True, capture_output=True, text=True).stdout.strip())
    pip = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--target", site]
    subprocess.run([*pip, wheel], check=True, capture_output=True)
    (site / "others.pth").write_text(sysconfig.get_path("purelib"))  # its own .pth are not read
    return python


def run(python, arguments, folder):
    """The exit status, and all that was printed."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    env.pop("PYTHONPATH", None)
    command = [python, *(arguments.split() if isinstance(arguments, str) else arguments)]
    result = subprocess.run(
        command, cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    return result.returncode, result.stdout


def passes(python, arguments, folder):
    status, printed = run(python, arguments, folder)
    assert status == 0, printed
    return printed


def write(folder, files):
    for name, text in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)


def test_the_wheel_holds_the_packages_without_what_serves_in_a_clone_alone(wheel):
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    here = {
        file.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for file in (ROOT / package).rglob("*")
        if file.is_file()
    }
    assert held == {name for name in here if not IN_A_CLONE_ALONE.search(name)}
    assert {"droppath/SPEC.md", "conformance/test_clauses.py"} <= held
    assert {f"{package}/py.typed" for package in PACKAGES} <= held
    assert sum(name.startswith("conformance/vectors/v1/") for name in held) == 8


def test_the_wheel_says_its_version_and_authors_and_enters_nothing_into_other_programs(wheel):
    file = zipfile.ZipFile(wheel)
    (path,) = (name for name in file.namelist() if name.endswith("/METADATA"))
    metadata = Parser().parsestr(file.read(path).decode())
    assert metadata["Version"] == droppath.__version__
    assert metadata["Author"] == "The droppath authors"
    links = re.findall(r"\]\(([^)]*)\)", metadata.get_payload())
    assert len(links) > 1
    assert [link for link in links if not link.startswith("https://")] == []
    assert not any(name.endswith("entry_points.txt") for name in file.namelist())


def test_the_citation_says_the_version_too():
    lines = (ROOT / "CITATION.cff").read_text(encoding="utf-8").splitlines()
    assert f"version: {droppath.__version__}" in lines


def test_the_lowest_versions_that_are_tested_are_those_that_are_allowed():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    bounds = [*project["dependencies"], *extras["torch"], *extras["flax"]]
    lines = (ROOT / "lowest.txt").read_text(encoding="utf-8").splitlines()
    pins = dict(line.split("==") for line in lines if "==" in line)
    tested = {name: Version(pins[name]) for name in ("numpy", "torch", "flax", "jax")}
    split = [bound.split(">=") for bound in bounds]
    assert {name: Version(lowest) for name, lowest in split} == tested


def test_each_package_can_be_imported_and_the_examples_are_not_there(installed, tmp_path):
    code = (
        "import conformance, droppath, droppath_flax, droppath_torch\n"
        "from importlib.util import find_spec\n"
        f"assert {str(installed.parents[1])!r} in droppath.__file__, droppath.__file__\n"
        "assert not any(map(find_spec, ('examples', 'benchmarks', 'tests')))\n"
        "print({m.__version__ for m in (droppath, droppath_flax, droppath_torch)})"
    )
    assert passes(installed, ["-c", code], tmp_path) == f"{{{droppath.__version__!r}}}\n"


def test_the_command_of_the_suite_runs_in_an_empty_folder(installed, tmp_path):
    assert "conforms: reference" in passes(installed, "-m conformance reference", tmp_path)


def test_the_suite_runs_under_pytest_by_the_command_of_the_docs(installed, tmp_path):
    page = (ROOT / "docs/conformance.md").read_text(encoding="utf-8")
    assert f"python {SUITE} --backend torch" in page
    printed = passes(installed, f"{SUITE} --backend reference -q", tmp_path)
    # without a claim: COMP-1, COMP-2, DIST-2; without a second backend: the pairs
    assert "62 passed, 4 skipped" in printed


def test_under_pytest_a_backend_of_the_users_folder_is_taken_with_its_device(installed, tmp_path):
    mine = "def backend(device):\n    raise OSError(f'no such device as {device}')\n"
    write(tmp_path, {"mine.py": mine})
    options = "--backend mine:backend --device tpu -k ARG-1 -q"
    status, printed = run(installed, f"{SUITE} {options}", tmp_path)
    assert status == 1
    assert "BrokenAdapter: mine:backend: OSError: no such device as tpu" in printed


@pytest.mark.parametrize("files", [["__init__.py", "mine.py"], ["mine.py"]], ids=" ".join)
def test_a_users_own_examples_are_what_is_imported(installed, tmp_path, files):
    write(tmp_path, {f"examples/{name}": "NAME = 'mine'\n" for name in files})
    code = "import droppath\nfrom examples.mine import NAME\nprint(NAME)"
    assert passes(installed, ["-c", code], tmp_path) == "mine\n"


THEIRS = {
    "conformance/__init__.py": "NAME = 'mine'\n",
    "conftest.py": """
def pytest_addoption(parser):
    parser.addoption("--backend")
    parser.addoption("--device")
""",
    "test_theirs.py": """
import conformance

def test_theirs(pytestconfig):
    assert conformance.NAME == "mine"
    assert [pytestconfig.getoption(name) for name in ("--backend", "--device")] == ["x", "y"]
""",
}


def test_pytest_runs_in_a_project_with_options_and_a_package_of_the_same_names(installed, tmp_path):
    write(tmp_path, THEIRS)
    options = "--backend x --device y -q"
    for names in ("", "conformance test_theirs.py "):
        assert "1 passed" in passes(installed, f"-m pytest {names}{options}", tmp_path)
