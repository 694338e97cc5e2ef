"""KEY: a key draws exactly these words and these masks."""

from dataclasses import replace
from itertools import cycle
from typing import Any

import numpy as np

import droppath
from conformance.calls import KEY, mode_options, modes
from conformance.check import Results, Subject, check, equal, told
from conformance.masks import (
    KEYS,
    LEAST_RATES,
    MOST_RATES,
    OFFSETS,
    RATES,
    ROW_OF_0,
    ROW_OF_MOST,
    SEED_OF_0,
    SEED_OF_MOST,
    SIZES,
    UP_OF_0,
    UP_OF_MOST,
    beside,
    beside_rest,
    exact,
    masked,
    same,
)
from conformance.numerics import sample
from conformance.protocol import Array, Call

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


@check("KEY-1", needs=("random",))
def known_answers(subject: Subject) -> Results:
    for op, options, want in KNOWN:
        got = subject.run(Call(op=op, options=options)).y
        yield equal(f"{op} {options}", np.array(want, np.float64), got, "float64")
    calls: list[tuple[str, dict[str, Any]]] = [
        ("key", {"seed": seed}) for seed in (0, 1, 2**16, 2**31, 2**32 - 2)
    ]
    for key in KEYS:
        calls += [("fold_in", {"key": key, "data": i}) for i in (0, 1, 2**31, 2**32 - 1)]
        calls += [("split", {"key": key, "num": num}) for num in (0, 1, 100)]
        calls += [("random_bits", {"key": key, "num": num}) for num in (0, 1, 5, 1000)]
        calls += [("random_bits", {"key": key, "num": 64, "offset": first}) for first in OFFSETS]
    for op, options in calls:
        want = getattr(droppath, op)(**options).astype(np.float64)
        got = subject.run(Call(op=op, options=options)).y
        yield equal(f"{op} {options}", want, got, "float64")


def of_all_sizes(subject: Subject, mode: str) -> Results:
    """Yield the masks of batches of all sizes, from keys of several kinds, at three rates."""
    for batch, p in zip(SIZES, cycle((0.37, 0.1, 0.9))):
        for key in KEYS:
            yield from exact(subject, masked(batch, p, mode, key), residual=batch in (3, 64))


def of_other_forms(subject: Subject, mode: str) -> Results:
    """Yield the masks in every rank, along other axes, in every dtype, and with a gradient."""
    groups = {"groups": 8} if mode == "balanced" else {}
    mine = {**mode_options(mode), **groups, "offset": 2**33}
    for rank in range(1, 7):
        shape = (64, 2, 1, 3, 1, 2)[:rank]
        yield from exact(subject, Call(np.ones(shape), 0.37, key=KEYS[1], options=mine))
    for shape, axis in (((3, 64), 1), ((2, 3, 64), -1), ((2, 64, 3), -2)):
        if "axis" in subject.info.claims:
            call = Call(np.ones(shape), 0.37, key=KEYS[1], options={**mine, "axis": axis})
            yield from exact(subject, call, residual=axis == -2)
    for dtype in subject.info.dtypes:
        for p in (0.37, 1e-4):
            call = Call(np.ones((64, 2)), p, dtype, key=KEYS[1], options=mine)
            yield from exact(subject, call, f"{dtype}, ", residual=mode == "row")
        x = sample((64, 2), dtype)  # no element is 0
        for dy in (None, x) if "gradient" in subject.info.claims else (None,):
            call = Call(x, 0.37, dtype, key=KEYS[1], dy=dy, options=mine)
            want, outcome = subject.keep(call), subject.run(call)
            case = f"{dtype}, x is 3 sin, {'with a gradient' if dy is x else mode}"
            yield same(case, want, outcome.y != 0)
            if dy is not None:
                yield told("dx", outcome.dx, mask_is(f"dx, {case}", want))


def mask_is(case: str, want: Array) -> Any:
    """Return what finds a gradient of another mask."""
    return lambda dx: same(case, want, dx != 0)


