"""ARG: what is refused."""

from typing import Any

import numpy as np

from conformance.calls import KEY, X, forms
from conformance.check import Results, Subject, check, holds, refuses
from conformance.protocol import Call

BAD_RATES = (
    -0.1,
    -1e-9,
    1.5,
    1 + 1e-9,
    float("nan"),
    np.float32("nan"),
    float("inf"),
    None,
    "0.1",
    True,
)


def all_refused(subject: Subject, case: str, call: Call) -> Results:
    """Yield a finding for each form of the call that does not raise."""
    for form in forms(subject, call):
        yield refuses(subject, f"{form.op}, {case}", form)


@check("ARG-1")
def refuses_bad_rates(subject: Subject) -> Results:
    for p in BAD_RATES:
        yield from all_refused(subject, f"drop_prob={p!r}", Call(X, p))
        yield from all_refused(subject, f"drop_prob={p!r}, evaluation", Call(X, p, training=False))
    for p in (0.0, 1.0, 0, 1):
        for call in forms(subject, Call(X, p)):
            got = subject.run(call).y.shape
            yield holds(f"{call.op}, drop_prob={p!r}", got == X.shape, f"shape {X.shape}", got)


@check("ARG-2")
def refuses_bad_x(subject: Subject) -> Results:
    yield from all_refused(subject, "0-d x", Call(np.ones(()), 0.1))
    yield from all_refused(subject, "integer x", Call(X, 0.1, dtype="int32"))
    if "axis" in subject.info.claims:
        for axis in (2, -3):
            yield from all_refused(subject, f"axis={axis}", Call(X, 0.1, options={"axis": axis}))


@check("ARG-3", needs=("batch",))
def refuses_bad_options(subject: Subject) -> Results:
    bad: dict[str, list[dict[str, Any]]] = {
        "batch": [{"mode": "rows"}, {"mode": None}],
        "scale_at": [{"scale_at": "test"}],
        "balanced": [{"mode": "balanced", "groups": g} for g in (3, 0, -1)],
        "keyed": [{"offset": -1}, {"mode": "balanced", "groups": 2, "offset": 2}],
    }
    for claim, cases in bad.items():
        for options in cases if claim in subject.info.claims else ():
            yield from all_refused(subject, str(options), Call(X, 0.1, key=KEY, options=options))


@check("ARG-4", needs=("keep", "keyed"))
def refuses_bad_keep(subject: Subject) -> Results:
    for keep in (np.ones(7, bool), np.ones((8, 1), bool), np.ones(8), np.ones(8, np.int32)):
        case = f"keep: {keep.dtype} {keep.shape}"
        yield from all_refused(subject, case, Call(X, 0.1, keep=keep))
    both = Call(X, 0.1, keep=np.ones(8, bool), key=KEY)
    yield from all_refused(subject, "keep and key", both)


@check("ARG-5", needs=("keyed",))
def refuses_bad_keys(subject: Subject) -> Results:
    for key in (KEY.astype(np.float32), KEY[:1], np.zeros(4, np.uint32)):
        yield from all_refused(subject, f"key: {key.dtype} {key.shape}", Call(X, 0.1, key=key))
    if "stateless" in subject.info.claims:
        yield from all_refused(subject, "no key in training", Call(X, 0.1, seed=None))
    if "random" in subject.info.claims:
        for seed in (-1, 2**32, 0.5, True):
            yield refuses(subject, f"seed={seed!r}", Call(op="key", options={"seed": seed}))
