"""The checks: one function for each clause of SPEC.md, in its order.

A check yields, for every case that it compares, None or a Finding; the runner counts both, and a
check that compares nothing fails. The mask of a black box is found by calling it on ones with the
same seed; a keyed implementation is also held to the exact mask. Inputs and seeds are fixed.

Statistics: a case fails if its exact binomial tail is below ALPHA. A run has fewer than 10^3 such
cases, so that a right implementation with fresh randomness fails in fewer than one run in 10^9.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np

import droppath
from conformance.numerics import FORMATS, compute_type, product, sample, step, tail
from conformance.protocol import Array, Backend, BrokenAdapter, Call, Info, Outcome

ALPHA = 1e-12
RATES = (0.02, 0.1, 0.37, 0.9)  # asymmetric: 0.5 cannot tell keep from drop
KEY = droppath.key(20160330)  # the day of arXiv 1603.09382, version 1


@dataclass(frozen=True)
class Finding:
    """One case that does not hold."""

    case: str
    want: str
    got: str
    steps: float | None = None


Results = Iterator[Finding | None]


@dataclass(frozen=True)
class Subject:
    """A backend and its info."""

    backend: Backend
    info: Info

    def run(self, call: Call) -> Outcome:
        """Return the outcome of a call. Raises BrokenAdapter unless of the protocol's form."""
        outcome = self.backend.run(call)
        y = getattr(outcome, "y", None)
        if not (isinstance(y, np.ndarray) and y.dtype == np.float64):
            got = y.dtype.name if isinstance(y, np.ndarray) else type(y).__name__
            raise BrokenAdapter(f"y must be an array of float64, got {got}")
        if outcome.dtype not in FORMATS:
            raise BrokenAdapter(f"dtype must be one of {', '.join(FORMATS)}, got {outcome.dtype!r}")
        return outcome

    def keep(self, call: Call) -> Array:
        """Return the mask of a call, found on ones: bool of x's shape."""
        return self.run(replace(call, x=np.ones_like(call.x), dy=None)).y != 0

    def rows(self, call: Call) -> Array:
        """Return the mask along axis 0, for x of shape [B, 2]: bool [B]."""
        return self.keep(call)[:, 0]


@dataclass(frozen=True)
class Check:
    """A check of one clause, and the claims without which it does not apply."""

    clause: str
    test: Callable[[Subject], Results]
    needs: tuple[str, ...] = ()


def equal(case: str, want: Array, got: Array, dtype: str, steps: int = 0) -> Finding | None:
    """Compare bit for bit (NaN equals NaN, -0 is not +0), or within steps of dtype."""
    if want.shape != got.shape:
        return Finding(case, f"shape {want.shape}", f"shape {got.shape}")
    with np.errstate(invalid="ignore"):
        apart = np.abs(want - got) / step(np.where(np.isfinite(want), want, 0.0), dtype)
    same = (want == got) & (np.signbit(want) == np.signbit(got)) | np.isnan(want) & np.isnan(got)
    wrong = ~(same | (apart <= steps) & (steps > 0))
    if not wrong.any():
        return None
    worst = np.unravel_index(
        np.argmax(np.where(wrong, np.nan_to_num(apart, nan=np.inf), -1)), wrong.shape
    )
    place = f"{case}, at {[int(i) for i in worst]}, {int(wrong.sum())} of {wrong.size} differ"
    steps_apart = float(apart[worst]) if np.isfinite(apart[worst]) else None
    return Finding(place, number(want[worst]), number(got[worst]), steps_apart)


def number(value: float) -> str:
    """Return a number in decimal and in hex."""
    return f"{value!s} ({float(value).hex()})"


def holds(case: str, condition: bool, want: str, got: object) -> Finding | None:
    """Return a finding unless the condition holds."""
    return None if condition else Finding(case, want, str(got))


def likely(case: str, count: int, trials: int, p: float) -> Finding | None:
    """Return a finding if count successes in trials, each of probability p, are out of bounds."""
    chance = tail(int(count), trials, p)
    got = f"{count} of {trials}, {count / trials:.6g} (probability {chance:.1e})"
    return holds(case, chance >= ALPHA, f"about {p:.6g}", got)


def refuses(subject: Subject, case: str, call: Call) -> Finding | None:
    """Return a finding unless the call raises."""
    return holds(case, refusal(subject, call), "an error", "a result")


def refusal(subject: Subject, call: Call) -> bool:
    """Return whether the call raises."""
    try:
        subject.run(call)
    except BrokenAdapter:
        raise
    except Exception:  # of any type: SPEC.md asks for a refusal
        return True
    return False


X = np.ones((8, 3))
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


def forms(subject: Subject, call: Call) -> list[Call]:
    """Return the call and, where that is claimed, the same of a residual block."""
    if "residual" not in subject.info.claims:
        return [call]
    return [call, replace(call, op="residual", options={**call.options, "branch": minus_half})]


def minus_half(x: Any) -> Any:
    """Return a branch's output, exact in every dtype, by operators that any array knows."""
    return x * -0.5


def all_refused(subject: Subject, case: str, call: Call) -> Results:
    """Yield a finding for each form of the call that does not raise."""
    for form in forms(subject, call):
        yield refuses(subject, f"{form.op}, {case}", form)


def refuses_bad_rates(subject: Subject) -> Results:
    for p in BAD_RATES:
        yield from all_refused(subject, f"drop_prob={p!r}", Call(X, p))
        yield from all_refused(subject, f"drop_prob={p!r}, evaluation", Call(X, p, training=False))
    for p in (0.0, 1.0, 0, 1):
        for call in forms(subject, Call(X, p)):
            got = subject.run(call).y.shape
            yield holds(f"{call.op}, drop_prob={p!r}", got == X.shape, f"shape {X.shape}", got)


def refuses_bad_x(subject: Subject) -> Results:
    yield from all_refused(subject, "0-d x", Call(np.ones(()), 0.1))
    yield from all_refused(subject, "integer x", Call(X, 0.1, dtype="int32"))
    if "axis" in subject.info.claims:
        for axis in (2, -3):
            yield from all_refused(subject, f"axis={axis}", Call(X, 0.1, options={"axis": axis}))


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


