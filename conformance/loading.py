"""Finds and loads a backend by name, and tries whether its adapter keeps to the protocol.

Not here: the checks of the clauses, which runner.py runs on what was loaded.
"""

import importlib
import importlib.util
import inspect
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from conformance.check import Subject
from conformance.numerics import FORMATS, sample
from conformance.process import Apart, limit
from conformance.protocol import CAPABILITIES, Array, Backend, BrokenAdapter, Call, NotTaken
from conformance.text import one_line, visible

OURS = {"reference": "ml_dtypes", "torch": "torch", "flax": "flax"}  # and what each needs


def load(name: str, **options: Any) -> Apart:
    """Return the backend of an adapter of the suite, or of "package.module:function", once tried.

    It runs in a process of its own, which ends with the backend; a script calls this under
    `if __name__ == "__main__":`, as for any process that Python spawns. options: what the adapter's
    function takes. Raises what `attempt` raises.
    """
    return attempt(name, start(name, **options))


def start(name: str, **options: Any) -> Apart:
    """Return a backend whose process is on its way, not yet tried."""
    return Apart(partial(make, name, **options))


def attempt(name: str, backend: Apart) -> Apart:
    """Return a backend that keeps to the protocol in some simple calls.

    Raises BrokenAdapter, in one line, if it cannot be had or does not; NotTaken for an option that
    the adapter does not take.
    """
    try:
        with limit(backend):
            smoke(backend)
    except NotTaken:
        raise
    except Exception as error:
        reason = one_line(error)
        kind = "" if isinstance(error, BrokenAdapter) else f"{type(error).__name__}: "
        raise BrokenAdapter(f"{visible(name)}: {kind}{reason}") from error
    return backend


def make(name: str, **options: Any) -> Backend:
    """Return the backend that an adapter's function makes, in this process and untried.

    The function is `backend` unless the name ends in another, as in "keras:dropout".
    """
    module, _, function = name.partition(":")
    own = f"conformance.adapters.{module}"
    path = own if "." not in module and importlib.util.find_spec(own) else module
    found = getattr(importlib.import_module(path), function or "backend")
    taken = inspect.signature(found).parameters
    for option in options:
        if option not in taken and not any(p.kind is p.VAR_KEYWORD for p in taken.values()):
            raise NotTaken(f"{name} takes no --{option}")
    backend: Backend = found(**options)
    return backend


def installed() -> list[str]:
    """Return the names of our adapters whose framework is installed."""
    return [name for name, needs in OURS.items() if importlib.util.find_spec(needs)]


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
