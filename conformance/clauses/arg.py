"""ARG: what is refused, in training and evaluation, at a rate of 0 and above it."""

from dataclasses import replace
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np

from conformance.calls import KEY, SMALL, X, forms
from conformance.check import Finding, Results, Subject, check, equal, refusal, refuses
from conformance.protocol import Call

NAN = float("nan")
BAD_RATES: tuple[Any, ...] = (
    *(-0.1, -1e-9, -5e-324, 1 + 2**-52, 1 + 1e-9, 1.5, -1, 2, 10**400),
    *(float("inf"), float("-inf"), NAN, np.float16(NAN), np.float32(NAN), np.float64(NAN)),
    *(np.float16(-0.1), np.float32(1.0000001), np.int64(-1), np.uint8(2)),
    *(None, "0.1", b"0.1", True, False, np.True_, np.False_),
    *(0.1 + 0j, 0.1 + 1e-300j, np.complex64(0.1), np.complex128(1)),
    *([0.1], (0.1,), {0.1}, {"drop_prob": 0.1}, np.array([0.1]), np.array([0.1] * 8)),
    *(np.array(True), np.array(NAN), np.array(-0.1), np.array(0.1 + 0j), np.array("0.1")),
    *(Fraction(-1, 10), Fraction(11, 10), Decimal("NaN")),
)
GOOD_RATES: tuple[Any, ...] = (
    *(0, 1, 0.0, 1.0, -0.0, np.float64(0.1), np.float32(0.1), np.float16(0.1)),
    *(np.float64(0), np.float32(1), np.int64(0), np.int64(1), np.int8(0), np.uint8(1)),
)
MAY_BE_REFUSED = (Fraction(1, 3), Decimal("0.1"), np.array(0.1), np.array(0.1, np.float32))


def all_refused(subject: Subject, case: str, call: Call) -> Results:
    """Yield a finding for each form of the call that does not raise."""
    for form in forms(subject, call):
        yield refuses(subject, f"{form.op}, {case}", form)


def always_refused(subject: Subject, case: str, call: Call) -> Results:
    """Yield a finding for each form and phase in which the call does not raise, and at p = 0."""
    yield from all_refused(subject, case, call)
    yield from all_refused(subject, f"{case}, p=0", replace(call, drop_prob=0.0))
    yield from all_refused(subject, f"{case}, evaluation", replace(call, training=False))


@check("ARG-1")
def refuses_bad_rates(subject: Subject) -> Results:
    for p in BAD_RATES:
        yield from all_refused(subject, f"drop_prob={p!r:.40}", Call(X, p))
        case = f"drop_prob={p!r:.40}, evaluation"
        yield from all_refused(subject, case, Call(X, p, training=False))
        if "model" in subject.info.claims:
            rates = [0.1, p, 0.2]
            key = KEY if "keyed" in subject.info.claims else None
            call = Call(X, rates, op="model", key=key)
            yield refuses(subject, f"model, rates {rates!r:.60}", call)
        if "schedule" in subject.info.claims:
            call = Call(op="kept_capacity", options={"drop_prob": p, "batch": 8, "groups": 1})
            yield refuses(subject, f"kept_capacity, drop_prob={p!r:.40}", call)
    for p in GOOD_RATES:
        yield from taken_at_its_value(subject, p)
    for p in MAY_BE_REFUSED:
        if not refusal(subject, Call(np.ones(SMALL), p)):
            yield from taken_at_its_value(subject, p)


def taken_at_its_value(subject: Subject, p: Any) -> Results:
    """Yield the comparison of y with that of the same number as a float."""
    dtype = subject.info.dtypes[0]
    late = [{"scale_at": "eval"}] if "scale_at" in subject.info.claims else []
    for training, options in [(True, {}), (False, {}), *[(False, option) for option in late]]:
        call = Call(np.ones(SMALL), p, dtype, training=training, options=options)
        for form in forms(subject, call):
            want = subject.run(replace(form, drop_prob=float(p))).y
            case = f"{form.op}, drop_prob={p!r} and {float(p)}, training={training}, {options}"
            if refusal(subject, form):
                yield Finding(case, "the same y", "an error")
            else:
                yield equal(case, want, subject.run(form).y, dtype)