@check("KEY-2", needs=("keyed",))
def row_draw(subject: Subject) -> Results:
    yield from of_all_sizes(subject, "row")
    yield from of_other_forms(subject, "row")
    for offset in OFFSETS:
        for key in KEYS[:3]:
            call = masked(64, 0.37, "row", key, offset=offset)
            yield from exact(subject, call, residual=key is KEY)
    draws = np.sort(droppath.random_bits(KEY, 64) >> 9)
    for p in (*RATES, *(p for draw in draws[[0, 20, -1]] for p in beside(int(draw)))):
        yield from exact(subject, masked(64, p, "row"))
    for first, rates in ((ROW_OF_0, LEAST_RATES), (ROW_OF_MOST, MOST_RATES)):
        for p in rates:
            yield from exact(subject, masked(8, p, "row", offset=first - 3), residual=True)


@check("KEY-3", needs=("keyed", "batch"))
def batch_draw(subject: Subject) -> Results:
    yield from of_all_sizes(subject, "batch")
    yield from of_other_forms(subject, "batch")
    for offset in OFFSETS:  # which changes nothing
        for key in droppath.split(KEY, 6):
            yield from exact(subject, masked(64, 0.37, "batch", key, offset=offset))
    for p in (*RATES, *beside(int(droppath.random_bits(KEY, 1)[0] >> 9))):
        for key in KEYS:
            yield from exact(subject, masked(8, p, "batch", key))
    for seed, rates in ((SEED_OF_0, LEAST_RATES), (SEED_OF_MOST, MOST_RATES)):
        for p in rates:
            call = masked(8, p, "batch", droppath.key(seed))
            yield from exact(subject, call, residual=True)


# (batch, groups), with groups of 1, 2, 3, 4, 7, 8, 13, 64 rows and more.
GROUPED = (
    *((0, 1), (1, 1), (2, 1), (3, 1), (7, 7), (7, 1), (8, 2), (64, 8), (65, 5), (128, 2)),
    *((257, 1), (4097, 1), (70_000, 7)),
)


