"""MASK: what is dropped, and how often; by statistics, since no key is asked for."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations, pairwise, product
from typing import Any

import numpy as np

import droppath
from conformance.blocks import residual_mask, with_claimed
from conformance.calls import KEY, balanced, forms, mode_options, models_are_unkeyed, modes
from conformance.check import Results, Subject, check, holds, likely
from conformance.masks import same
from conformance.numerics import sample
from conformance.protocol import Array, Call
from conformance.statistics import (
    between,
    exact,
    lag,
    number,
    over_seeds,
    rate,
    spread,
    successive,
    together,
    within,
)

ROWS = 350_000  # 5 % off is found at p = 0.1
PLACES = {0.37: 4, 0.9: 32}  # into how many parts a batch is split at a rate
HUGE = 1_800_000
SMALL_BATCHES = (
    (1, 0.9, 4600, 0.05),
    (2, 0.9, 4700, 0.05),
    (65, 0.9, 5700, 0.05),
    (257, 0.37, 2000, 0.34),
    (3, 0.37, 2000, 0.3),
)
SIZES = (1, 2, 3, 65, 257)
LAGS = (1, 2, 3, 4, 8, 16, 32, 64, 128, 256, 1024, 4096, 1 << 16)
SEEDS = (0, 1, 2, 3, 256, 1 << 16, 1 << 24, (1 << 24) + 1)  # alike in 8 or 16 bits, in float32


@check("MASK-1")
def one_decision_covers_a_row(subject: Subject) -> Results:
    layouts = [((64, 5), 0), ((64, 5, 7), 0), ((64, 3, 2, 4), 0)]
    if "axis" in subject.info.claims:
        layouts += [((7, 64, 5), 1), ((5, 7, 64), 2), ((7, 5, 64), -1), ((7, 64, 5), -2)]
    ops = [op for op in ("drop_path", "residual") if op in {"drop_path", *subject.info.claims}]
    for op, mode in product(ops, modes(subject)):
        some = layouts if (op, mode) == ("drop_path", "row") else layouts[-4::2]
        for shape, axis in some[-1:] if mode == "batch" else some:
            options = mode_options(mode) | ({"axis": axis} if axis else {})
            case = f"{op}, {mode}, x of {shape}, axis={axis}"
            for seed in range(3 if mode == "batch" else 1):
                keep = mask_of(
                    subject, Call(np.ones(shape), 0.37, op=op, seed=seed, options=options)
                )
                keep = np.moveaxis(keep, axis, 0).reshape(64, -1)
                one = bool((keep == keep[:, :1]).all())
                yield holds(case, one, "rows kept or dropped whole", "rows in part")
                if mode != "batch":
                    rows = int((~keep[:, 0]).sum())
                    yield likely(f"{case}, rows dropped", rows, 64, 0.37, off=1.5)


def mask_of(subject: Subject, call: Call) -> Array:
    """Return the mask of drop_path or of a residual block: bool of x's shape."""
    return (residual_mask if call.op == "residual" else Subject.keep)(subject, call)


@check("MASK-2")
def ranks_and_batches_work(subject: Subject) -> Results:
    sizes = (2, 1, 3, 2, 1)
    for rank in range(1, 7):
        for axis in range(rank if "axis" in subject.info.claims else 1):
            shape = (*sizes[:axis], 3, *sizes[axis : rank - 1])
            yield from shape_stays(subject, shape, {"axis": axis} if axis else {})
        for batch in (0, 1) if rank < 4 else (0,):
            yield from shape_stays(subject, (batch, *sizes[: rank - 1]), {})
    for mode in modes(subject):
        for batch in (0, *SIZES, 4, 128) if mode == "row" else (0, 257):
            yield from shape_stays(subject, (batch, 2), mode_options(mode))
        for batch in (0, 1):
            x = np.ones((batch, 2))
            plain = with_claimed(subject, Call(x, 0.37, dy=x, options=mode_options(mode)))
            for call in forms(subject, plain)[1:]:
                outcome, case = subject.run(call), f"block of {x.shape}, {mode}"
                yield holds(case, outcome.y.shape == x.shape, f"shape {x.shape}", outcome.y.shape)