NOT_FLOATING = ("int8", "int32", "int64", "uint8", "bool", "complex64", "complex128")


@check("ARG-2")
def refuses_bad_x(subject: Subject) -> Results:
    yield from always_refused(subject, "0-d x", Call(np.ones(()), 0.1))
    for dtype in NOT_FLOATING:
        yield from always_refused(subject, f"x of {dtype}", Call(X, 0.1, dtype))
    if "axis" in subject.info.claims:
        for shape in ((8,), (8, 3), (8, 3, 1, 2)):
            for axis in (len(shape), -len(shape) - 1, 100, 0.5, "0", None):
                call = Call(np.ones(shape), 0.1, options={"axis": axis})
                yield from always_refused(subject, f"x of {shape}, axis={axis!r}", call)


BAD_MODES = ("rows", None, "Batch", "ROW", "", 1, "balanced ", b"row", ("row",))
BAD_OPTIONS: dict[str, list[dict[str, Any]]] = {  # by claim: refused at all times
    "batch": [{"mode": mode} for mode in BAD_MODES],
    "balanced": [
        *({"mode": mode} for mode in BAD_MODES),
        *({"mode": "balanced", "groups": groups} for groups in (0, -1, 0.5, "2", None)),
    ],
    "scale_at": [{"scale_at": at} for at in ("test", "training", "", "Eval", None, True, 1)],
    "keyed": [{"offset": offset} for offset in (-1, -8, -(2**32), -(2**64), 0.5, "0", None)],
}


@check("ARG-3", needs_any=tuple(BAD_OPTIONS))
def refuses_bad_options(subject: Subject) -> Results:
    claims = subject.info.claims
    key = KEY if "keyed" in claims else None
    cases = [options for claim, some in BAD_OPTIONS.items() if claim in claims for options in some]
    for options in cases:
        yield from always_refused(subject, f"{options}", Call(X, 0.1, key=key, options=options))
    for groups in (3, 5, 7, 16, 9) if "balanced" in claims else ():
        options = {"mode": "balanced", "groups": groups}
        case = f"{options} of 8 rows"
        yield from all_refused(subject, case, Call(X, 0.1, key=key, options=options))
    both = {"balanced", "keyed"} <= claims
    for groups, offset in ((1, 4), (2, 2), (2, 2**33 + 2), (4, 1), (1, -8)) if both else ():
        options = {"mode": "balanced", "groups": groups, "offset": offset}
        yield from all_refused(subject, f"{options}", Call(X, 0.1, key=key, options=options))
    for mode in {"batch", "balanced"} & claims if "keyed" in claims else ():
        options = {"mode": mode, "offset": -8}
        yield from all_refused(subject, f"{options}", Call(X, 0.1, key=key, options=options))


BAD_KEEPS = (
    *(np.ones(n, bool) for n in (0, 1, 7, 9, 16)),
    *(np.ones(shape, bool) for shape in ((8, 1), (1, 8), (8, 3), ())),
    *(np.ones(8, dtype) for dtype in (np.float64, np.float32, np.int32, np.int64, np.uint8)),
)


@check("ARG-4", needs=("keep",))
def refuses_bad_keep(subject: Subject) -> Results:
    for keep in BAD_KEEPS:
        case = f"keep: {keep.dtype} {keep.shape}"
        yield from always_refused(subject, case, Call(X, 0.1, keep=keep))
        yield from all_refused(subject, f"{case}, p=1", Call(X, 1.0, keep=keep))
    for n in (1, 8):
        case = f"keep: {n} of no rows"
        yield from always_refused(subject, case, Call(np.ones((0, 3)), 0.1, keep=np.ones(n, bool)))
    if "axis" in subject.info.claims:  # of the first axis instead of the batch axis
        call = Call(np.ones((8, 3)), 0.1, keep=np.ones(8, bool), options={"axis": 1})
        yield from always_refused(subject, "keep: bool (8,), axis=1 of (8, 3)", call)
    if "keyed" in subject.info.claims:
        both = Call(X, 0.1, keep=np.ones(8, bool), key=KEY)
        yield from always_refused(subject, "keep and key", both)


