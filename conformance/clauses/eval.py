"""EVAL: where nothing is dropped, nothing changes and nothing is drawn."""

from dataclasses import replace

import numpy as np

from conformance.calls import modes
from conformance.check import Results, Subject, check, equal, holds
from conformance.numerics import sample
from conformance.protocol import Call


def is_identity(subject: Subject, call: Call) -> Results:
    """Yield comparisons of y with x for inputs with special values, where nothing may be drawn."""
    for dtype in subject.info.dtypes:
        x = sample((8, 5), dtype)
        x[:4, 0] = np.inf, -np.inf, np.nan, -0.0
        outcome = subject.run(replace(call, x=x, dtype=dtype, seed=None))
        yield equal(f"p={call.drop_prob}, {dtype}", x, outcome.y, dtype)
        yield holds(f"p={call.drop_prob}, {dtype}", not outcome.drew, "nothing drawn", "a draw")


@check("EVAL-1")
def evaluation_is_identity(subject: Subject) -> Results:
    for p in (0.0, 0.3, 1.0):
        yield from is_identity(subject, Call(drop_prob=p, training=False))


@check("EVAL-2")
def rate_0_is_identity(subject: Subject) -> Results:
    for mode in modes(subject):
        options = {} if mode == "row" else {"mode": mode}
        yield from is_identity(subject, Call(drop_prob=0.0, options=options))
