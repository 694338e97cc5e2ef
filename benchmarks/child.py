"""A function that is called in a process of its own, so that its memory goes when it returns.

The process is a fresh one: it imports what the function needs, and has none of our threads.
"""

import signal
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any, TypeAlias, TypeVar

Say: TypeAlias = Callable[[str], None]
T = TypeVar("T")

SPAWN = get_context("spawn")


class Failed(Exception):
    """The process ended without a result; the text says how. Its traceback is on stderr."""


def in_child(title: str, function: Callable[..., T], *arguments: Any, say: Say) -> T:
    """Return function(*arguments, say), called in a process with this title.

    What it says there is said here. Raises Failed if the process fails or is killed.
    """
    ours, theirs = SPAWN.Pipe(duplex=False)
    target = (theirs, function, *arguments)
    child = SPAWN.Process(name=title, target=_answer, args=target, daemon=True)
    child.start()
    theirs.close()  # the child has the only one: when it ends, so does the pipe
    try:
        while answer := _received(ours):
            is_result, value = answer
            if is_result:
                return value
            say(value)
        child.join()
        raise Failed(f"{title}: its process {_end(child.exitcode or 0)}")
    except BaseException:
        child.terminate()
        raise
    finally:
        child.join()
        ours.close()


def _received(pipe: Connection) -> tuple[bool, Any] | None:
    """Return what `_answer` sent, or None if its process has ended, perhaps amid a message."""
    try:
        return pipe.recv()
    except (EOFError, OSError):
        return None


def _answer(pipe: Connection, function: Callable[..., object], *arguments: Any) -> None:
    """Send (False, text) for each text that is said, and (True, result) at the end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is also the parent's, which ends us
    pipe.send((True, function(*arguments, lambda text: pipe.send((False, text)))))


def _end(exitcode: int) -> str:
    if exitcode < 0:
        return f"was killed by {signal.Signals(-exitcode).name}"
    return f"ended with exit status {exitcode}"