def refuses_bad_keep(subject: Subject) -> Results:
    for keep in (np.ones(7, bool), np.ones((8, 1), bool), np.ones(8), np.ones(8, np.int32)):
        case = f"keep: {keep.dtype} {keep.shape}"
        yield from all_refused(subject, case, Call(X, 0.1, keep=keep))
    both = Call(X, 0.1, keep=np.ones(8, bool), key=KEY)
    yield from all_refused(subject, "keep and key", both)


def refuses_bad_keys(subject: Subject) -> Results:
    for key in (KEY.astype(np.float32), KEY[:1], np.zeros(4, np.uint32)):
        yield from all_refused(subject, f"key: {key.dtype} {key.shape}", Call(X, 0.1, key=key))
    if "stateless" in subject.info.claims:
        yield from all_refused(subject, "no key in training", Call(X, 0.1, seed=None))
    if "random" in subject.info.claims:
        for seed in (-1, 2**32, 0.5, True):
            yield refuses(subject, f"seed={seed!r}", Call(op="key", options={"seed": seed}))


def is_identity(subject: Subject, call: Call) -> Results:
    """Yield comparisons of y with x for inputs with special values, where nothing may be drawn."""
    for dtype in subject.info.dtypes:
        x = sample((8, 5), dtype)
        x[:4, 0] = np.inf, -np.inf, np.nan, -0.0
        outcome = subject.run(replace(call, x=x, dtype=dtype, seed=None))
        yield equal(f"p={call.drop_prob}, {dtype}", x, outcome.y, dtype)
        yield holds(f"p={call.drop_prob}, {dtype}", not outcome.drew, "nothing drawn", "a draw")


def evaluation_is_identity(subject: Subject) -> Results:
    for p in (0.0, 0.3, 1.0):
        yield from is_identity(subject, Call(drop_prob=p, training=False))


def rate_0_is_identity(subject: Subject) -> Results:
    for mode in modes(subject):
        options = {} if mode == "row" else {"mode": mode}
        yield from is_identity(subject, Call(drop_prob=0.0, options=options))


def one_decision_covers_a_row(subject: Subject) -> Results:
    layouts = [((64, 5), 0), ((64, 5, 7), 0), ((64, 3, 2, 4), 0)]
    if "axis" in subject.info.claims:
        layouts += [((7, 64, 5), 1), ((5, 7, 64), 2), ((7, 5, 64), -1), ((7, 64, 5), -2)]
    for shape, axis in layouts:
        call = Call(np.ones(shape), 0.37, options={"axis": axis} if axis else {})
        keep = np.moveaxis(subject.keep(call), axis, 0).reshape(64, -1)
        one = (keep == keep[:, :1]).all()
        case = f"x of {shape}, axis={axis}"
        yield holds(case, bool(one), "rows kept or dropped whole", "rows in part")
        yield likely(f"{case}, rows dropped", int((~keep[:, 0]).sum()), 64, 0.37)


def ranks_and_batches_work(subject: Subject) -> Results:
    for rank in range(1, 7):
        for batch in (0, 1, 2, 4):
            x = np.ones((batch, 2, 1, 3, 2, 1)[:rank])
            y = subject.run(Call(x, 0.37)).y
            yield holds(f"x of {x.shape}", y.shape == x.shape, f"shape {x.shape}", y.shape)


def mask_does_not_depend_on_x(subject: Subject) -> Results:
    for p in (0.001, 0.1, 0.9):
        want = subject.rows(Call(np.ones((512, 2)), p))
        for dtype in subject.info.dtypes:
            got = subject.rows(Call(np.ones((512, 2)), p, dtype))
            yield equal(f"p={p}, {dtype}", want * 1.0, got * 1.0, dtype)
            got = subject.run(Call(sample((512, 3), dtype), p, dtype)).y != 0
            yield equal(
                f"p={p}, {dtype}, x is 3 sin",
                np.repeat(want[:, None] * 1.0, 3, 1),
                got * 1.0,
                dtype,
            )


