"""Finds and loads a backend by name, and tries whether its adapter keeps to the protocol.

Not here: the checks of the clauses, which runner.py runs on what was loaded.
"""

import importlib
import importlib.util
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np

from conformance.check import Subject
from conformance.numerics import FORMATS, sample
from conformance.protocol import CAPABILITIES, Array, Backend, BrokenAdapter, Call

OURS = {"reference": "ml_dtypes", "torch": "torch", "flax": "flax"}  # and what each needs
SECONDS = 300  # for one check; the slowest of ours takes some ten


def load(name: str, **options: Any) -> Backend:
    """Return the backend of an adapter of the suite, or of "package.module:function".

    The function is `backend` unless the name ends in another, as in "keras:dropout".

    Raises BrokenAdapter, in one line, if it cannot be had or does not keep to the protocol.
    """
    module, _, function = name.partition(":")
    try:
        own = f"conformance.adapters.{module}"
        path = own if "." not in module and importlib.util.find_spec(own) else module
        make = getattr(importlib.import_module(path), function or "backend")
        backend: Backend = make(**options)
        with deadline():
            smoke(backend)
    except (Exception, SystemExit) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        reason = reason.removeprefix("BrokenAdapter: ")
        raise BrokenAdapter(f"{name}: {reason}") from error
    return backend


def installed() -> list[str]:
    """Return the names of our adapters whose framework is installed."""
    return [name for name, needs in OURS.items() if importlib.util.find_spec(needs)]


@contextmanager
def deadline(checks: int = 1) -> Iterator[None]:
    """Raise BrokenAdapter in a block that takes longer than so many checks may take.

    Where there is no SIGALRM, it is never raised.
    """
    seconds = checks * SECONDS
    if not hasattr(signal, "SIGALRM"):
        yield
        return

    def late(*_: object) -> None:
        raise BrokenAdapter(f"no answer within {seconds:g} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def smoke(backend: Backend) -> None:
    """Raise BrokenAdapter unless some simple calls give what any DropPath would give."""
    info = backend.info()
    unknown = [*(info.claims - CAPABILITIES.keys()), *(d for d in info.dtypes if d not in FORMATS)]
    if unknown or not info.dtypes:
        raise BrokenAdapter(f"info names what there is not: {', '.join(unknown) or 'no dtype'}")
    x = sample((4, 2), info.dtypes[0])
    calls = [Call(factor * x, 0.0, info.dtypes[0], training=False) for factor in (1, 2)]
    if np.array_equal(_answer(backend, calls[0]), _answer(backend, calls[1])):
        raise BrokenAdapter("y does not depend on x")
    call = Call(np.ones((64, 2)), 0.37, info.dtypes[0])
    masks = [_answer(backend, replace(call, seed=seed)) for seed in range(8)]
    if all(np.array_equal(mask, masks[0]) for mask in masks):
        raise BrokenAdapter("y does not depend on the seed: 8 seeds gave one mask")
    if not np.array_equal(_answer(backend, call), masks[0]):
        raise BrokenAdapter("the same seed gave two masks")


def _answer(backend: Backend, call: Call) -> Array:
    """Return y of a call, checked to be of the shape of x."""
    y = Subject(backend, backend.info()).run(call).y
    if y.shape != call.x.shape:
        raise BrokenAdapter(f"y must have the shape {call.x.shape}, got {y.shape}")
    return y