@check("KEY-4", needs=("keyed", "balanced"))
def balanced_draw(subject: Subject) -> Results:
    rates, keys = cycle((0.37, 0.1, 0.9, 1 / 3, 0.001)), cycle(KEYS)
    for batch, groups in GROUPED:
        b = max(batch // groups, 1)
        for first in (0, b, *(limit // b * b for limit in (2**32, 2**33 + 7, 2**63 - b))):
            call = masked(batch, next(rates), "balanced", next(keys), groups, first)
            yield from exact(subject, call, residual=batch in (8, 65) and first >= 2**33)
        if batch:
            ups = droppath.random_bits(droppath.fold_in(KEY, 1), groups) >> 9
            for p in (*beside_rest(int(ups[0]), b), *beside_rest(int(ups[-1]), b)):
                yield from exact(subject, masked(batch, p, "balanced", KEY, groups))
    for offset in OFFSETS:
        call = masked(64, 0.37, "balanced", KEYS[2], 8, offset // 8 * 8)
        yield from exact(subject, call)
    for p in RATES:
        yield from exact(subject, masked(65, p, "balanced", KEY, 5))
    for first, some in ((UP_OF_0, LEAST_RATES), (UP_OF_MOST, MOST_RATES)):
        for p in some:  # of groups of one row
            yield from exact(subject, masked(8, p, "balanced", KEY, 8, first - 3))
    yield from of_other_forms(subject, "balanced")


@check("KEY-5", needs=("keyed",))
def smaller_rates_drop_less(subject: Subject) -> Results:
    finer = [i / 40 for i in range(1, 40)]
    rates = sorted((0.0, 1e-9, 1e-4, 0.001, 0.01, 0.37, *finer, 0.999, 1 - 2**-12, 1.0))
    for mode in [mode for mode in modes(subject) if mode != "balanced"]:
        for key in KEYS[:2] if mode == "row" else KEYS:
            before = np.zeros((512, 2), bool)
            for p in rates:
                dropped = ~subject.keep(masked(512, p, mode, key, offset=7))
                case = f"{mode}, p={p}, key={key.tolist()}: dropped here or at a smaller rate"
                yield same(case, dropped | before, dropped)
                before = dropped


@check("KEY-6", needs=("keyed",))
def shards_get_their_slice(subject: Subject) -> Results:
    rows = ((0, 1), (1, 64), (64, 1), (58, 7), (57, 8), (33, 3), (11, 2))
    for mode in [mode for mode in modes(subject) if mode != "balanced"]:
        yield from slices(subject, mode, 65, 1, rows)
    if "balanced" in subject.info.claims:
        yield from slices(subject, "balanced", 64, 8, tuple((i, 8) for i in range(0, 64, 8)))
        yield from slices(subject, "balanced", 128, 64, ((0, 64), (64, 64)))
        yield from slices(subject, "balanced", 8, 1, ((0, 1), (7, 1), (1, 7), (3, 3), (2, 2)))


def slices(
    subject: Subject, mode: str, batch: int, group_size: int, parts: tuple[tuple[int, int], ...]
) -> Results:
    """Yield the comparison of parts, each (offset, rows), with the mask of the whole batch."""
    for first in (0, 2**32 - 64, 2**33 + 64):
        whole = slice_of(subject, mode, group_size, first, batch)
        for offset, n in parts:
            got = slice_of(subject, mode, group_size, first + offset, n)
            case = f"{mode}, {n} rows at {first} + {offset}, groups of {group_size}"
            yield same(case, whole[offset : offset + n], got)
            if "axis" in subject.info.claims and first and n in (8, 64):
                got = slice_of(subject, mode, group_size, first + offset, n, axis=1)
                yield same(f"axis 1, {case}", whole[offset : offset + n], got)


def slice_of(
    subject: Subject, mode: str, group_size: int, offset: int, batch: int, axis: int = 0
) -> Array:
    """Return the mask of rows offset to offset + batch: bool [batch]."""
    groups = batch // group_size if mode == "balanced" else 1
    call = masked(batch, 0.37, mode, KEYS[1], groups, offset)
    if axis:
        call = replace(call, x=call.x.T, options={**call.options, "axis": 1})
    return subject.keep(call).take(0, 1 - axis)


# Rates that begin at 0, are alike, or fall; of one layer and of many; with 0 and 1 among them.
MODELS = (
    *(droppath.drop_path_rates(0.5, 6, rule="paper"), droppath.drop_path_rates(0.5, 6)),
    *([0.3] * 5, [0.9, 0.5, 0.2, 0.1, 0.0], [0.37], [0.0], [1.0], [0.0, 0.5, 0.0, 0.5, 1.0, 0.5]),
    *([0.5, 0.5], droppath.drop_path_rates(0.9, 24), [0.001] * 3),
)


@check("KEY-7", needs=("model", "keyed"))
def layers_fold_in_their_index(subject: Subject) -> Results:
    for rates in MODELS:
        for step_index, batch in ((0, 32), (7, 32), (2**32 - 1, 7), (1, 1)):
            key = droppath.fold_in(KEY, step_index)
            got = subject.run(Call(np.ones((batch, 2)), rates, op="model", key=key)).y
            want = of_layers(key, rates, batch)
            yield equal(f"rates {rates}, step {step_index}, B={batch}", want, got, "float32")


@check("KEY-8", needs=("model", "calls", "keyed"))
def calls_fold_in_their_number(subject: Subject) -> Results:
    for rates in MODELS:
        for calls in (1, 2, 3, 5):
            call = Call(np.ones((32, 2)), rates, op="model", key=KEY, options={"calls": calls})
            want = np.stack([of_layers(KEY, rates, 32, c) for c in range(calls)])
            yield equal(f"rates {rates}, {calls} calls", want, subject.run(call).y, "float32")


def of_layers(key: Array, rates: list[float], batch: int, c: int = 0) -> Array:
    """Return the masks of call c of a model's layers, 1 where kept: float64 [L, B]."""
    keys = [droppath.fold_in(key, layer) for layer in range(len(rates))]
    keys = [droppath.fold_in(first, c + 1) if c else first for first in keys]
    masks = [droppath.keep_mask(k, p, batch) for k, p in zip(keys, rates, strict=True)]
    return np.stack(masks) * 1.0
