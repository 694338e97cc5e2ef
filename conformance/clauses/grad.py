"""GRAD: the gradient has the forward's mask and factor."""

from dataclasses import replace

import numpy as np

from conformance.blocks import BLOCK
from conformance.calls import (
    LARGE,
    MIDDLE,
    RATES,
    SMALL,
    SPECIAL,
    forms,
    gradient,
    mode_options,
    modes,
)
from conformance.check import Results, Subject, check, equal
from conformance.numerics import product, sample
from conformance.protocol import Call


@check("GRAD-1", needs=("gradient",))
def gradient_follows_the_rule(subject: Subject) -> Results:
    for dtype in subject.info.dtypes:
        for p, shape in (*((p, SMALL) for p in RATES), (0.37, MIDDLE), (0.37, LARGE)):
            x, dy = sample(shape, dtype), sample(shape, dtype, first=9000)
            call = Call(x, p, dtype, dy=dy)
            keep = subject.keep(call)
            dy[:, :3] = np.where(keep[:, :3], dy[:, :3], SPECIAL[:3])
            want = np.where(keep, product(dy, 1 / (1 - p), dtype), 0.0)
            yield equal(f"p={p}, {dtype}, {shape}", want, gradient(subject, call), dtype)
        call = Call(sample(SMALL, dtype), 0.37, dtype, training=False)
        call = replace(call, dy=sample(SMALL, dtype, first=9000))
        want = np.zeros(()) if call.dy is None else call.dy
        yield equal(f"evaluation, {dtype}", want, gradient(subject, call), dtype)


@check("GRAD-2", needs=("gradient",))
def one_mask_both_ways(subject: Subject) -> Results:
    for recompute in (False, True) if "recompute" in subject.info.claims else (False,):
        for mode in modes(subject):
            call = Call(np.ones(BLOCK), 0.37, options=mode_options(mode))
            for form in forms(subject, replace(call, dy=np.ones_like(call.x), recompute=recompute)):
                outcome, dropped = subject.run(form), 0.0 if form.op == "drop_path" else 1.0
                case = f"{form.op}, {mode}, forward {'run again' if recompute else 'kept'}"
                dx = np.zeros(()) if outcome.dx is None else outcome.dx
                yield equal(case, (outcome.y != dropped) * 1.0, (dx != dropped) * 1.0, "float32")


@check("GRAD-3", needs=("gradient",))
def gradient_is_zero_at_rate_1(subject: Subject) -> Results:
    for dtype in subject.info.dtypes:
        x = np.tile(product(SPECIAL, 1.0, dtype), (8, 1))
        dx = gradient(subject, Call(x, 1.0, dtype, dy=np.ones_like(x)))
        yield equal(f"{dtype}", np.zeros_like(x), dx, dtype)