def shape_stays(subject: Subject, shape: tuple[int, ...], options: dict[str, object]) -> Results:
    """Compare y's shape with x's, and look whether each row is kept or dropped whole."""
    axis = options.get("axis", 0)
    y = subject.run(Call(np.ones(shape), 0.37, options=options)).y
    case = f"x of {shape}, {options}"
    yield holds(case, y.shape == shape, f"shape {shape}", y.shape)
    if y.shape == shape and y.size:
        rows = np.moveaxis(y, int(str(axis)), 0).reshape(shape[int(str(axis))], -1)
        right = bool((rows == rows[:, :1]).all())
        yield holds(case, right, "rows kept or dropped whole", y)


@check("MASK-3")
def mask_does_not_depend_on_x(subject: Subject) -> Results:
    layouts = [((512,), 0), ((512, 1, 3), 0)]
    if "axis" in subject.info.claims:
        layouts += [((2, 512), 1), ((3, 512, 2), -2), ((2, 3, 512), 2)]
    draws = [("row", p, 0) for p in (0.001, 0.1, 0.9)]
    draws += [(mode, 0.37, seed) for mode in modes(subject)[1:] for seed in (0, 3)]
    for mode, p, seed in draws:
        call = Call(np.ones((512, 2)), p, seed=seed, options=mode_options(mode))
        want = subject.rows(call)
        for dtype in subject.info.dtypes:
            for what, x in inputs(dtype):
                y = subject.run(replace(call, x=x, dtype=dtype)).y
                got = y[:, -1] != 0  # where x is finite: what else becomes of it is DROP-1's
                yield same(f"{mode}, p={p}, seed {seed}, {dtype}, x is {what}", want, got)
        for shape, axis in layouts:
            options = {**call.options, **({"axis": axis} if axis else {})}
            keep = subject.keep(replace(call, x=np.ones(shape), options=options))
            got = np.moveaxis(keep, axis, 0).reshape(512, -1)[:, 0]
            yield same(f"{mode}, p={p}, seed {seed}, x of {shape}, axis={axis}", want, got)


def inputs(dtype: str) -> Iterator[tuple[str, Array]]:
    """Yield inputs of [512, 3] that differ in their values, with no row of zeros only."""
    x = sample((512, 3), dtype)
    yield "3 sin", x
    for value in (0.0, np.inf, np.nan, 57344.0):
        yield f"{value} in each row", np.column_stack([np.full(512, value), x[:, 1:]])


@check("MASK-4")
def rate_is_drop_prob(subject: Subject) -> Results:
    first = subject.info.dtypes[0]
    rates = {0.0001: 2.2, 0.001: 0.56, 0.01: 0.17, 0.1: 0.05, 0.37: 0.05, 0.9: 0.05, 0.999: 0.56}
    for dtype in subject.info.dtypes:
        for p, off in rates.items():
            if dtype == first or 0.0005 < p < 0.95:
                dropped = ~subject.rows(Call(np.ones((ROWS, 1)), p, dtype))
                case = f"row, p={p}, {dtype}"
                yield rate(case, dropped, p, off)
                yield from places(case, dropped, p, PLACES[p]) if p in PLACES else ()
    grid = int((~subject.rows(Call(np.ones((ROWS, 1)), 2.0**-30, first))).sum())
    yield holds("row, p=2**-30", grid < 8, "none dropped, or as 2**-23", f"{grid} of {ROWS}")
    for p, calls, off in [] if exact(subject) else [(0.01, 2, 0.05), (0.001, 20, 0.05)]:
        call = Call(np.ones((HUGE, 1)), p, first)
        counts = [int((~subject.rows(replace(call, seed=seed))).sum()) for seed in range(calls)]
        yield likely(f"row, p={p}, {calls} seeds", sum(counts), calls * HUGE, p, off=off)
    for batch, p, calls, off in SMALL_BATCHES:
        call = Call(np.ones((batch, 2)), p)
        dropped = over_seeds(subject, call, number(subject, calls))
        yield likely(f"row, B={batch}, p={p}, row", dropped.sum(0), len(dropped), p, off=off)
    yield from rates_of_other_modes(subject)
    if "residual" in subject.info.claims:
        yield from rates_of_blocks(subject)


