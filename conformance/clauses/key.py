"""KEY: a key draws exactly these words and these masks."""

from typing import Any

import numpy as np

import droppath
from conformance.blocks import residual_mask
from conformance.calls import KEY, modes
from conformance.check import Results, Subject, check, equal, holds
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


@check("KEY-2", needs=("keyed",))
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
    """Yield the decisions: a row is kept if T equals its draw, and dropped if T is one larger."""
    draw23 = int(droppath.random_bits(KEY, 1)[0]) >> 9
    for above in (0, 1):
        p = (draw23 + above) / 2**23  # exact in float32
        keep = subject.rows(Call(np.ones((1, 2)), p, key=KEY, options={"mode": mode}))
        want = "a row dropped" if above else "a row kept"
        yield holds(f"draw {draw23}, T={draw23 + above}", bool(keep[0]) != bool(above), want, keep)


@check("KEY-3", needs=("keyed", "batch"))
def batch_draw(subject: Subject) -> Results:
    yield from exact_masks(subject, "batch", ((0, 1, 0), (1, 1, 0), (7, 1, 3), (8, 1, FAR)))
    yield from at_the_threshold(subject, "batch")


@check("KEY-4", needs=("keyed", "balanced"))
def balanced_draw(subject: Subject) -> Results:
    few = ((0, 1, 0), (1, 1, 0), (2, 1, 2), (3, 1, 0), (8, 2, 4), (8, 1, 2**32 - 8))
    yield from exact_masks(subject, "balanced", (*few, (4097, 1, 0), (4096, 64, 64)))


@check("KEY-5", needs=("keyed",))
def smaller_rates_drop_less(subject: Subject) -> Results:
    for mode in [mode for mode in modes(subject) if mode != "balanced"]:
        before = np.zeros(512, bool)
        for p in (0.001, 0.01, 0.1, 0.37, 0.9):
            options = {"mode": mode}
            dropped = ~subject.rows(Call(np.ones((512, 2)), p, key=KEY, options=options))
            yield holds(f"{mode}, p={p}", not (before & ~dropped).any(), "a superset", "a row kept")
            before = dropped


@check("KEY-6", needs=("keyed",))
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


@check("KEY-7", needs=("model",))
def layers_fold_in_their_index(subject: Subject) -> Results:
    rates = droppath.drop_path_rates(0.5, 6, rule="paper")
    for step_index in (0, 7):
        key = droppath.fold_in(KEY, step_index)
        got = subject.run(Call(np.ones((32, 2)), rates, op="model", key=key)).y
        layers = [droppath.fold_in(key, layer) for layer in range(6)]
        want = [droppath.keep_mask(k, p, 32) for k, p in zip(layers, rates, strict=True)]
        yield equal(f"step {step_index}", np.stack(want) * 1.0, got, "float32")


@check("KEY-8", needs=("model", "calls"))
def calls_fold_in_their_number(subject: Subject) -> Results:
    rates = droppath.drop_path_rates(0.5, 4, rule="paper")
    for calls in (1, 3):
        call = Call(np.ones((32, 2)), rates, op="model", key=KEY, options={"calls": calls})
        want = [[of_call(layer, c, p) for layer, p in enumerate(rates)] for c in range(calls)]
        yield equal(f"{calls} calls", np.array(want) * 1.0, subject.run(call).y, "float32")


def of_call(layer: int, c: int, p: float) -> Array:
    """Return the mask of call c of a layer: bool [32]."""
    first = droppath.fold_in(KEY, layer)
    return droppath.keep_mask(droppath.fold_in(first, c + 1) if c else first, p, 32)
