"""What the checks of KEY must reject."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

import droppath
from conformance.mutant import (
    REFERENCE,
    Part,
    calling,
    count,
    drawing_balanced,
    drops,
    mutant,
    op,
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


MUTANTS = (
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
        run=calling(options=lambda c: {k: v for k, v in c.options.items() if k != "offset"}),
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
)
