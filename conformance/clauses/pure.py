"""PURE: nothing outside the result changes."""

from dataclasses import replace

import numpy as np

from conformance.calls import KEY, LARGE, MIDDLE, SMALL, modes
from conformance.check import Results, Subject, check, equal, holds
from conformance.numerics import sample
from conformance.protocol import Call


@check("PURE-1")
def x_stays(subject: Subject) -> Results:
    for p in (0.0, 0.37, 1.0):
        for training in (True, False):
            for shape in (SMALL, MIDDLE, LARGE):
                x = sample(shape, "float32")
                after = subject.run(Call(x.copy(), p, training=training)).x_after
                after = x if after is None else after  # cannot be told
                yield equal(f"p={p}, training={training}, {shape}", x, after, "float32")


@check("PURE-2", needs=("keyed",))
def key_is_the_only_state(subject: Subject) -> Results:
    for mode in modes(subject):
        call = Call(np.ones((64, 2)), 0.37, key=KEY, options={"mode": mode})
        outcome = subject.run(replace(call, seed=None))
        yield holds(mode, not outcome.drew, "generators as they were", "a generator moved")
        for seed in (0, 1):
            again = subject.run(replace(call, seed=seed)).y
            yield equal(f"{mode}, after seed {seed}", outcome.y, again, "float32")
