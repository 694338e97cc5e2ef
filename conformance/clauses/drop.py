"""DROP: dropped rows are zero, whatever they held."""

import numpy as np

from conformance.calls import LARGE, MIDDLE, SMALL, SPECIAL
from conformance.check import Results, Subject, check, equal, holds
from conformance.numerics import product
from conformance.protocol import Call


@check("DROP-1")
def dropped_rows_are_zero(subject: Subject) -> Results:
    for p in (0.37, 0.9):
        for dtype in subject.info.dtypes:
            for shape in (SMALL, MIDDLE, LARGE):
                call = Call(np.resize(product(SPECIAL, 1.0, dtype), shape), p, dtype)
                dropped = ~subject.keep(call)[:, 0]
                case = f"p={p}, {dtype}, {shape}"
                yield holds(case, bool(dropped.any()), "some row dropped", "none")
                y = subject.run(call).y[dropped]
                yield equal(f"{case}, x is {SPECIAL.tolist()}", np.zeros_like(y), y, dtype)


@check("DROP-2")
def rate_1_gives_zeros(subject: Subject) -> Results:
    for dtype in subject.info.dtypes:
        x = np.tile(product(SPECIAL, 1.0, dtype), (8, 1))
        yield equal(f"{dtype}", np.zeros_like(x), subject.run(Call(x, 1.0, dtype)).y, dtype)
