"""SIGINT at the command line, as Ctrl-C sends it: to the suite and to the adapters' processes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ADAPTER = """
import os, pathlib, time
from conformance.adapters.reference import Reference
def hang():
    file = pathlib.Path(__file__).with_name("begun")
    file.write_text(str(os.getpid()))
    file.rename(file.with_name("hangs"))
    time.sleep(600)
class Mine(Reference):
    def run(self, call):
        return hang() if call.op == "ramp" else super().run(call)
backend = Mine
"""


@pytest.fixture
def interrupted(tmp_path):
    """Returns what is left of a run that is interrupted once its adapter hangs."""

    def run(source, *arguments):
        (tmp_path / "mine.py").write_text(source)
        command = [sys.executable, "-m", "conformance", "mine", *arguments]
        env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(tmp_path)])}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        process = subprocess.Popen(command, cwd=tmp_path, env=env, start_new_session=True, **pipes)
        while not (tmp_path / "hangs").exists():  # the number of its process
            assert process.poll() is None, process.communicate()
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=60)
        with pytest.raises(ProcessLookupError):
            os.kill(int((tmp_path / "hangs").read_text()), 0)
        return process.returncode, out, err

    return run


def test_what_was_done_until_then_is_written_and_says_that_it_is_a_part(interrupted, tmp_path):
    files = ["--json", "m.json", "--markdown", "m.md", "--html", "m.html"]
    status = interrupted(ADAPTER, "--only", "TYPE-2", "--only", "SCHED-4", *files)
    assert status == (130, "", "interrupted\n")
    (report,) = json.loads((tmp_path / "m.json").read_text())["reports"]
    assert [verdict["clause"] for verdict in report["verdicts"]] == ["TYPE-2"]
    assert not report["complete"]
    assert not report["conforms"]
    for name in ("m.md", "m.html"):
        assert "(interrupted, partial)" in (tmp_path / name).read_text(encoding="utf-8")


def test_where_nothing_was_done_no_file_is_written_and_none_emptied(interrupted, tmp_path):
    (tmp_path / "old.json").write_text("what was found yesterday")
    status = interrupted(f"{ADAPTER}\nhang()", "--json", "old.json", "--html", "new.html")
    assert status == (130, "", "interrupted\n")
    assert (tmp_path / "old.json").read_text() == "what was found yesterday"
    assert not (tmp_path / "new.html").exists()
