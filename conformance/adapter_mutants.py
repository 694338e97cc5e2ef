"""Adapters that break, loaded by name as anyone's are, and so in a process of their own.

`bare` and `swapped` do not break: they are a right DropPath and a wrong one.
"""

import multiprocessing
import os
import sys
import time
from dataclasses import replace
from typing import NoReturn

from conformance.mutant import REFERENCE
from conformance.protocol import Backend, BrokenAdapter, Call, Info, Outcome


class Bare:
    """A right DropPath that claims nothing but to need a key."""

    def info(self) -> Info:
        """Return a name and one claim."""
        return Info("bare", frozenset({"stateless"}))

    def run(self, call: Call) -> Outcome:
        """Return the reference's outcome."""
        outcome: Outcome = REFERENCE.run(call)
        return outcome


class Odd(Bare):
    """Answers the calls of drop_path, and does what the name of another op says."""

    def run(self, call: Call) -> Outcome:
        """Return the outcome of one call."""
        odd = getattr(self, call.op, None)
        return odd(call) if odd else super().run(call)

    def hang(self, call: Call) -> NoReturn:
        """Catch all that can be caught."""
        while True:
            try:
                time.sleep(60)
            except BaseException:
                continue

    def leave(self, call: Call) -> NoReturn:
        """Exit as Python does."""
        sys.exit(0)

    def vanish(self, call: Call) -> NoReturn:
        """Exit without a word."""
        os._exit(0)

    def crash(self, call: Call) -> NoReturn:
        """End as a fault in C code does."""
        os.abort()

    def break_off(self, call: Call) -> NoReturn:
        """Break the protocol, by its own account."""
        raise BrokenAdapter("no such device")

    def refuse(self, call: Call) -> NoReturn:
        """Raise what only this process knows."""
        raise Refused(lambda: "unpicklable")

    def stammer(self, call: Call) -> NoReturn:
        """Raise what cannot say what it is."""
        raise Speechless

    def chat(self, call: Call) -> Outcome:
        """Write to stdout."""
        print("chatter" * 9999)
        os.write(1, b"chatter")
        return super().run(replace(call, op="drop_path"))

    def hold_a_lambda(self, call: Call) -> Outcome:
        """Return what pickle cannot send."""
        return Outcome(call.x, drew=lambda: False)  # type: ignore[arg-type]  # wrong on purpose

    def hold_a_class(self, call: Call) -> Outcome:
        """Return what only this process knows."""
        return Outcome(call.x, drew=Refused)  # type: ignore[arg-type]  # wrong on purpose

    def is_daemon(self, call: Call) -> Outcome:
        """Tell whether this process may start no others."""
        return Outcome(call.x, drew=multiprocessing.current_process().daemon)


class Refused(Exception):
    """Its message is multi-line, and holds what a terminal obeys."""

    def __str__(self) -> str:
        return "no\x1b[31m\nsecond line"


class Speechless(Exception):
    """Its message cannot be had."""

    def __str__(self) -> str:
        raise RuntimeError


def bare() -> Backend:
    """Return a right DropPath."""
    return Bare()


def swapped() -> Backend:
    """Return the mutant that keeps what it should drop."""
    from conformance.clauses.mask_mutants import MUTANTS

    (mutant,) = (m for m in MUTANTS if m.name == "keep and drop swapped")
    return mutant.backend()


def odd() -> Backend:
    """Return the backend that does what an op says."""
    return Odd()
