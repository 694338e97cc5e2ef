"""TYPE: dtype and shape are those of x."""

import numpy as np

from conformance.calls import X
from conformance.check import Results, Subject, check, holds
from conformance.protocol import Call


@check("TYPE-1")
def dtype_stays(subject: Subject) -> Results:
    for dtype in subject.info.dtypes:
        scaled_late = {"scale_at": "eval"} if "scale_at" in subject.info.claims else {}
        for p, training in ((0.37, True), (1.0, True), (0.37, False)):
            for options in ({}, scaled_late) if scaled_late else ({},):
                call = Call(X, p, dtype, training=training, options=options)
                got = subject.run(call).dtype
                yield holds(f"p={p}, training={training}, {options}", got == dtype, dtype, got)
        for p in (0.37, 1.0) if "gradient" in subject.info.claims else ():
            grad_dtype = subject.run(Call(X, p, dtype, dy=X)).dx_dtype
            yield holds(f"gradient, p={p}", grad_dtype == dtype, dtype, grad_dtype)


@check("TYPE-2")
def shape_stays(subject: Subject) -> Results:
    for shape in ((5,), (1, 1), (3, 5), (2, 3, 4, 5)):
        for p in (0.0, 0.37, 1.0):
            got = subject.run(Call(np.ones(shape), p)).y.shape
            yield holds(f"p={p}", got == shape, f"shape {shape}", got)
