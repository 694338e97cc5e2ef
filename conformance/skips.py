"""Which blocks the check of RES-4 runs with and without skip, and how many rows must run."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from conformance.blocks import (
    BLOCK_OF_AXIS,
    EXTREMES,
    SHAPES,
    axes,
    axis_options,
    block,
    by_row,
    residual_mask,
    some_kept,
    with_options,
)
from conformance.calls import modes, threshold
from conformance.check import Subject
from conformance.protocol import Array, Call


def drawn_and_given(subject: Subject) -> Iterator[tuple[str, Call, int]]:
    """Return blocks that may skip, with the number of their groups, and what they are called."""
    for mode in modes(subject):
        for seed in range(4 if mode == "batch" else 1):
            yield f"{mode}, seed={seed}", replace(block(0.6, mode), seed=seed), 1
        for shape in SHAPES if mode == "row" else SHAPES[1::2]:
            yield f"{mode}, {shape}", block(0.37, mode, shape), 1
        for p in (0.37, *EXTREMES) if mode != "batch" else (0.0, 1.0):
            yield mode, block(p, mode), 1
        for axis in axes(subject)[1:]:
            call = block(0.37, mode, BLOCK_OF_AXIS[axis], **axis_options(axis))
            yield f"{mode}, axis={axis}", call, 1
        for keep in given_masks(subject, mode):
            for p in (0.37, 1.0):
                call = replace(block(p, mode), keep=keep, seed=None)
                yield f"{mode}, given a mask", call, 1
    for groups, p in ((8, 0.37), (8, 1.0), (32, 0.37), (2, 0.0)):
        if "balanced" in subject.info.claims:
            yield f"{groups} groups", block(p, "balanced", groups=groups), groups
    for mode in modes(subject):
        call = replace(block(0.37, mode), training=False)
        yield f"{mode}, evaluation", call, 1
        for keep in given_masks(subject, mode)[:1]:
            yield f"{mode}, evaluation, given a mask", replace(call, keep=keep, seed=None), 1


def given_masks(subject: Subject, mode: str) -> list[Array]:
    """Return masks to be given for 32 rows, among them one that keeps few, and one that keeps none.

    In batch mode all rows have one decision.
    """
    if "keep" not in subject.info.claims:
        return []
    none = np.zeros(32, bool)
    return [~none, none] if mode == "batch" else [some_kept(32), ~some_kept(32), none]


def must_run(call: Call, kept: int, rows: int, groups: int, static: bool) -> tuple[int, ...]:
    """Return how many rows may run in a block that can skip, each number as good as the other."""
    mode, p = call.options.get("mode", "row"), call.drop_prob
    if not call.training:
        return (rows,)
    if mode == "batch":
        return (rows if kept else 0,)
    if mode == "row" or not static or not p:
        return (max(kept, 1),)
    capacity = rows - groups * (rows // groups * threshold(p) >> 23)
    return (capacity,) if capacity else (0, groups)


def number_is_static(subject: Subject) -> bool:
    """Return whether balanced mode runs kept_capacity rows: it must do one or the other always."""
    probe = block(0.37, "balanced", groups=8)  # 8 groups of 4, of which 2 or 3 are kept
    probes = [replace(probe, seed=seed) for seed in range(8)]  # all 3 in each: 0.52^64
    return any(rows_run(subject, call) != rows_kept(subject, call) for call in probes)


def rows_kept(subject: Subject, call: Call) -> int:
    """Return how many rows a block keeps, as it shows where nothing is skipped."""
    return int(by_row(call, residual_mask(subject, call, skip=False)).sum())


def rows_run(subject: Subject, call: Call) -> int | None:
    """Return how many rows the branch ran on."""
    return subject.run(with_options(replace(call, dy=None), skip=call.options.get("skip"))).ran
