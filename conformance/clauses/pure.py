"""PURE: nothing outside the result changes."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import product
from typing import Any

import numpy as np

from conformance.blocks import BLOCK, block, same_block, with_claimed
from conformance.calls import KEY, LARGE, MIDDLE, SMALL, leaves_draws, mode_options, modes
from conformance.check import Results, Subject, check, draws_nothing, equal, told
from conformance.numerics import product as scaled
from conformance.numerics import round_to, sample
from conformance.protocol import Array, Call


@check("PURE-1")
def x_stays(subject: Subject) -> Results:
    for p in (0.0, 0.37, 1.0):
        for training in (True, False):
            for shape in (SMALL, MIDDLE, LARGE):
                call = Call(sample(shape, "float32"), p, training=training)
                yield from stays(subject, f"p={p}, training={training}, {shape}", call)
    for how, dtype, fields in ways(subject):
        x, dy = sample(BLOCK, dtype), sample(BLOCK, dtype, first=9000)
        x[:3, 0] = np.nan, np.inf, -0.0
        for training in (True, False):
            call = Call(x, 0.37, dtype, training=training, dy=dy, **fields)
            case = f"{how}, {dtype}, training={training}"
            yield from stays(subject, case, with_claimed(subject, call))
            if "residual" in subject.info.claims and dtype == "float32" and "keep" not in fields:
                options = {"branch": halved, **call.options}
                made = replace(call, dy=None, op="residual", options=options)
                yield from stays(subject, f"residual, {case}", made)


def halved(x: Any) -> Any:
    """Return a branch's output, exact in every dtype."""
    return x * 0.5


def stays(subject: Subject, case: str, call: Call) -> Results:
    """Compare x after a call with x before."""
    after = subject.run(call).x_after
    yield told("x_after", after, partial(equal, case, call.x, dtype=call.dtype))


