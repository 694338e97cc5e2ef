"""What the checks of KEY must reject."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

import droppath
from conformance.mutant import (
    REFERENCE,
    TWO_23,
    Part,
    calling,
    count,
    drawing,
    drawing_balanced,
    drops,
    mutant,
    op,
    overlooking,
    ranks,
    words,
)
from conformance.protocol import Array, Call


def swapped(key: Array, data: int) -> Array:
    """Return fold_in with the words of the counter swapped."""
    zero = np.zeros((), np.uint32)
    return np.stack(droppath.random.threefry2x32(key, np.asarray(data, np.uint32), zero), -1)


def of_calls(wrong: Callable[[Call, int, int], Array]) -> Part:
    """Return a `compute` with wrong keys for what a model calls: of call, layer and its call."""

    def compute(call: Call) -> Any:
        if call.op != "model" or "calls" not in call.options:
            return REFERENCE.compute(call)
        layers = [*enumerate(call.drop_prob)]
        times = range(call.options["calls"])
        return [[droppath.keep_mask(wrong(call, i, c), p, 32) for i, p in layers] for c in times]

    return compute


def at_offset(change: Callable[[Call, int], int]) -> Part:
    """Return a `run` with another offset where one is given; change: of call and offset."""

    def options(call: Call) -> dict[str, Any]:
        first = call.options.get("offset")
        moved = {"offset": change(call, first)} if isinstance(first, int) and first > 0 else {}
        return {**call.options, **moved}

    return calling(options=options)


def cut(call: Call, offset: int) -> int:
    """Return the lower 32 bits of an offset, in whole groups."""
    b = max(call.x.shape[call.options.get("axis", 0)] // call.options.get("groups", 1), 1)
    return offset % 2**32 // b * b if call.options.get("mode") == "balanced" else offset % 2**32


def by_threshold(threshold: Callable[[float], float]) -> Part:
    """Return a `draw` of rows with another T."""

    def draw(call: Call, batch: int) -> Array:
        bits = droppath.random_bits(words(call), batch, call.options.get("offset", 0))
        return (bits >> 9) >= threshold(call.drop_prob)

    return drawing(draw)


def with_key(change: Callable[[Call], Any]) -> Part:
    """Return a `run` with another key where two words are given."""
    return calling(key=lambda c: change(c) if np.shape(c.key) == (2,) and drops(c) else c.key)


def repeating(call: Call, batch: int) -> Array:
    """Return the mask of rows whose index is of 16 bits."""
    first = call.options.get("offset", 0)
    keep = droppath.keep_mask(words(call), call.drop_prob, min(batch, 2**16), offset=first)
    return np.resize(keep, batch)


def rest_in_float32(call: Call, group_size: int, groups: int) -> Array:
    """Return the balanced mask whose fraction of a row is formed in float32."""
    first = call.options.get("offset", 0)
    bits = droppath.random_bits(droppath.fold_in(words(call), 0), group_size * groups, first)
    rank = bits.reshape(groups, group_size).argsort(1).argsort(1)
    up = droppath.random_bits(droppath.fold_in(words(call), 1), groups, first // group_size) >> 9
    scaled = np.float32(group_size) * np.float32(call.drop_prob)
    whole = np.floor(scaled)
    dropped = whole + (up < np.ceil((scaled - whole) * np.float32(TWO_23)))
    return rank < (group_size - dropped)[:, None]


def of_those_that_drop(call: Call) -> Any:
    """Return the masks of a model whose layers are counted without those of rate 0."""
    if call.op != "model" or call.key is None or "calls" in call.options:
        return REFERENCE.compute(call)
    places = np.cumsum([p > 0 for p in call.drop_prob]) - 1
    keys = [droppath.fold_in(call.key, max(int(place), 0)) for place in places]
    pairs = zip(keys, call.drop_prob, strict=True)
    return [droppath.keep_mask(key, p, len(call.x)) for key, p in pairs]


def without_carry(key: Array, num: int, offset: int = 0) -> Array:
    """Return random_bits whose low word does not carry into the high one."""
    low = (np.arange(num) + (offset & 0xFFFFFFFF)) % 2**32
    high = np.full(num, offset >> 32, np.uint32)
    y0, y1 = droppath.random.threefry2x32(key[None], high, low.astype(np.uint32))
    return y0 ^ y1


MUTANTS = (
    mutant("offset cut to 32 bits", "KEY-2 KEY-4", run=at_offset(cut)),
    mutant(
        "offset in float64",
        "KEY-2",
        run=at_offset(lambda c, o: o if "mode" in c.options else min(int(float(o)), 2**64 - 64)),
    ),
    mutant(
        "offset only along axis 0",
        "KEY-2 KEY-4 KEY-6",
        run=at_offset(lambda c, o: 0 if c.options.get("axis") else o),
    ),
    mutant(
        "offset of a block ignored",
        "KEY-2",
        run=at_offset(lambda c, o: 0 if c.op == "residual" else o),
    ),
    mutant("one row is row 0", "KEY-6", run=at_offset(lambda c, o: 0 if len(c.x) == 1 else o)),
    mutant("T in float64", "KEY-2", draw=by_threshold(lambda p: math.ceil(p * TWO_23))),
    mutant(
        "T rounded to nearest",
        "KEY-2",
        draw=by_threshold(lambda p: round(float(np.float32(p)) * TWO_23)),
    ),
    mutant("T rounded down", "KEY-2", draw=by_threshold(lambda p: int(np.float32(p) * TWO_23))),
    mutant(
        "T is at least 1",
        "KEY-2",
        draw=by_threshold(lambda p: max(1, math.ceil(float(np.float32(p)) * TWO_23))),
    ),
    mutant(
        "T is at most 2^23 - 1",
        "KEY-2",
        draw=by_threshold(lambda p: min(TWO_23 - 1, math.ceil(float(np.float32(p)) * TWO_23))),
    ),
    mutant(
        "rates below 1e-3 are 0",
        "KEY-2 KEY-3 KEY-4",
        run=calling(drop_prob=lambda c: 0.0 if drops(c) and c.drop_prob < 1e-3 else c.drop_prob),
    ),
    mutant("words of 31 bits", "KEY-2", run=with_key(lambda c: c.key & 0x7FFFFFFF)),
    mutant(
        "only the second word", "KEY-2", run=with_key(lambda c: c.key * np.array([0, 1], np.uint32))
    ),
    mutant(
        "another mask in half precision",
        "KEY-2",
        run=with_key(lambda c: c.key if c.dtype != "float16" else droppath.fold_in(c.key, 16)),
    ),
    mutant(
        "another mask with a gradient",
        "KEY-2 KEY-4",
        run=with_key(lambda c: c.key if c.dy is None else droppath.fold_in(c.key, 1)),
    ),
    mutant(
        "rows from 2^16 on repeat",
        "KEY-2",
        draw=drawing(repeating),
    ),
    mutant("the fraction of a row in float32", "KEY-4", draw=drawing_balanced(rest_in_float32)),
    mutant("layers of rate 0 are not counted", "KEY-7", compute=of_those_that_drop),
    mutant("no carry between the words", "KEY-1", compute=op("random_bits", without_carry)),
    mutant(
        "all calls from the third on share a mask",
        "KEY-8",
        compute=of_calls(
            lambda call, layer, c: (
                droppath.fold_in(droppath.fold_in(call.key, layer), min(c, 2) + 1)
                if c
                else droppath.fold_in(call.key, layer)
            )
        ),
    ),
    mutant(
        "one mask for every key",
        "KEY-2 KEY-7",
        run=calling(
            key=lambda c: c.key if c.key is None or np.shape(c.key) != (2,) else droppath.key(0)
        ),
    ),
    mutant("counter's words swapped", "KEY-1", compute=op("fold_in", swapped)),
    mutant(
        "a mask of another p is another mask",
        "KEY-5",
        draw=lambda c, x: (
            REFERENCE.draw(replace(c, key=droppath.fold_in(words(c), int(c.drop_prob * 1000))), x)
            if drops(c)
            else REFERENCE.draw(c, x)
        ),
    ),
    mutant(
        "offset ignored",
        "KEY-2 KEY-6",
        run=overlooking("offset"),
    ),
    mutant(
        "one key for all layers",
        "KEY-7",
        compute=lambda c: (
            [droppath.keep_mask(c.key, p, len(c.x)) for p in c.drop_prob]
            if c.op == "model"
            else REFERENCE.compute(c)
        ),
    ),
    mutant(
        "a layer's calls share one mask",
        "KEY-8",
        compute=of_calls(lambda call, layer, c: droppath.fold_in(call.key, layer)),
    ),
    mutant(
        "a layer's calls count as layers",
        "KEY-8",
        compute=of_calls(
            lambda call, layer, c: droppath.fold_in(call.key, layer + c * len(call.drop_prob))
        ),
    ),
    mutant(
        "call c folds in c, as balanced masks do",
        "KEY-8",
        compute=of_calls(
            lambda call, layer, c: (
                droppath.fold_in(droppath.fold_in(call.key, layer), c)
                if c
                else droppath.fold_in(call.key, layer)
            )
        ),
    ),
    mutant(
        "keeps the largest words",
        "KEY-4",
        draw=drawing_balanced(lambda c, b, g: ranks(c, b, g) >= count(c, b, g)),
    ),
    mutant(
        "an offset of 32 bits along another axis",
        "KEY-6",
        run=calling(
            options=lambda c: {
                k: v % 2**32 if k == "offset" and c.options.get("axis") else v
                for k, v in c.options.items()
            }
        ),
    ),
)