def rate_is_drop_prob(subject: Subject) -> Results:
    for p in (0.001, 0.01, 0.1, 0.37, 0.9):
        for dtype in subject.info.dtypes:
            keep = subject.rows(Call(np.ones((200_000, 2)), p, dtype))
            yield likely(f"row, p={p}, {dtype}", int((~keep).sum()), keep.size, p)
            for quarter, rows in enumerate(keep.reshape(4, -1)):
                case = f"row, p={p}, {dtype}, quarter {quarter}"
                yield likely(case, int((~rows).sum()), rows.size, p)
    for batch in (1, 2):
        masks = [subject.rows(Call(np.ones((batch, 2)), 0.37, seed=seed)) for seed in range(300)]
        for row, kept in enumerate(np.stack(masks, 1)):
            yield likely(f"row, B={batch}, row {row}", int((~kept).sum()), kept.size, 0.37)
    if "batch" in subject.info.claims:
        calls = [Call(np.ones((2, 2)), 0.1, seed=i, options={"mode": "batch"}) for i in range(400)]
        dropped = sum(not subject.rows(call)[0] for call in calls)
        yield likely("batch, p=0.1", dropped, len(calls), 0.1)
    if "balanced" in subject.info.claims:
        for b, p in ((1, 0.3), (2, 0.05), (3, 0.37)):
            call = Call(np.ones((60_000, 2)), p, options=balanced(60_000 // b))
            keep = subject.rows(call).reshape(-1, b)
            yield likely(f"balanced, b={b}, p={p}", int((~keep[:, 0]).sum()), len(keep), p)


def balanced(groups: int) -> dict[str, Any]:
    """Return the options of a balanced mask."""
    return {"mode": "balanced", "groups": groups}


def rows_and_calls_are_independent(subject: Subject) -> Results:
    call = Call(np.ones((100_000, 2)), 0.37)
    first, again = ~subject.rows(call), ~subject.rows(replace(call, seed=1))
    rate = float(np.concatenate([first, again]).mean())  # a wrong one is MASK-4's
    neighbours = int((first[::2] & first[1::2]).sum())
    yield likely("neighbours both dropped", neighbours, first.size // 2, rate * rate)
    halves = int((first[: first.size // 2] & first[first.size // 2 :]).sum())
    yield likely("dropped in both halves", halves, first.size // 2, rate * rate)
    yield likely("dropped at two seeds", int((first & again).sum()), first.size, rate * rate)
    if "stateless" not in subject.info.claims:
        later = ~subject.rows(replace(call, seed=None))
        yield likely("dropped in two calls", int((again & later).sum()), later.size, rate * rate)
    if "batch" in subject.info.claims:
        masks = [
            subject.rows(Call(np.ones((9, 2)), 0.37, seed=seed, options={"mode": "batch"}))
            for seed in range(40)
        ]
        one = all((mask == mask[0]).all() for mask in masks)
        yield holds("batch", one, "one decision for all rows", "several")
        yield likely("batch, 40 seeds", sum(not mask[0] for mask in masks), len(masks), 0.37)


# Sizes at which implementations choose another path: rows of some bytes, kilobytes, 100 kilobytes.
SMALL, MIDDLE, LARGE = (64, 33), (64, 700), (16, 70_000)


def applied(
    subject: Subject,
    p: float,
    dtype: str,
    s: float,
    shape: tuple[int, ...] = SMALL,
    **options: Any,
) -> Results:
    """Yield the comparison of y with x * s on kept rows."""
    call = Call(sample(shape, dtype), p, dtype, options=options)
    keep = subject.keep(call)
    yield holds(f"p={p}, {dtype}", bool(keep.any()), "some row kept", "none")
    want, got = product(call.x, s, dtype), subject.run(call).y
    if got.shape == want.shape:
        want, got = np.where(keep, want, 0.0), np.where(keep, got, 0.0)
    yield equal(f"p={p}, {dtype}, {shape}", want, got, dtype)


def kept_rows_are_scaled(subject: Subject) -> Results:
    for dtype in subject.info.dtypes:
        for p in (*RATES, 0.05, 0.15, 0.4):
            yield from applied(subject, p, dtype, 1 / (1 - p))
        for shape in (MIDDLE, LARGE):
            yield from applied(subject, 0.37, dtype, 1 / (1 - 0.37), shape)
    if "float16" in subject.info.dtypes:  # beyond the range: infinity
        call = Call(np.full((64, 2), 60_000.0), 0.37, "float16")
        want = np.where(subject.keep(call), np.inf, 0.0)
        yield equal("60000 / (1 - 0.37), float16", want, np.abs(subject.run(call).y), "float16")


def kept_rows_may_stay(subject: Subject) -> Results:
    for p in RATES:
        for dtype in subject.info.dtypes:
            yield from applied(subject, p, dtype, 1.0, scale_by_keep=False)
    x = sample((8, 3), "float32")
    y = subject.run(Call(x, 0.3, training=False, options={"scale_by_keep": False})).y
    yield equal("evaluation", x, y, "float32")


def factor_moves_to_evaluation(subject: Subject) -> Results:
    options: dict[str, Any] = {"scale_at": "eval"}
    for dtype in subject.info.dtypes:
        for p in RATES:
            yield from applied(subject, p, dtype, 1.0, **options)
            x = sample((8, 33), dtype)
            y = subject.run(Call(x, p, dtype, training=False, seed=None, options=options)).y
            yield equal(f"evaluation, p={p}, {dtype}", product(x, 1 - p, dtype), y, dtype)
        x = np.array([[np.inf], [-1.0], [np.nan]])
        y = subject.run(Call(x, 1.0, dtype, training=False, options=options)).y
        yield equal(f"evaluation, p=1, {dtype}", np.zeros_like(x), y, dtype)


SPECIAL = np.array([np.inf, -np.inf, np.nan, -1.0, -0.0, 60000.0])  # 60000: near float16's largest


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


def rate_1_gives_zeros(subject: Subject) -> Results:
    for dtype in subject.info.dtypes:
        x = np.tile(product(SPECIAL, 1.0, dtype), (8, 1))
        yield equal(f"{dtype}", np.zeros_like(x), subject.run(Call(x, 1.0, dtype)).y, dtype)


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


def gradient(subject: Subject, call: Call) -> Array:
    """Return dx, or an array of no shape if the adapter returned none."""
    dx = subject.run(call).dx
    return np.zeros(()) if dx is None else dx


def one_mask_both_ways(subject: Subject) -> Results:
    for recompute in (False, True) if "recompute" in subject.info.claims else (False,):
        for mode in modes(subject):
            call = Call(np.ones(BLOCK), 0.37, options=named(mode))
            for form in forms(subject, replace(call, dy=np.ones_like(call.x), recompute=recompute)):
                outcome, dropped = subject.run(form), 0.0 if form.op == "drop_path" else 1.0
                case = f"{form.op}, {mode}, forward {'run again' if recompute else 'kept'}"
                dx = np.zeros(()) if outcome.dx is None else outcome.dx
                yield equal(case, (outcome.y != dropped) * 1.0, (dx != dropped) * 1.0, "float32")


def modes(subject: Subject) -> list[str]:
    """Return the modes that are claimed."""
    return ["row", *(mode for mode in ("balanced", "batch") if mode in subject.info.claims)]


def gradient_is_zero_at_rate_1(subject: Subject) -> Results:
    for dtype in subject.info.dtypes:
        x = np.tile(product(SPECIAL, 1.0, dtype), (8, 1))
        dx = gradient(subject, Call(x, 1.0, dtype, dy=np.ones_like(x)))
        yield equal(f"{dtype}", np.zeros_like(x), dx, dtype)


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


def shape_stays(subject: Subject) -> Results:
    for shape in ((5,), (1, 1), (3, 5), (2, 3, 4, 5)):
        for p in (0.0, 0.37, 1.0):
            got = subject.run(Call(np.ones(shape), p)).y.shape
            yield holds(f"p={p}", got == shape, f"shape {shape}", got)


def x_stays(subject: Subject) -> Results:
    for p in (0.0, 0.37, 1.0):
        for training in (True, False):
            for shape in (SMALL, MIDDLE, LARGE):
                x = sample(shape, "float32")
                after = subject.run(Call(x.copy(), p, training=training)).x_after
                after = x if after is None else after  # cannot be told
                yield equal(f"p={p}, training={training}, {shape}", x, after, "float32")


def key_is_the_only_state(subject: Subject) -> Results:
    for mode in modes(subject):
        call = Call(np.ones((64, 2)), 0.37, key=KEY, options={"mode": mode})
        outcome = subject.run(replace(call, seed=None))
        yield holds(mode, not outcome.drew, "generators as they were", "a generator moved")
        for seed in (0, 1):
            again = subject.run(replace(call, seed=seed)).y
            yield equal(f"{mode}, after seed {seed}", outcome.y, again, "float32")


# (op, options, result). Threefry: Random123's kat_vectors, as random_bits by counter and as
# fold_in. The rest: jax 0.10.2, fold_in(key(0), 1), bits(key(0), (2,)), split(key(0), 3).
ONES = np.array([0xFFFFFFFF] * 2, np.uint32)
PI = np.array([0x13198A2E, 0x03707344], np.uint32)
KNOWN: tuple[tuple[str, dict[str, Any], list[Any]], ...] = (
    ("key", {"seed": 5}, [0, 5]),
    ("key", {"seed": 2**32 - 1}, [0, 2**32 - 1]),
    ("fold_in", {"key": np.zeros(2, np.uint32), "data": 0}, [0x6B200159, 0x99BA4EFE]),
    ("random_bits", {"key": ONES, "num": 1, "offset": 2**64 - 1}, [0x1CB996FC ^ 0xBB002BE7]),
    (
        "random_bits",
        {"key": PI, "num": 1, "offset": 0x243F6A8885A308D3},
        [0xC4923A9C ^ 0x483DF7A0],
    ),
    ("fold_in", {"key": droppath.key(0), "data": 1}, [928981903, 3453687069]),
    ("random_bits", {"key": droppath.key(0), "num": 2}, [4070199207, 4202968722]),
    (
        "split",
        {"key": droppath.key(0), "num": 3},
        [[1797259609, 2579123966], [928981903, 3453687069], [4146024105, 2718843009]],
    ),
)


def known_answers(subject: Subject) -> Results:
    for op, options, want in KNOWN:
        got = subject.run(Call(op=op, options=options)).y
        yield equal(f"{op} {options}", np.array(want, np.float64), got, "float64")


def exact_masks(subject: Subject, mode: str, layouts: tuple[tuple[int, int, int], ...]) -> Results:
    """Yield the comparison with droppath.keep_mask for (batch, groups, offset)."""
    for batch, groups, offset in layouts:
        for p in (0.001, 0.1, 0.37, 0.9, 1 - 2**-12):
            options: dict[str, Any] = {"mode": mode, "groups": groups, "offset": offset}
            want = droppath.keep_mask(KEY, p, batch, **options)
            got = subject.rows(Call(np.ones((batch, 2)), p, key=KEY, options=options))
            case = f"B={batch}, p={p}, groups={groups}, offset={offset}"
            yield equal(case, want * 1.0, got * 1.0, "float32")
            if "residual" in subject.info.claims and (batch, p) == (8, 0.37):
                call = Call(np.ones((batch, 2)), p, op="residual", key=KEY, options=options)
                got = residual_mask(subject, call)[:, 0]
                yield equal(f"residual, {case}", want * 1.0, got * 1.0, "float32")


FAR = 2**32 - 4  # counters pass from one word to two


def row_draw(subject: Subject) -> Results:
    yield from exact_masks(subject, "row", ((0, 1, 0), (1, 1, 0), (7, 1, 3), (8, 1, FAR)))
    yield from exact_masks(subject, "row", ((4097, 1, 0),))
    yield from at_the_threshold(subject, "row")
    want = droppath.keep_mask(KEY, 0.37, 16)
    for rank in range(1, 6):
        call = Call(np.ones((16, 1, 2, 1, 2)[:rank]), 0.37, key=KEY)
        got = subject.keep(call).reshape(16, -1)[:, 0]
        yield equal(f"rank {rank}", want * 1.0, got * 1.0, "float32")


def at_the_threshold(subject: Subject, mode: str) -> Results:
    """Yield the decisions at T equal to a draw, which keeps, and one above, which drops."""
    draw = int(droppath.random_bits(KEY, 1)[0]) >> 9
    for above in (0, 1):
        p = (draw + above) / 2**23  # exact in float32
        keep = subject.rows(Call(np.ones((1, 2)), p, key=KEY, options={"mode": mode}))
        want = "a row dropped" if above else "a row kept"
        yield holds(f"draw {draw}, T={draw + above}", bool(keep[0]) != bool(above), want, keep)


def batch_draw(subject: Subject) -> Results:
    yield from exact_masks(subject, "batch", ((0, 1, 0), (1, 1, 0), (7, 1, 3), (8, 1, FAR)))
    yield from at_the_threshold(subject, "batch")


def balanced_draw(subject: Subject) -> Results:
    few = ((0, 1, 0), (1, 1, 0), (2, 1, 2), (3, 1, 0), (8, 2, 4), (8, 1, 2**32 - 8))
    yield from exact_masks(subject, "balanced", (*few, (4097, 1, 0), (4096, 64, 64)))


def smaller_rates_drop_less(subject: Subject) -> Results:
    for mode in [mode for mode in modes(subject) if mode != "balanced"]:
        before = np.zeros(512, bool)
        for p in (0.001, 0.01, 0.1, 0.37, 0.9):
            options = {"mode": mode}
            dropped = ~subject.rows(Call(np.ones((512, 2)), p, key=KEY, options=options))
            yield holds(f"{mode}, p={p}", not (before & ~dropped).any(), "a superset", "a row kept")
            before = dropped


def shards_get_their_slice(subject: Subject) -> Results:
    for mode in modes(subject):
        whole = slice_of(subject, mode, 48, 0)
        for n in (8, 16):
            for offset in range(0, 48, n):
                got = slice_of(subject, mode, n, offset)
                case = f"{mode}, {n} rows at {offset}"
                yield equal(case, whole[offset : offset + n] * 1.0, got * 1.0, "float32")


def slice_of(subject: Subject, mode: str, batch: int, offset: int) -> Array:
    """Return the mask of rows offset to offset + batch, in groups of 8: bool [batch]."""
    options = {"mode": mode, "offset": offset, "groups": batch // 8 if mode == "balanced" else 1}
    return subject.rows(Call(np.ones((batch, 2)), 0.37, key=KEY, options=options))


def layers_fold_in_their_index(subject: Subject) -> Results:
    rates = droppath.drop_path_rates(0.5, 6, rule="paper")
    for step_index in (0, 7):
        key = droppath.fold_in(KEY, step_index)
        got = subject.run(Call(np.ones((32, 2)), rates, op="model", key=key)).y
        layers = [droppath.fold_in(key, layer) for layer in range(6)]
        want = [droppath.keep_mask(k, p, 32) for k, p in zip(layers, rates, strict=True)]
        yield equal(f"step {step_index}", np.stack(want) * 1.0, got, "float32")


def kept_of(subject: Subject, group: int, groups: int, p: float) -> Array:
    """Return a balanced mask as bool [groups, group]."""
    call = Call(np.ones((group * groups, 2)), p, options=balanced(groups))
    return subject.rows(call).reshape(groups, group)


def count_is_rounded(subject: Subject) -> Results:
    for group in (1, 2, 3, 10, 33):
        for p in RATES:
            dropped = (~kept_of(subject, group, 300, p)).sum(1)
            low = group * threshold(p) >> 23
            want, got = {low, low + 1}, {int(d) for d in dropped}
            yield holds(f"b={group}, p={p}", got <= want, f"{want} dropped", f"{got} dropped")
            rest = Fraction(group * threshold(p), 2**23) - low
            up = int((dropped > low).sum())
            yield likely(f"b={group}, p={p}, rounded up", up, dropped.size, float(rest))


def threshold(p: float) -> int:
    """Return T of clause KEY-2, from exact fractions."""
    return math.ceil(Fraction(float(np.float32(p))) * 2**23)


def every_row_alike(subject: Subject) -> Results:
    for group, p in ((1, 0.1), (2, 0.05), (3, 0.37), (7, 0.1)):
        keep = kept_of(subject, group, 20_000, p)
        for i in range(group):
            yield likely(f"b={group}, p={p}, row {i}", int((~keep[:, i]).sum()), len(keep), p)


def every_subset_alike(subject: Subject) -> Results:
    keep = kept_of(subject, 4, 20_000, 0.5)  # two of four: six subsets
    subsets, counts = np.unique(keep @ (1, 2, 4, 8), return_counts=True)
    yield holds("b=4, p=0.5", len(subsets) == 6, "6 subsets", len(subsets))
    for subset, count in zip(subsets, counts, strict=True):
        yield likely(f"b=4, p=0.5, kept rows {subset:04b}", int(count), len(keep), 1 / 6)


def capacity_is_the_most_kept(subject: Subject) -> Results:
    for batch, groups in ((1, 1), (10, 1), (20, 2), (30, 1), (100, 4), (4096, 1)):
        for p in (0.001, 0.1, 0.37, 0.8, 0.9, 1 - 2**-12):
            options = {"drop_prob": p, "batch": batch, "groups": groups}
            got = int(subject.run(Call(op="kept_capacity", options=options)).y)
            want = batch - groups * (batch // groups * threshold(p) >> 23)
            yield holds(f"{options}", got == want, str(want), got)
            yield holds(f"{options}", got >= groups, "at least one row a group", got)


def not_finite(x: Any) -> Any:
    """Return a branch's output that overflows everywhere."""
    return x * float("inf") + float("inf")


def scaled(x: Any, w: Any) -> Any:
    """Return a branch's output with a factor for each sample."""
    return x * w


BLOCK = (32, 5)  # one shape for most: JAX compiles each of its operations for each shape


def residual(
    subject: Subject, branch: Any, p: float, dtype: str, mode: str
) -> tuple[Array, Array, Array]:
    """Return x, its mask and y of a residual block."""
    options = {"branch": branch, **named(mode)}
    call = Call(sample(BLOCK, dtype), p, dtype, "residual", options=options)
    return call.x, residual_mask(subject, call), subject.run(call).y


def named(mode: str) -> dict[str, Any]:
    """Return the options of a mode; an implementation that knows no other is not asked for row."""
    return {} if mode == "row" else {"mode": mode}


def rowwise(subject: Subject) -> list[str]:
    """Return the claimed modes in which some rows are kept and others dropped."""
    return [mode for mode in modes(subject) if mode != "batch"]


def residual_mask(subject: Subject, call: Call) -> Array:
    """Return the mask of a residual call, found with x = 0 and f = 1: bool of x's shape."""
    options = {k: v for k, v in call.options.items() if k not in ("per_sample", "skip")}
    options["branch"] = one
    probe = replace(call, x=np.zeros_like(call.x), dy=None, options=options)
    return subject.run(probe).y != 0


def one(x: Any) -> Any:
    """Return a branch's output that is 1 for a finite x."""
    return x * 0 + 1


def grant(dtype: str) -> int:
    """Return RES-1's tolerance in steps."""
    return 1 if dtype in ("float16", "bfloat16") else 2


def same_block(case: str, keep: Array, want: Array, got: Array, dtype: str) -> Results:
    """Compare dropped rows bit for bit, kept rows within RES-1's tolerance."""
    if want.shape != got.shape:
        yield equal(case, want, got, dtype)
    else:
        yield equal(f"{case}, dropped rows", want[~keep], got[~keep], dtype)
        yield equal(f"{case}, kept rows", want[keep], got[keep], dtype, grant(dtype))


def kept_residuals(subject: Subject) -> Results:
    for mode in rowwise(subject):
        for p in RATES if mode == "row" else RATES[2:3]:
            for dtype in subject.info.dtypes:
                x, keep, y = residual(subject, minus_half, p, dtype, mode)
                s = product(np.ones(()), 1 / (1 - p), compute_type(dtype))
                want = np.where(keep, product(x - s * (0.5 * x), 1.0, dtype), x)
                yield equal(f"{mode}, p={p}, {dtype}", want, y, dtype, grant(dtype))
    for dtype in subject.info.dtypes:
        x = sample(BLOCK, dtype)
        options = {"branch": minus_half}
        y = subject.run(Call(x, 0.37, dtype, "residual", training=False, options=options)).y
        yield equal(f"evaluation, {dtype}", x * 0.5, y, dtype)


def dropped_residuals(subject: Subject) -> Results:
    for mode in rowwise(subject):
        for p in (0.37, 1.0):
            for dtype in subject.info.dtypes:
                with np.errstate(invalid="ignore"):
                    x, keep, y = residual(subject, not_finite, p, dtype, mode)
                dropped, case = ~keep, f"{mode}, p={p}, {dtype}"
                yield holds(case, bool(dropped.any()), "some row dropped", "none")
                yield equal(case, x[dropped], y[dropped], dtype)


def stream_keeps_its_dtype(subject: Subject) -> Results:
    for dtype in subject.info.dtypes:
        call = Call(sample(BLOCK, dtype), 0.37, dtype, "residual", options={"branch": minus_half})
        got = subject.run(call).dtype
        yield holds(dtype, got == dtype, dtype, got)


def block(
    p: float, mode: str, shape: tuple[int, ...] = BLOCK, dtype: str = "float32", **options: Any
) -> Call:
    """Return a residual call whose branch takes a power of 2 for each sample, with its dy."""
    w = np.exp2(np.arange(shape[0]) % 4 - 1.0).reshape(-1, *[1] * (len(shape) - 1))
    options = {"branch": scaled, "per_sample": [w], **named(mode), **options}
    x, dy = sample(shape, dtype), sample(shape, dtype, first=9000)
    return Call(x, p, dtype, "residual", dy=dy, options=options)


def with_claimed(subject: Subject, call: Call) -> Call:
    """Return the call without dy, unless gradients are claimed."""
    return call if "gradient" in subject.info.claims else replace(call, dy=None)


def runs_what_it_must(subject: Subject) -> Results:
    if "balanced" in subject.info.claims:
        for batch, groups, p in ((1, 1, 0.9), (32, 8, 0.37), (33, 1, 0.1)):
            must = batch - groups * (batch // groups * threshold(p) >> 23)
            runs = ((p, None, {must}), (p, True, {must}), (p, False, {batch}))
            for rate, skip, rows in (*runs, (0.0, True, {batch}), (1.0, True, {0, groups})):
                call = block(rate, "balanced", (batch, 5), skip=skip, groups=groups)
                yield ran(subject, f"B={batch}, groups={groups}, skip={skip}", call, rows)
        yield from spare_rows_leave_no_trace(subject)
    for mode in [mode for mode in modes(subject) if mode != "balanced"]:
        for seed in range(4):
            call = replace(block(0.6, mode, (4, 5), skip=True), seed=seed)
            kept = int(residual_mask(subject, call)[:, 0].sum())
            can = not refusal(subject, call)
            rows = {kept, max(kept, 1) if mode == "row" else kept} if can else {4}
            for skip in (True, None) if can else (None,):
                call = replace(call, options={**call.options, "skip": skip})
                case = f"{mode}, seed={seed}, {kept} of 4 kept, skip={skip}"
                yield ran(subject, case, call, rows)
    call = replace(block(0.37, "row", (4, 5)), training=False)
    yield ran(subject, "evaluation", call, {4})


def ran(subject: Subject, case: str, call: Call, rows: set[int]) -> Finding | None:
    """Return a finding unless the branch ran on one of so many rows."""
    got = subject.run(replace(call, dy=None)).ran
    want = " or ".join(map(str, sorted(rows)))
    return holds(f"{case}, p={call.drop_prob}", got in rows, f"{want} rows run", got)


def spare_rows_leave_no_trace(subject: Subject) -> Results:
    for dtype in subject.info.dtypes:
        call = block(0.37, "balanced", dtype=dtype, groups=8)
        keep = residual_mask(subject, call)
        w = np.where(keep[:, :1], call.options["per_sample"][0], np.nan)
        want, outcome = subject.run(replace(call, dy=None)).y, subject.run(replaced(call, w))
        spare = (outcome.ran or 0) - int(keep[:, 0].sum())
        yield holds(dtype, spare > 0, "some spare row", spare)
        yield equal(f"NaN in {spare} spare rows, {dtype}", want, outcome.y, dtype)


def replaced(call: Call, w: Array) -> Call:
    """Return a block's call with another factor for each sample."""
    return replace(call, dy=None, options={**call.options, "per_sample": [w]})


def skipping_changes_nothing(subject: Subject) -> Results:
    layouts = ((32, 2, 0.0), (32, 2, 0.37), (32, 2, 1.0), (1, 3, 0.37), (5, 5, 0.6), (33, 4, 0.05))
    for mode in modes(subject):
        skip = True if mode == "balanced" else None
        for i, (batch, rank, p) in enumerate(layouts):
            dtype = subject.info.dtypes[i % len(subject.info.dtypes)]
            call = replace(block(p, mode, (batch, 5, 2, 1, 2)[:rank], dtype), seed=batch)
            call = with_claimed(subject, call)
            dense, some = (
                replace(call, options={**call.options, "skip": how}) for how in (False, skip)
            )
            case = f"{mode}, B={batch}, rank {rank}, p={p}, {dtype}"
            yield from same_call(subject, case, dense, some)


def arguments_follow_their_rows(subject: Subject) -> Results:
    axes = (0, 1) if "axis" in subject.info.claims else (0,)
    for mode in modes(subject):
        for axis, dtype in [(0, d) for d in subject.info.dtypes] + [
            (a, "float32") for a in axes[1:]
        ]:
            call = block(0.37, mode, dtype=dtype, branch=scaled_twice)
            (w,), x = call.options["per_sample"], call.x
            v = np.exp2(np.arange(x.size) % 3.0).reshape(x.shape)
            options = {**call.options, "per_sample": [w, v], **({"axis": 1} if axis else {})}
            x = np.stack([x, -x]) if axis else x
            call = replace(call, x=x, dy=None, options=options)
            keep, s = residual_mask(subject, call), 1 / (1 - call.drop_prob)
            want = np.where(keep, product(x + s * (x * w * v), 1.0, dtype), x)
            case = f"{mode}, axis={axis}, {dtype}"
            yield from same_block(case, keep, want, subject.run(call).y, dtype)
        for batch in (1, 31, 33):
            call = replaced(block(0.37, mode), np.ones((batch, 1)))
            yield refuses(subject, f"{mode}, an argument of {batch} rows for 32", call)


def scaled_twice(x: Any, w: Any, v: Any) -> Any:
    """Return a branch's output with two factors for each sample."""
    return x * w * v


def gradient_of_a_block(subject: Subject) -> Results:
    for mode in modes(subject):
        for dtype in subject.info.dtypes:
            yield from unused_is_unfelt(subject, 0.37, mode, dtype, np.inf)
        for p in (0.9, 1.0):
            yield from unused_is_unfelt(subject, p, mode, subject.info.dtypes[-1], np.nan)


def unused_is_unfelt(subject: Subject, p: float, mode: str, dtype: str, unused: float) -> Results:
    """Compare dx where the branch's factor is `unused` on dropped rows, with and without skip."""
    call = block(p, mode, dtype=dtype)
    keep = residual_mask(subject, call)
    w, dy = call.options["per_sample"][0], sample(call.x.shape, dtype, first=9000)
    want = product(dy + (w * dy / (1 - p) if p < 1 else 0.0), 1.0, dtype)
    given = {**call.options, "per_sample": [np.where(keep[:, :1], w, unused)]}
    for skip in ({}, {"skip": False}) if "skip" in subject.info.claims else ({},):
        with np.errstate(invalid="ignore"):
            dx = gradient(subject, replace(call, dy=dy, options={**given, **skip}))
        case = f"{mode}, p={p}, {dtype}, {skip}"
        if dx.shape != dy.shape:
            yield equal(case, dy, dx, dtype)
            continue
        yield equal(f"{case}, dropped rows", dy[~keep], dx[~keep], dtype)
        yield equal(f"{case}, kept rows", want[keep], dx[keep], dtype, 2)


# For L = 4 blocks at 0.3, by hand.
BY_HAND = {
    "linear": [0.0, 0.1, 0.2, 0.3],
    "paper": [0.075, 0.15, 0.225, 0.3],
    "exclusive": [0.0, 0.075, 0.15, 0.225],
    "uniform": [0.3, 0.3, 0.3, 0.3],
}


def rates(subject: Subject, rule: str, depth: int | list[int], rate: float = 0.3) -> Array:
    """Return drop_path_rates, flat."""
    options = {"drop_path_rate": rate, "depth": depth, "rule": rule}
    return subject.run(Call(op="drop_path_rates", options=options)).y


def rules_over_depth(subject: Subject) -> Results:
    for rule, want in BY_HAND.items():
        got = rates(subject, rule, 4)
        near = got.shape == (4,) and bool(np.abs(got - want).max() <= 1e-12)
        yield holds(rule, near, str(want), got)
    for rule in ("linear", "paper"):
        for depth in (3, 12, 54):
            last = rates(subject, rule, depth, 0.1)[-1]
            yield holds(f"{rule}, L={depth}, last", last == 0.1, "0.1", last)


def short_models(subject: Subject) -> Results:
    for rule, one in (("linear", 0.3), ("paper", 0.3), ("exclusive", 0.0), ("uniform", 0.3)):
        yield holds(f"{rule}, L=0", rates(subject, rule, 0).size == 0, "no rates", "some")
        got = rates(subject, rule, 1)
        yield holds(f"{rule}, L=1", got.tolist() == [one], str([one]), got)


def stages_nest(subject: Subject) -> Results:
    for rule, want in BY_HAND.items():
        got = rates(subject, rule, [2, 2])
        near = got.shape == (2, 2) and bool(np.abs(got.reshape(-1) - want).max() <= 1e-12)
        yield holds(rule, near, f"{want[:2]}, {want[2:]}", got)


def ramps_land(subject: Subject) -> Results:
    at = np.array([-1.0, 2.0, 2.0 + 1e-9, 6.0, 10.0 - 1e-9, 10.0, 99.0, 4.0])
    for shape in ("linear", "cosine"):
        options = {"step": at, "begin": 2, "end": 10, "start": 0.05, "stop": 0.3, "shape": shape}
        y = subject.run(Call(op="ramp", options=options)).y
        yield holds(f"{shape}, before", y[0] == y[1] == 0.05, "0.05", y[:2])
        yield holds(f"{shape}, after", y[5] == y[6] == 0.3, "0.3", y[5:7])
        yield holds(f"{shape}, middle", abs(y[3] - 0.175) < 1e-12, "0.175", y[3])
        quarter = 0.05 + 0.25 * {"linear": 0.25, "cosine": (1 - 0.5**0.5) / 2}[shape]
        yield holds(f"{shape}, quarter", abs(y[7] - quarter) < 1e-12, str(quarter), y[7])
        jump = max(abs(y[2] - 0.05), abs(y[4] - 0.3))
        yield holds(f"{shape}, ends", jump < 1e-9, "no jump", jump)


def depth_is_expected(subject: Subject) -> Results:
    paper = droppath.drop_path_rates(0.5, 54, rule="paper")
    got = float(subject.run(Call(op="expected_depth", options={"rates": paper})).y)
    yield holds("L=54, p_L=0.5, paper", abs(got - 40.25) < 1e-9, "40.25", got)


def compiled_is_eager(subject: Subject) -> Results:
    for mode in modes(subject):
        for dtype in subject.info.dtypes if mode == "row" else subject.info.dtypes[-1:]:
            made = replace(block(0.37, mode, dtype=dtype), key=KEY)
            plain = replace(made, op="drop_path", options=named(mode))
            for call in (plain, made) if "residual" in subject.info.claims else (plain,):
                one = with_claimed(subject, call)
                case = f"{call.op}, {mode}, {dtype}"
                yield from same_call(subject, case, one, replace(one, compiled=True))


def same_call(subject: Subject, case: str, call: Call, other: Call) -> Results:
    """Compare two ways to make one call: bit for bit, but RES-1's tolerance where a sum is kept."""
    want, got = subject.run(call), subject.run(other)
    pairs = [("", want.y, got.y), (", gradient", want.dx, got.dx)]
    for what, one, two in pairs if call.dy is not None else pairs[:1]:
        one, two = (np.zeros(()) if array is None else array for array in (one, two))
        if call.op == "residual" and one.shape == call.x.shape:
            keep = residual_mask(subject, call)
            yield from same_block(f"{case}{what}", keep, one, two, call.dtype)
        else:
            yield equal(f"{case}{what}", one, two, call.dtype)


def another_key_is_data(subject: Subject) -> Results:
    for mode in modes(subject):
        for call in forms(subject, Call(np.ones(BLOCK), 0.37, options=named(mode))):
            masks = set()
            for i, key in enumerate(droppath.split(KEY, 6)):
                case = f"{call.op}, {mode}, key {i}"
                outcome = subject.run(replace(call, key=key, compiled=True))
                want = subject.run(replace(call, key=key)).y
                yield equal(case, want, outcome.y, "float32")
                if i:
                    yield not_built(case, outcome)
                masks.add(outcome.y.tobytes())
            yield holds(f"{call.op}, {mode}", len(masks) > 1, "several masks", "one")


def not_built(case: str, outcome: Outcome) -> Finding | None:
    """Return a finding unless the outcome came from a program that was there."""
    got = "cannot be told" if outcome.built is None else "another program"
    return holds(case, outcome.built is False, "the same program", got)


# Exact in float32, so that a rate loses nothing on its way to the program.
DATA = (0.0, 0.125, 0.375, 0.875, 1.0)


def rates_are_data(subject: Subject) -> Results:
    for dtype in subject.info.dtypes:
        x = sample(BLOCK, dtype)
        for rates in (DATA, DATA[::-1]):
            outcome = subject.run(Call(x, list(rates), dtype, "layers", key=KEY))
            calls = [
                Call(x, p, dtype, key=droppath.fold_in(KEY, layer)) for layer, p in enumerate(rates)
            ]
            want, case = np.stack([subject.run(call).y for call in calls]), f"{rates}, {dtype}"
            yield equal(f"{case}, masks", (want != 0) * 1.0, (outcome.y != 0) * 1.0, "float32")
            yield equal(case, want, outcome.y, dtype, 4)
        if "compile" in subject.info.claims:
            yield not_built(f"other rates, {dtype}", outcome)


def mapped_is_alone(subject: Subject) -> Results:
    keys = droppath.split(KEY, 5)
    for mode in modes(subject):
        for dtype in subject.info.dtypes:
            call = Call(sample((5, *BLOCK), dtype), 0.37, dtype, options=named(mode))
            got = subject.run(replace(call, op="mapped", key=keys)).y
            pairs = zip(call.x, keys, strict=True)
            want = [subject.run(replace(call, x=x, key=key)).y for x, key in pairs]
            yield equal(f"{mode}, {dtype}", np.stack(want), got, dtype)


def shards_change_nothing(subject: Subject) -> Results:
    for mode in modes(subject):
        options: dict[str, Any] = {"groups": 8} if mode == "balanced" else {}
        made = replace(block(0.37, mode, **options), key=KEY)
        plain = replace(made, op="drop_path", options={**named(mode), **options})
        for call in (plain, made) if "residual" in subject.info.claims else (plain,):
            for shards in (2, 4, 8):
                one = with_claimed(subject, call)
                case = f"{call.op}, {mode}, {shards} shards"
                yield from same_call(subject, case, one, replace(one, shards=shards))


def skipping_is_silent(subject: Subject) -> Results:
    for shards in (2, 8):
        call = with_claimed(subject, replace(block(0.37, "balanced", groups=8), key=KEY))
        skips, dense = (
            subject.run(replace(call, shards=shards, options={**call.options, "skip": skip}))
            for skip in (True, False)
        )
        got, most = skips.collectives, dense.collectives
        less = got is not None and most is not None and got <= most
        yield holds(f"{shards} shards", less, f"at most {most} collectives", got)


CHECKS = (
    Check("ARG-1", refuses_bad_rates),
    Check("ARG-2", refuses_bad_x),
    Check("ARG-3", refuses_bad_options, ("batch",)),
    Check("ARG-4", refuses_bad_keep, ("keep", "keyed")),
    Check("ARG-5", refuses_bad_keys, ("keyed",)),
    Check("EVAL-1", evaluation_is_identity),
    Check("EVAL-2", rate_0_is_identity),
    Check("MASK-1", one_decision_covers_a_row),
    Check("MASK-2", ranks_and_batches_work),
    Check("MASK-3", mask_does_not_depend_on_x),
    Check("MASK-4", rate_is_drop_prob),
    Check("MASK-5", rows_and_calls_are_independent),
    Check("SCALE-1", kept_rows_are_scaled),
    Check("SCALE-2", kept_rows_may_stay, ("scale_by_keep",)),
    Check("SCALE-3", factor_moves_to_evaluation, ("scale_at",)),
    Check("DROP-1", dropped_rows_are_zero),
    Check("DROP-2", rate_1_gives_zeros),
    Check("GRAD-1", gradient_follows_the_rule, ("gradient",)),
    Check("GRAD-2", one_mask_both_ways, ("gradient",)),
    Check("GRAD-3", gradient_is_zero_at_rate_1, ("gradient",)),
    Check("TYPE-1", dtype_stays),
    Check("TYPE-2", shape_stays),
    Check("PURE-1", x_stays),
    Check("PURE-2", key_is_the_only_state, ("keyed",)),
    Check("KEY-1", known_answers, ("random",)),
    Check("KEY-2", row_draw, ("keyed",)),
    Check("KEY-3", batch_draw, ("keyed", "batch")),
    Check("KEY-4", balanced_draw, ("keyed", "balanced")),
    Check("KEY-5", smaller_rates_drop_less, ("keyed",)),
    Check("KEY-6", shards_get_their_slice, ("keyed",)),
    Check("KEY-7", layers_fold_in_their_index, ("model",)),
    Check("BAL-1", count_is_rounded, ("balanced",)),
    Check("BAL-2", every_row_alike, ("balanced",)),
    Check("BAL-3", every_subset_alike, ("balanced",)),
    Check("BAL-4", capacity_is_the_most_kept, ("schedule",)),
    Check("RES-1", kept_residuals, ("residual",)),
    Check("RES-2", dropped_residuals, ("residual",)),
    Check("RES-3", stream_keeps_its_dtype, ("residual",)),
    Check("RES-4", runs_what_it_must, ("residual", "skip")),
    Check("RES-5", skipping_changes_nothing, ("residual", "skip")),
    Check("RES-6", arguments_follow_their_rows, ("residual",)),
    Check("RES-7", gradient_of_a_block, ("residual", "gradient")),
    Check("SCHED-1", rules_over_depth, ("schedule",)),
    Check("SCHED-2", short_models, ("schedule",)),
    Check("SCHED-3", stages_nest, ("schedule",)),
    Check("SCHED-4", ramps_land, ("schedule",)),
    Check("SCHED-5", depth_is_expected, ("schedule",)),
    Check("COMP-1", compiled_is_eager, ("compile", "keyed")),
    Check("COMP-2", another_key_is_data, ("compile", "keyed")),
    Check("COMP-3", rates_are_data, ("scan", "keyed")),
    Check("COMP-4", mapped_is_alone, ("vmap", "keyed")),
    Check("DIST-1", shards_change_nothing, ("shard", "keyed")),
    Check("DIST-2", skipping_is_silent, ("collectives", "skip", "balanced", "keyed")),
)