def ways(subject: Subject) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield dtypes, modes, an axis and a keep: in words, the dtype, and fields of a call."""
    for dtype in subject.info.dtypes:
        yield "row", dtype, {}
    for mode in modes(subject)[1:]:
        yield mode, "float32", {"options": mode_options(mode)}
    if "axis" in subject.info.claims:
        yield "axis=1", "float32", {"options": {"axis": 1}}
    if "keep" in subject.info.claims:
        yield "keep", "float32", {"seed": None, "keep": np.arange(BLOCK[0]) % 3 > 0}


@check("PURE-2", needs=("keyed",))
def key_is_the_only_state(subject: Subject) -> Results:
    for mode in modes(subject):
        offset = {**mode_options(mode), "offset": 64}
        calls = [
            ("", Call(np.ones(BLOCK), 0.37, key=KEY, options=mode_options(mode))),
            (", offset 64", Call(np.ones(BLOCK), 0.37, key=KEY, options=offset)),
        ]
        if "gradient" in subject.info.claims:
            calls.append((", gradient", replace(calls[0][1], dy=sample(BLOCK, "float32"))))
            if "recompute" in subject.info.claims:
                calls.append((", recompute", replace(calls[-1][1], recompute=True)))
        if "residual" in subject.info.claims:
            calls.append((", residual", replace(block(0.37, mode), key=KEY, dy=None)))
        for what, call in calls:
            yield from is_pure(subject, f"{mode}{what}", replace(call, seed=None))


def is_pure(subject: Subject, case: str, call: Call) -> Results:
    """Compare a keyed call with itself, later, and look at the state of generators."""
    outcome = subject.run(call)
    yield draws_nothing(case, outcome)
    plain = call.op == "drop_path" and call.dy is None and "offset" not in call.options
    later: list[tuple[str, list[Call]]] = [("itself", []), ("others", others_than(subject))]
    for what, others in later[: 2 if plain else 1]:
        for other in others:
            subject.run(other)
        again = subject.run(call)
        yield equal(f"{case}, after {what}", outcome.y, again.y, call.dtype)
        if outcome.dx is not None and again.dx is not None:
            yield equal(f"{case}, gradient after {what}", outcome.dx, again.dx, call.dtype)
    yield from leaves_draws(subject, case, call)


def others_than(subject: Subject) -> list[Call]:
    """Return calls that might leave a state behind: of other sizes, rates, keys, dtypes, seeds."""
    plain = Call(np.ones(SMALL), 0.37, key=KEY, seed=None)
    return [
        *(plain, replace(plain, x=np.ones((2, 33))), replace(plain, training=False)),
        *(replace(plain, drop_prob=1.0), replace(plain, drop_prob=0.9)),
        *(replace(plain, x=np.ones(BLOCK), key=KEY[::-1].copy()), replace(plain, key=None, seed=1)),
        *(replace(plain, dtype=dtype) for dtype in subject.info.dtypes),
    ]


@check("PURE-3", needs=("keep",))
def given_keep_is_the_mask(subject: Subject) -> Results:
    third = np.arange(BLOCK[0]) % 3 > 0
    keeps = {"a third": third, "all": third & False, "none": third | True}
    rates = (0.0, 2.0**-24, 0.1, 0.37, 0.9, 1 - 2.0**-24, 1.0)
    for mode in modes(subject):
        # in batch mode one decision holds for all rows: a keep of both kinds may be refused
        mine = {what: keep for what, keep in keeps.items() if what != "a third" or mode != "batch"}
        first = next(iter(mine))
        for p, dtype in [*product(rates, ["float32"]), *product([0.37], subject.info.dtypes)]:
            for what, keep in mine.items():
                if what == first or (p in (0.0, 0.37, 1.0) and dtype == "float32"):
                    x, options = sample(BLOCK, dtype), mode_options(mode)
                    call = Call(x, p, dtype, seed=None, keep=keep, options=options)
                    case = f"{mode}, p={p}, {dtype}, {what} dropped"
                    yield from follows_keep(subject, case, call)
        for p in rates if "residual" in subject.info.claims else ():
            for what in ["a third"] if "a third" in mine else mine:
                made = replace(block(p, mode), seed=None, keep=mine[what])
                case = f"residual, {mode}, p={p}, {what} dropped"
                yield from block_follows_keep(subject, case, made)
    if "axis" in subject.info.claims:
        x, keep = sample(BLOCK[::-1], "float32"), third
        call = Call(x, 0.37, seed=None, keep=keep, options={"axis": 1})
        yield from follows_keep(subject, "axis=1", call)
    for p in (0.0, 0.37):
        between = Call(sample(BLOCK, "float32"), p, keep=third)
        yield from leaves_draws(subject, f"keep, p={p}", between)


def follows_keep(subject: Subject, case: str, call: Call) -> Results:
    """Compare y and dx with what the keep says, and look whether something was drawn."""
    dy = sample(call.x.shape, call.dtype, first=9000)
    outcome = subject.run(with_claimed(subject, replace(call, dy=dy)))
    yield equal(case, selected(call, call.x), outcome.y, call.dtype)
    if "gradient" in subject.info.claims:
        dx = np.zeros(()) if outcome.dx is None else outcome.dx
        yield equal(f"{case}, gradient", selected(call, dy), dx, call.dtype)
    yield draws_nothing(case, outcome)


def selected(call: Call, x: Array) -> Array:
    """Return x times the factor where the call's keep is True, else 0."""
    p, axis = call.drop_prob, call.options.get("axis", 0)
    keep = call.keep.reshape(-1, *[1] * (x.ndim - 1 - axis))
    return np.where(keep & (p < 1), scaled(x, 1 / (1 - p) if p < 1 else 0.0, call.dtype), 0.0)


def block_follows_keep(subject: Subject, case: str, call: Call) -> Results:
    """Compare a block's y with what its keep says, and look whether something was drawn."""
    outcome = subject.run(with_claimed(subject, call))
    p, (w,) = call.drop_prob, call.options["per_sample"]
    kept = np.broadcast_to(call.keep[:, None] & (p < 1), call.x.shape)
    s = np.float64(np.float32(1 / (1 - p))) if p < 1 else 0.0
    want = round_to(np.where(kept, call.x + s * (call.x * w), call.x), call.dtype)
    yield from same_block(case, kept, want, outcome.y, call.dtype)
    yield draws_nothing(case, outcome)
