"""Adapters that hang, exit, crash or answer oddly, each in its process."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from conformance import process
from conformance.check import Check, Subject
from conformance.loading import make, start
from conformance.protocol import BrokenAdapter, Call
from conformance.runner import collect, verdict_on

ROOT = Path(__file__).parents[1]
ODD = "conformance.adapter_mutants:odd"
CALL = Call(np.ones((4, 2)), 0.37)


@pytest.fixture(scope="module")
def shared():
    """The backend whose ops do not end its process."""
    with start(ODD) as backend:
        yield backend


@pytest.fixture
def alone():
    """One whose process the test ends."""
    with start(ODD) as backend:
        backend.info()
        yield backend


def test_the_adapter_is_imported_in_its_own_process_alone():
    code = "import sys; from conformance.loading import load; print(load(sys.argv[1]).info().name)"
    code += "; print('conformance.adapter_mutants' in sys.modules)"
    command = [sys.executable, "-c", code, ODD]
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert (result.stdout, result.stderr) == ("bare\nFalse\n", "")


def test_calls_and_outcomes_are_as_in_this_process_bit_for_bit(shared):
    x = np.random.default_rng(7).normal(size=(16, 7000))  # some kilobytes and more
    x[:4, 0] = np.inf, -np.inf, np.nan, -0.0
    for call in (CALL, Call(x, 0.37), Call(x.T, 0.37), Call(x[:0], 0.37), Call(x[0, :1], 0.0)):
        want, got = make(ODD).run(call), shared.run(call)
        for field, value in vars(want).items():
            np.testing.assert_array_equal(getattr(got, field), value)
        assert got.y.tobytes() == want.y.tobytes()
        got.y[...] = 0  # it may be written into


def test_many_calls_travel_together_and_are_answered_in_their_order(shared, monkeypatch):
    monkeypatch.setattr(process, "BATCH", 3)
    sent, send = [], process.send
    monkeypatch.setattr(process, "send", lambda pipe, m: sent.append(m) or send(pipe, m))
    calls = [replace(CALL, seed=seed) for seed in range(7)]
    for subject in (Subject(shared, shared.info()), Subject(make(ODD), shared.info())):
        rows = subject.rows_of_all(calls)
        assert rows.tolist() == [subject.rows(call).tolist() for call in calls]
    assert [len(m) for m in sent if isinstance(m, list)] == [3, 3, 1]
    assert len(np.unique(rows, axis=0)) > 1
    with pytest.raises(Exception, match="has no attribute 'unknown'"):
        shared.run_all([CALL, replace(CALL, op="unknown")])
    assert shared.run(CALL).y.shape == (4, 2)


def test_a_backend_gives_way_where_the_system_has_priorities(alone, monkeypatch):
    alone.give_way()
    assert os.getpriority(os.PRIO_PROCESS, alone.process.pid) >= 10
    monkeypatch.delattr(os, "setpriority")
    alone.give_way()


@pytest.mark.parametrize(
    ("op", "told"),
    [
        ("vanish", "its process ended with exit status 0"),
        ("crash", "its process ended with signal 6, Aborted"),
    ],
)
def test_a_process_that_ends_in_a_call_is_told_by_that_call_and_all_later_ones(op, told, alone):
    for call in (replace(CALL, op=op), CALL):
        with pytest.raises(BrokenAdapter, match=f"^{told}$"):
            alone.run(call)


def test_a_hang_that_catches_everything_is_ended_at_the_deadline(alone, monkeypatch):
    monkeypatch.setattr(process, "SECONDS", 0.2)
    begin = time.monotonic()
    with pytest.raises(BrokenAdapter, match=r"^no answer within 0\.2 s$"):
        alone.run(replace(CALL, op="hang"))
    assert time.monotonic() - begin < 10
    assert not alone.process.is_alive()


def test_a_check_whose_calls_answer_but_never_end_is_ended(alone, monkeypatch):
    def trickle(subject):
        while True:
            time.sleep(0.01)
            subject.run(CALL)
            yield None

    subject = Subject(alone, alone.info())
    monkeypatch.setattr(process, "SECONDS", 0.3)
    with pytest.raises(BrokenAdapter, match=r"^bare: KEY-1: not done within 0\.3 s$"):
        verdict_on(Check("KEY-1", trickle), subject)


@pytest.mark.parametrize(
    ("op", "told"),
    [
        ("leave", "SystemExit: 0"),
        ("break_off", "no such device"),
        ("hold_a_lambda", "Outcome cannot be sent: "),
        ("hold_a_class", "what came back holds a conformance.adapter_mutants.Refused"),
    ],
)
def test_what_is_no_answer_is_a_broken_adapter(op, told, shared):
    with pytest.raises(BrokenAdapter, match=f"^{told}"):
        shared.run(replace(CALL, op=op))


@pytest.mark.parametrize(
    ("op", "told"), [("refuse", "Refused: no\\x1b[31m"), ("stammer", "Speechless: ")]
)
def test_an_exception_of_the_implementation_keeps_its_name_and_text(op, told, shared):
    def results():
        yield shared.run(replace(CALL, op=op))

    (finding,) = collect("KEY-1", results()).findings
    assert finding.got == told


def test_a_call_that_cannot_be_sent_is_no_refusal(shared):
    with pytest.raises(BrokenAdapter, match=r"^Call cannot be sent: "):
        shared.run(replace(CALL, options={"branch": lambda x: x}))
    assert shared.run(CALL).y.shape == (4, 2)


def test_what_an_adapter_prints_disturbs_neither_its_answer_nor_stdout(shared, capfd):
    outcome = shared.run(replace(CALL, op="chat"))
    assert outcome.y.shape == (4, 2)
    assert capfd.readouterr().out == ""


def test_an_adapter_may_start_processes(shared):
    assert shared.run(replace(CALL, op="is_daemon")).drew is False


def test_an_interrupt_is_for_this_process_to_decide(shared):
    os.kill(shared.process.pid, signal.SIGINT)
    assert shared.run(CALL).y.shape == (4, 2)


def test_the_process_ends_with_its_backend():
    backend = start(ODD)
    child = backend.process
    assert child.is_alive()
    del backend
    child.join(10)
    assert not child.is_alive()
