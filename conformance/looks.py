"""Which residual calls the checks look at: modes, axes, dtypes, sizes, rates, phases, options.

Each dimension is gone through beside the defaults of the others, not with all of them: a fault
shows in one of these calls, and JAX compiles each operation for each shape and dtype.
"""

from collections.abc import Iterator
from dataclasses import replace
from itertools import cycle
from typing import Any

import numpy as np

from conformance.blocks import (
    BLOCK_OF_AXIS,
    EXTREMES,
    SHAPES,
    axes,
    axis_options,
    block,
    settings,
    some_kept,
)
from conformance.calls import RATES, modes
from conformance.check import Subject
from conformance.protocol import Call

GROUPS = (8, 32)  # of a block of 32 rows
Looks = Iterator[tuple[str, Call]]


def looks(subject: Subject) -> Looks:
    """Return residual calls of the branch `scaled`, each with dy, and what they are called."""
    yield from of_each_mode(subject)
    yield from of_each_size(subject)
    yield from of_each_setting(subject)
    if "keep" in subject.info.claims:
        yield from of_a_given_mask(subject)


def of_each_mode(subject: Subject) -> Looks:
    """Return calls of each mode and axis, in each dtype."""
    for mode in modes(subject):
        for dtype in subject.info.dtypes:
            for seed in seeds_of(mode)[: 6 if dtype == subject.info.dtypes[0] else 2]:
                call = replace(block(0.37, mode, dtype=dtype), seed=seed)
                yield f"{mode}, {dtype}, seed={seed}", call
    for mode, dtype in axis_dtypes(subject).items():
        for axis in axes(subject)[1:]:
            for seed in seeds_of(mode)[:2]:
                call = block(0.37, mode, BLOCK_OF_AXIS[axis], dtype, **axis_options(axis))
                yield f"{mode}, {dtype}, axis={axis}, seed={seed}", replace(call, seed=seed)
    if "balanced" in subject.info.claims:
        for groups in GROUPS:
            yield f"{groups} groups", block(0.37, "balanced", groups=groups)


def axis_dtypes(subject: Subject) -> dict[str, str]:
    """Return for each mode the dtype in which it is asked for another axis."""
    return dict(zip(modes(subject), cycle(reversed(subject.info.dtypes)), strict=False))


def seeds_of(mode: str) -> tuple[int, ...]:
    """Return the seeds of the calls of a mode: one decision a call needs several.

    Of those that are keys 3 drops the rows at 0.37, and 0 keeps them.
    """
    return (3, 0, 1, 2, 4, 5) if mode == "batch" else (0,)


def of_each_size(subject: Subject) -> Looks:
    """Return calls of each size and rank, and of each rate."""
    for shape in SHAPES:
        for p in (0.1, 0.9):
            yield f"{shape}, p={p}", block(p, "row", shape)
        if "balanced" in subject.info.claims and shape in SHAPES[1::2]:
            yield f"{shape}, balanced", block(0.37, "balanced", shape)
    for i, dtype in enumerate(subject.info.dtypes):
        for p in (0.9, EXTREMES[2]) if i else (*RATES, *EXTREMES):
            yield f"p={p}, {dtype}", block(p, "row", dtype=dtype)
    for mode in modes(subject)[1:]:
        for p in (0.02, *EXTREMES) if mode != "batch" else (0.02, 0.0, 1.0):
            yield f"{mode}, p={p}", block(p, mode)


def of_each_setting(subject: Subject) -> Looks:
    """Return calls of each phase and all options of the factor."""
    for i, (training, options) in enumerate(settings(subject)):
        for dtype in subject.info.dtypes:
            call = replace(block(0.37, "row", dtype=dtype, **options), training=training)
            yield f"training={training}, {dtype}, {options}", call
        for mode in modes(subject)[1:]:
            call = replace(block(0.37, mode, **options), training=training)
            yield f"training={training}, {mode}, {options}", call
        for axis in axes(subject)[1:] if i else ():
            given = {**options, **axis_options(axis)}
            call = replace(block(0.1, "row", BLOCK_OF_AXIS[axis], **given), training=training)
            yield f"training={training}, {given}", call
        if not training:
            for p in (0.0, 0.9, 1 - 2.0**-10, 1.0):
                call = replace(block(p, "row", **options), training=training)
                yield f"training={training}, p={p}, {options}", call


def of_a_given_mask(subject: Subject) -> Looks:
    """Return calls with a keep, which says what is dropped at every rate, and nothing outside."""
    for mode in modes(subject):
        masks = [np.ones(32, bool), np.zeros(32, bool)] if mode == "batch" else [some_kept(32)]
        for keep in masks:
            for p in (0.37, *EXTREMES) if mode != "batch" else (0.37, *EXTREMES[2:]):
                yield f"{mode}, {kept(keep)}, p={p}", replace(block(p, mode), keep=keep, seed=None)
    keep = some_kept(32)
    for training, options in settings(subject):
        for p in (0.37, 1.0):
            call = replace(block(p, "row", **options), training=training, keep=keep, seed=None)
            yield f"training={training}, {kept(keep)}, p={p}, {options}", call
    for axis in axes(subject)[1:]:
        call = block(0.37, "row", BLOCK_OF_AXIS[axis], **axis_options(axis))
        yield f"axis={axis}, {kept(keep)}", replace(call, keep=keep, seed=None)


def kept(keep: Any) -> str:
    """Return what a given mask is called."""
    return f"keep of {int(keep.sum())} rows"
