"""The Makefile: when it installs, and the one line (beside make's own) that it says when it cannot.

A stand-in plays Python where installing for real would take minutes and a network.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# The interpreter of the tests, except that it takes itself for Python 3.10.
OLD_PYTHON = f"""#!/bin/sh
exec {sys.executable} -c "import sys; sys.version_info = (3, 10, 13); exec(sys.argv[1])" "$2"
"""

# Copies itself as a venv would. Its pip notes what it was asked for in the file `installs`, and
# fails where there is a file `broken`, with the text of that file as its last error.
STAND_IN = """#!/bin/sh
case "$2" in
venv) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
pip) for extras; do :; done; echo "$extras" >>installs
     [ ! -e broken ] || { sed 's/^/ERROR: /' broken; exit 1; } ;;
examples.train_flax.compare) echo trained ;;
esac
"""


@pytest.fixture
def project(tmp_path):
    for name in ("Makefile", "pyproject.toml", "constraints.txt", "lowest.txt"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def executable(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


def make(project, *arguments, **env):
    """The exit status, and stderr's lines less make's own. The caller's settings are left out."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS", "PIP_"))}
    clean.pop("PYTHON", None)
    result = subprocess.run(
        [shutil.which("make"), *arguments],
        cwd=project,
        env=clean | {"PIP_CONFIG_FILE": os.devnull} | env,
        capture_output=True,
        text=True,
    )
    lines = result.stderr.splitlines()
    return result.returncode, [line for line in lines if not line.startswith("make: ***")]


def bin_with_sh_only(project):
    """A folder to be the whole PATH: no Python, and what a shell needs to be started."""
    executable(project / "bin/sh", f'#!{shutil.which("sh")}\nexec {shutil.which("sh")} "$@"\n')
    return project / "bin"


def needed(python):
    return (
        f"Python 3.11 or newer, with venv, is needed and {python} is not that: "
        "name one with PYTHON=/path/to/python3"
    )


@pytest.mark.parametrize("target", ["train", "test"])
def test_a_python_too_old_is_named(project, target):
    old = executable(project / "python3.10", OLD_PYTHON)
    assert make(project, target, f"PYTHON={old}") == (2, [needed(old)])
    assert not (project / ".venv").exists()


def test_a_python_that_is_not_there_is_named(project):
    assert make(project, "train", "PYTHON=/no/python3") == (2, [needed("/no/python3")])


def test_no_python_at_all_is_said(project):
    path = str(bin_with_sh_only(project))
    assert make(project, "train", PATH=path) == (2, [needed("python3")])


def test_a_python_that_exists_but_does_not_run_is_passed_over(project):
    path = bin_with_sh_only(project)
    for name in ("python3", "python3.13"):  # as pyenv's shims do
        executable(path / name, "#!/bin/sh\nexit 127\n")
    executable(path / "python3.12", f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    show = "--eval=show: ; @echo $(PYTHON) >&2"
    assert make(project, show, "show", PATH=str(path)) == (0, ["python3.12"])


@pytest.mark.slow  # makes a real venv, and pip tries three times
def test_no_network_is_said_and_where_the_log_is(project):
    closed = "http://127.0.0.1:9/simple"  # 9 is the discard port, where nothing listens any more
    env = {"PIP_INDEX_URL": closed, "NO_PROXY": "127.0.0.1"}
    status, lines = make(project, "train", f"PYTHON={sys.executable}", **env)
    reason = "no network (no package index answers)"
    assert (status, lines) == (2, [f"Installing failed: {reason}; see .venv/install.log"])
    assert "127.0.0.1" in (project / ".venv/install.log").read_text()


@pytest.fixture
def stand_in(project):
    return f"PYTHON={executable(project / 'stand-in', STAND_IN)}"


def installs(project):
    return (project / "installs").read_text().splitlines()


def test_another_failure_gives_pips_last_error(project, stand_in):
    (project / "broken").write_text("first\nlast\n")
    message = "Installing failed: ERROR: last; see .venv/install.log"
    assert make(project, "train", stand_in) == (2, [message])


def test_a_second_call_installs_nothing_until_what_it_reads_has_changed(project, stand_in):
    for _ in range(2):
        assert make(project, "train", stand_in) == (0, [])
    assert installs(project) == [".[example]"]
    for name in ("pyproject.toml", "constraints.txt"):
        os.utime(project / ".venv/train.done", (0, 0))
        (project / name).touch()
        make(project, "train", stand_in)
    assert installs(project) == [".[example]"] * 3


def test_what_was_installed_for_the_tests_serves_for_training(project, stand_in):
    assert make(project, ".venv/test.done", stand_in) == (0, [])
    assert make(project, "train", stand_in) == (0, [])
    assert installs(project) == [".[torch,conformance,example,dev]"]


def test_an_install_that_did_not_end_is_thrown_away(project, stand_in):
    make(project, "train", stand_in)
    (project / ".venv/remains").touch()
    (project / "broken").write_text("killed\n")
    assert make(project, ".venv/test.done", stand_in)[0] == 2
    assert (project / ".venv/remains").exists()
    (project / "broken").unlink()
    assert make(project, "train", stand_in) == (0, [])  # though an install for it once ended
    assert not (project / ".venv/remains").exists()


def test_a_venv_made_by_hand_is_kept(project, stand_in):
    executable(project / ".venv/bin/python", STAND_IN)
    (project / ".venv/mine").touch()
    assert make(project, "train", stand_in) == (0, [])
    assert (project / ".venv/mine").exists()


@pytest.mark.parametrize(("which", "pins"), [("lowest", ["-c lowest.txt"]), ("newest", [])])
def test_the_bounds_have_environments_of_their_own(project, stand_in, which, pins):
    shows = "pip) for extras; do :; done; echo"
    stub = (project / "stand-in").read_text().replace(shows, f'pip) echo "$@" >>asked; {shows[5:]}')
    (project / "stand-in").write_text(stub)
    assert make(project, f".venv-{which}/{which}.done", f"VENV=.venv-{which}", stand_in) == (0, [])
    assert installs(project) == [".[torch,flax,conformance,dev]"]
    assert re.findall(r"-c \S+", (project / "asked").read_text()) == pins
    assert not (project / ".venv").exists()


@pytest.mark.parametrize("target", ["aot", "docs"])  # compiles for accelerators; builds the site
def test_what_users_need_not_install_has_an_environment_of_its_own(project, stand_in, target):
    (project / "docs").mkdir()  # a folder of that name is no reason to build nothing
    assert make(project, target, stand_in) == (0, [])
    assert installs(project) == [f".[{target}]"]
    assert (project / f".venv-{target}/{target}.done").exists()
    assert not (project / ".venv").exists()