WIDE = ([0, 2**32], [2**32, 5], [-1, 5], [5, -1], [2**40 + 5, 5], [0, -(2**31)])
BAD_KEYS = (
    *(KEY.astype(np.float32), KEY.astype(np.float64), KEY.astype(bool), KEY.astype(np.complex64)),
    *(KEY[:1], KEY[:0], KEY[0], KEY[None], KEY[:, None], np.zeros((2, 2), np.uint32)),
    *(np.zeros(3, np.uint32), np.zeros(4, np.uint32), *(np.array(words) for words in WIDE)),
)
BAD_SEEDS: tuple[Any, ...] = (
    *(-1, -(2**32), 2**32, 2**40 + 5, 2**64, np.int64(-1), np.int64(2**32)),
    *(0.5, 1.0, NAN, np.float32(1), True, False, np.True_, None, "1", b"1", [1], 1j),
)


@check("ARG-5")
def refuses_bad_keys(subject: Subject) -> Results:
    claims = subject.info.claims
    for key in BAD_KEYS if "keyed" in claims else ():
        case = f"key: {key.dtype} {key.shape} {key.tolist()}"
        yield from all_refused(subject, case, Call(X, 0.1, key=key))
    for mode in ({}, *({"mode": mode} for mode in ("batch", "balanced") if mode in claims)):
        for p in (1e-30, 0.1, 1.0) if "stateless" in claims else ():
            call = Call(X, p, seed=None, options=mode)
            yield from all_refused(subject, f"no key in training, p={p}, {mode}", call)
    if claims >= {"model", "stateless"}:
        model = Call(X, [0.0, 0.1], seed=None, op="model")
        yield refuses(subject, "a model without a key in training", model)
    if "random" in claims:
        yield from refuses_bad_words(subject)
    if "stateless" not in claims:
        yield from draws_nothing_that_is_refused(subject)


def refuses_bad_words(subject: Subject) -> Results:
    """Yield what becomes of seeds and keys out of range in the functions of keys."""
    for seed in BAD_SEEDS:
        yield refuses(subject, f"seed={seed!r}", Call(op="key", options={"seed": seed}))
    for key in (KEY.astype(np.float32), KEY[:1], np.zeros(3, np.uint32), np.array(WIDE[0])):
        for op, options in (
            ("fold_in", {"data": 1}),
            ("split", {"num": 2}),
            ("random_bits", {"num": 2}),
        ):
            case = f"{op}, key: {key.dtype} {key.shape}"
            yield refuses(subject, case, Call(op=op, options={"key": key, **options}))


def draws_nothing_that_is_refused(subject: Subject) -> Results:
    """Yield whether the call after one that is refused draws what it would have drawn without."""
    x = np.ones(SMALL)
    bad = [("p=-0.1", Call(x, -0.1)), ("p='0.1'", Call(x, "0.1")), ("p=None", Call(x, None))]
    bad += [("p=nan", Call(x, NAN)), ("0-d x", Call(np.ones(()), 0.37))]
    bad += [("x of int32", Call(x, 0.37, "int32"))]
    if {"batch", "balanced"} & subject.info.claims:
        bad.append(("mode", Call(x, 0.37, options={"mode": "rows"})))
    if "axis" in subject.info.claims:
        bad.append(("axis=2", Call(x, 0.37, options={"axis": 2})))
    if "keep" in subject.info.claims:
        bad.append(("a keep of 7", Call(x, 0.37, keep=np.ones(7, bool))))
    if "keyed" in subject.info.claims:
        bad.append(("a key of 3 words", Call(x, 0.37, key=np.zeros(3, np.uint32))))
    if "balanced" in subject.info.claims:
        options = {"mode": "balanced", "groups": 3}
        bad.append(("3 groups of 64 rows", Call(x, 0.37, options=options)))
    if "scale_at" in subject.info.claims:
        bad.append(("scale_at", Call(x, 0.37, options={"scale_at": "test"})))
    good = Call(x, 0.37, seed=None)
    for case, call in [(case, form) for case, given in bad for form in forms(subject, given)]:
        subject.run(replace(good, seed=3))
        want = subject.run(good).y
        subject.run(replace(good, seed=3))
        if refusal(subject, replace(call, seed=None)):
            got = subject.run(good).y
            yield equal(f"{call.op}, the call after {case}", want, got, "float64")