def places(case: str, dropped: Array, p: float, n: int) -> Results:
    """Hold the rates of n parts of a batch, and of the rows whose index is the same modulo n."""
    table = dropped[: dropped.size // n**2 * n**2].reshape(n, -1)
    yield likely(f"{case}, {n} parts, part", table.sum(1), table.shape[1], p)
    counts = table.reshape(-1, n).sum(0)
    yield likely(f"{case}, index modulo {n}, index", counts, table.shape[1], p)


def rates_of_other_modes(subject: Subject) -> Results:
    """Hold the rates in batch mode, and of each place in a group in balanced mode."""
    if "batch" in subject.info.claims:
        for p, calls, off in ((0.9, 4600, 0.05), (0.01, 9000, 1.2)):
            call = Call(np.ones((2, 2)), p, options=mode_options("batch"))
            dropped = over_seeds(subject, call, number(subject, calls))
            yield likely(f"batch, p={p}", int(dropped[:, 0].sum()), len(dropped), p, off=off)
    if "balanced" in subject.info.claims:
        cases = ((7, 0.9, 0.05), (3, 0.37, 0.05), (2, 0.05, 0.11), (1, 0.1, 0.05))
        for b, p, off in cases[:2] if exact(subject) else cases:
            for dtype in subject.info.dtypes if b == 3 else subject.info.dtypes[:1]:
                groups = (63_000 if exact(subject) else ROWS) // b
                call = Call(np.ones((groups * b, 1)), p, dtype, options=balanced(groups))
                dropped = ~subject.rows(call).reshape(-1, b)
                case = f"balanced, b={b}, p={p}, {dtype}, row"
                yield likely(case, dropped.sum(0), len(dropped), p, off=off)


def rates_of_blocks(subject: Subject) -> Results:
    """Hold the rates of residual blocks that draw by themselves."""
    many = 63_000 if exact(subject) else ROWS
    for mode in modes(subject):
        seeds, rows, p, off = (1300, 2, 0.9, 0.1) if mode == "batch" else (1, many, 0.37, 0.05)
        options = balanced(many // 7) if mode == "balanced" else mode_options(mode)
        call = Call(np.ones((rows, 1)), p, op="residual", options=options)
        seeds = min(seeds, 30) if exact(subject) else seeds
        masks = [residual_mask(subject, replace(call, seed=seed))[:, 0] for seed in range(seeds)]
        dropped = ~(np.stack(masks)[:, 0] if mode == "batch" else masks[0])
        yield likely(f"residual, {mode}, p={p}", int(dropped.sum()), dropped.size, p, off=off)


@check("MASK-5")
def rows_and_calls_are_independent(subject: Subject) -> Results:
    call = Call(np.ones((140_000, 1)), 0.37)
    masks = {seed: ~subject.rows(replace(call, seed=seed)) for seed in SEEDS}
    yield from within("one call", masks[0], (*LAGS, 70_000))
    for one, two in combinations(SEEDS, 2):
        yield together(f"seeds {one} and {two}", masks[one], masks[two])
    for one, two in ((0, 1), (1, 2), (0, 2)):
        yield from between(f"seeds {one} and {two}", masks[one], masks[two])
    yield from small_batches(subject)
    blocks = ["residual"] if "residual" in subject.info.claims else []
    for op in [] if "stateless" in subject.info.claims else ["drop_path", *blocks]:
        draw = replace(call, x=call.x[:30_000], op=op, seed=5)
        calls = [~mask_of(subject, each)[:, 0] for each in (draw, *[replace(draw, seed=None)] * 2)]
        for one, two in ((0, 1), (1, 2), (0, 2)):
            yield from between(f"{op}, calls {one} and {two}", calls[one], calls[two])
    if "recompute" in subject.info.claims and "stateless" not in subject.info.claims:
        yield from after_a_recomputed_call(subject, replace(call, x=call.x[:30_000]))
    if "batch" in subject.info.claims:
        yield from decisions_of_batches(subject)


def after_a_recomputed_call(subject: Subject, call: Call) -> Results:
    """Compare the mask of a call whose forward is run again with that of the next call."""
    seeded = replace(call, seed=5)
    subject.run(replace(seeded, dy=np.ones_like(call.x), recompute=True))
    later = ~subject.rows(replace(call, seed=None))
    yield from between("a call that is run again, and the next", ~subject.rows(seeded), later)


def small_batches(subject: Subject) -> Results:
    """Compare the rows of small batches, over many seeds and successive calls."""
    both = [over_seeds, successive][: 1 if "stateless" in subject.info.claims else 2]
    for batch, ways, many in ((2, both[:1], 10_200), (3, both[:1], 10_200), (65, both, 1300)):
        for way in ways:
            dropped = way(subject, Call(np.ones((batch, 2)), 0.37), number(subject, many))
            case = f"B={batch}, {way.__name__}"
            yield from within(case, dropped, [k for k in LAGS if 2 * k <= batch])
            if batch == 65:
                for k in (1, 2, 3):
                    yield together(f"{case}, {k} later,", *lag(dropped.T, k))
                one, two = dropped[0::2], dropped[1::2]
                yield together(f"{case}, next row one later,", one[:, :-1], two[:, 1:])
                yield together(f"{case}, row before one later,", one[:, 1:], two[:, :-1])
                yield spread(case, dropped)


def decisions_of_batches(subject: Subject) -> Results:
    """Compare the decisions of batch mode over seeds, and over successive calls."""
    for way in [over_seeds, successive][: 1 if "stateless" in subject.info.claims else 2]:
        call = Call(np.ones((9, 2)), 0.37, options=mode_options("batch"))
        dropped = way(subject, call, number(subject, 20_600))
        one, case = bool((dropped == dropped[:, :1]).all()), f"batch, {way.__name__}"
        yield holds(case, one, "one decision for all rows", "several")
        yield rate(case, dropped[:, 0], 0.37, off=0.09)
        for k in (1, 2, 3):
            yield together(f"{case}, {k} later,", *lag(dropped[:, 0], k))


@check("MASK-6", needs=("model",))
def layers_are_independent(subject: Subject) -> Results:
    keys: list[dict[str, Any]] = []
    if models_are_unkeyed(subject):
        keys += [{"seed": 0}, {"seed": 1}]
        keys += [{"seed": None}] if "stateless" not in subject.info.claims else []
    if "keyed" in subject.info.claims:
        keys += [{"seed": None, "key": key} for key in droppath.split(KEY, 2)]
    for rates in ([0.37] * 4, [0.0, 0.1, 0.37, 0.9]):
        call = Call(np.ones((50_000, 2)), rates, op="model")
        forwards = [subject.run(replace(call, **key)).y == 0 for key in keys]
        for f, layers in enumerate(forwards):
            yield from independent(f"rates {rates}, forward {f}, layers", rates, layers)
        for f, (now, later) in enumerate(pairwise(forwards)):
            for one, two in ((1, 1), (1, 2), (2, 1), (3, 3)):
                case = f"rates {rates}, layer {one} in forward {f}, {two} in {f + 1},"
                yield together(case, now[one], later[two])
    if "calls" in subject.info.claims:
        call = Call(np.ones((50_000, 2)), [0.1, 0.37], op="model", options={"calls": 2})
        layers = (subject.run(replace(call, **keys[-1])).y == 0).reshape(4, -1)
        yield from independent("each call of each layer", [0.1, 0.37] * 2, layers)


def independent(case: str, rates: list[float], layers: Array) -> Results:
    """Hold each layer's rate, and compare the rows of each two, also shifted by one."""
    for i, p in enumerate(rates):
        yield rate(f"{case} {i}", layers[i], p, off=0.13)
    for one, two in combinations([i for i, p in enumerate(rates) if p > 0], 2):
        yield together(f"{case} {one} and {two}", layers[one], layers[two])
        yield together(f"{case} {one} and {two}, next row", layers[one][:-1], layers[two][1:])
        yield together(f"{case} {one} and {two}, row before", layers[one][1:], layers[two][:-1])
