"""A backend in a process of its own, where an adapter that hangs, exits or crashes cannot hide.

That process imports the adapter and its framework; the suite's own imports neither. Calls and
outcomes travel pickled, large arrays beside the pickle. Not here: how an adapter is found by its
name (loading.py).
"""

import multiprocessing
import os
import pickle
import signal
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from multiprocessing.connection import Connection
from threading import Timer
from typing import Any, Self

from conformance.check import checked
from conformance.protocol import Backend, BrokenAdapter, Call, Info, NotTaken, Outcome
from conformance.text import one_line, text_of, visible
from conformance.wire import Message, Plain, Raised, read, receive, send

BATCH = 256  # calls that travel together, where one tells little
SECONDS = 300  # for one answer, and for one check; the slowest of ours takes some ten


class Apart:
    """The backend that make() returns, made and called in another process; make is pickled.

    A context manager, which ends the process. Methods raise BrokenAdapter where there is no answer,
    and what the implementation raises as an exception whose type has the same name.
    """

    is_apart = True  # so that its calls and outcomes are copies

    def __init__(self, make: Callable[[], Backend]) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(theirs, make), daemon=True)
        with no_interrupt():
            self.process.start()
        theirs.close()
        self.ended = ""  # why this side ended the process
        self.known: Info | None = None
        weakref.finalize(self, self.process.kill)

    def info(self) -> Info:
        """Return what the adapter says of itself; the first time, once it is made."""
        self.known = self.known or self._answer()
        return self.known

    def run(self, call: Call) -> Outcome:
        """Return the outcome of one call."""
        return self._ask(call)

    def run_all(self, calls: list[Call]) -> list[Outcome]:
        """Return the outcomes of calls in their order, BATCH of which travel together."""
        batches = [calls[first : first + BATCH] for first in range(0, len(calls), BATCH)]
        return [outcome for batch in batches for outcome in self._ask(batch)]

    def give_way(self) -> None:
        """Let others have the processors first, where that can be: those that compile take long."""
        if self.process.pid and hasattr(os, "setpriority"):
            with suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, self.process.pid, 10)

    def end(self, why: str = "its process was ended") -> None:
        """End the process, and with it each call that waits for it."""
        self.ended = self.ended or why
        self.process.kill()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()
        self.process.join()

    def _ask(self, message: Call | list[Call]) -> Any:
        self.info()
        try:
            with suppress(OSError):  # it has ended, and its answer says how
                send(self.pipe, message)
            return self._answer()
        except KeyboardInterrupt:  # or the next call would get this one's answer
            self.end()
            raise

    def _answer(self) -> Any:
        try:
            if not self.pipe.poll(SECONDS):
                self.end(f"no answer within {SECONDS:g} s")
            answer = read(receive(self.pipe), Plain)
        except (EOFError, OSError):
            raise BrokenAdapter(self._end()) from None
        if isinstance(answer, Raised):
            raise type(answer.kind, (Exception,), {})(answer.text)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _end(self) -> str:
        """Return how the process ended, which it does at once where its pipe is closed."""
        self.process.join(1)
        self.process.kill()
        self.process.join()
        code = self.process.exitcode or 0
        how = f"exit status {code}" if code >= 0 else f"signal {-code}, {signal.strsignal(-code)}"
        return self.ended or f"its process ended with {how}"


@contextmanager
def limit(backend: Backend, checks: int = 1) -> Iterator[None]:
    """End the process of a backend in a block that takes longer than so many checks may.

    A backend in this process is not ended.
    """
    if not isinstance(backend, Apart):
        yield
        return
    seconds = checks * SECONDS
    timer = Timer(seconds, backend.end, [f"not done within {seconds:g} s"])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


@contextmanager
def no_interrupt() -> Iterator[None]:
    """Block SIGINT, where there is such a mask: a process started in here is born with it."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def serve(pipe: Connection, make: Callable[[], Backend]) -> None:
    """Answer with the backend's info, then calls with their outcomes, until the pipe is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever started this process ends it
    with suppress(OSError):
        os.dup2(2, 1)  # stdout is the report's
    multiprocessing.current_process().daemon = False  # which could start no processes
    made: list[Backend] = []

    def info() -> Info:
        made.append(make())
        found = made[0].info()
        if not isinstance(found, Info):
            raise BrokenAdapter(f"info must return an Info, got {type(found).__name__}")
        return replace(found, name=visible(str(found.name)))

    def run(call: Call) -> Outcome:
        return checked(made[0].run(call), call.dtype)

    def outcome(message: Message) -> Outcome | list[Outcome]:
        asked = read(message, pickle.Unpickler)
        return [*map(run, asked)] if isinstance(asked, list) else run(asked)

    good = answer(pipe, info)
    with suppress(EOFError, OSError):
        while good:
            answer(pipe, partial(outcome, receive(pipe)))


def answer(pipe: Connection, do: Callable[[], Any]) -> bool:
    """Send what do() returns or raises; return whether it returned."""
    good, result = False, None
    try:
        good, result = True, do()
    except (BrokenAdapter, NotTaken) as error:
        result = type(error)(one_line(error))
    except Exception as error:
        result = Raised(visible(type(error).__name__), text_of(error))
    except BaseException as error:  # SystemExit, for one
        result = BrokenAdapter(f"{type(error).__name__}: {one_line(error)}")
    try:
        send(pipe, result)
    except BrokenAdapter as error:
        send(pipe, error)
    return good
