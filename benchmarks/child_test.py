import os
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from benchmarks.child import Failed, in_child
from benchmarks.measure import hold_memory


def pid_after_saying(text, say):
    say(text)
    say("done")
    return os.getpid()


def fail(say):
    raise ValueError("no such block")


def killed(say):
    os.kill(os.getpid(), signal.SIGKILL)


def say_pid_and_wait(say):
    say(str(os.getpid()))
    time.sleep(60)


def take_and_free(mebibytes, say):
    hold_memory()
    rows = [np.ones(1 << 20, np.uint8) for _ in range(mebibytes)]
    return len(rows)


def test_a_function_runs_in_another_process_and_what_it_says_is_said_here():
    said = []
    assert in_child("a test", pid_after_saying, "begun", say=said.append) != os.getpid()
    assert said == ["begun", "done"]


def test_the_failure_of_a_child_is_named_and_its_traceback_shown(capfd):
    with pytest.raises(Failed, match=r"^vit, torch: its process ended with exit status 1$"):
        in_child("vit, torch", fail, say=print)
    shown = capfd.readouterr().err
    assert shown.startswith("Process vit, torch:\nTraceback")
    assert shown.endswith("ValueError: no such block\n")


def test_a_child_that_is_killed_is_named_with_the_signal():
    with pytest.raises(Failed, match=r"^vit, torch: its process was killed by SIGKILL$"):
        in_child("vit, torch", killed, say=print)


@pytest.fixture
def listens():
    """Let SIGINT interrupt, which a shell makes its background jobs ignore."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("listens")
def test_ctrl_c_ends_the_child_at_once_and_without_a_word(capfd):
    pids = []

    def press(pid):
        pids.append(int(pid))
        for process in (int(pid), os.getpid()):  # the terminal tells both
            os.kill(process, signal.SIGINT)

    before = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        in_child("a test", say_pid_and_wait, say=press)
    assert time.monotonic() - before < 30
    with pytest.raises(ProcessLookupError):
        os.kill(pids[0], 0)
    assert capfd.readouterr().err == ""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_memory_that_is_freed_but_stays_with_a_process_goes_with_the_child():
    def resident():
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") >> 20

    before = resident()
    assert in_child("a test", take_and_free, 500, say=print) == 500
    assert resident() - before < 100
