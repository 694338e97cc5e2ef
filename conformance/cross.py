"""Two backends against each other, bit for bit: masks, kept rows, gradients."""

from dataclasses import replace

import numpy as np

from conformance.blocks import block, residual_mask, same_block
from conformance.calls import KEY, gradient, modes
from conformance.check import Results, Subject, equal
from conformance.numerics import sample
from conformance.process import limit
from conformance.protocol import Backend, BrokenAdapter, Call, Info
from conformance.runner import Report, collect
from conformance.text import visible


def cross_check(names: tuple[str, str], first: Backend, second: Backend) -> Report:
    """Return the report on the two agreeing bit for bit: masks, kept rows, gradients."""
    a, b = Subject(first, first.info()), Subject(second, second.info())
    shared = a.info.claims & b.info.claims
    if "keyed" not in shared:
        raise BrokenAdapter(f"{' x '.join(names)}: both must claim keyed to be given one mask")
    dtypes = tuple(dtype for dtype in a.info.dtypes if dtype in b.info.dtypes)
    pair = Info(visible(f"{a.info.name}  x  {b.info.name}"), shared, dtypes)
    with limit(first, checks=2), limit(second, checks=2):
        verdicts = [
            collect("masks", _same_masks(a, b)),
            collect("values", _same_values(a, b, pair)),
        ]
    return Report(visible(" x ".join(names)), pair, tuple(verdicts))


def _same_masks(a: Subject, b: Subject) -> Results:
    for mode in [mode for mode in modes(a) if mode in modes(b)]:
        for batch in (0, 1, 2, 3, 8, 64, 257, 4097):
            for groups, offset in ((1, 0), (1, batch * 5), (batch or 1, batch * 3)):
                for p in (0.001, 0.1, 0.9):
                    options = {"mode": mode, "groups": groups, "offset": offset}
                    call = Call(np.ones((batch, 2)), p, key=KEY, options=options)
                    case = f"B={batch}, p={p}, {options}"
                    yield equal(case, a.rows(call) * 1.0, b.rows(call) * 1.0, "float32")


def _same_values(a: Subject, b: Subject, pair: Info) -> Results:
    for dtype in pair.dtypes:
        for p in (0.02, 0.1, 0.37, 0.9):
            for mode in [mode for mode in modes(a) if mode in modes(b)]:
                x, dy = sample((64, 33), dtype), sample((64, 33), dtype, first=9000)
                call = Call(x, p, dtype, key=KEY, options={"mode": mode})
                case = f"{mode}, p={p}, {dtype}"
                yield equal(case, a.run(call).y, b.run(call).y, dtype)
                if "gradient" in pair.claims:
                    call = replace(call, dy=dy)
                    yield equal(f"{case}, gradient", gradient(a, call), gradient(b, call), dtype)
                if "residual" in pair.claims and p == 0.37:
                    call = replace(block(p, mode, dtype=dtype), dy=None, key=KEY)
                    want, got, keep = a.run(call).y, b.run(call).y, residual_mask(a, call)
                    yield from same_block(f"residual, {case}", keep, want, got, dtype)
