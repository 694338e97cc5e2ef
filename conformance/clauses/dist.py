"""DIST: the number of devices changes nothing."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

from conformance.blocks import (
    BLOCK_OF_AXIS,
    axes,
    axis_options,
    block,
    plain_and_block,
    same_call,
    some_kept,
    with_claimed,
)
from conformance.calls import KEY, modes
from conformance.check import Finding, Results, Subject, check, holds, told
from conformance.looks import axis_dtypes
from conformance.protocol import Call


@check("DIST-1", needs=("shard", "keyed"))
def shards_change_nothing(subject: Subject) -> Results:
    for case, made, numbers in spread_blocks(subject):
        for call in plain_and_block(subject, made):
            for shards in numbers:
                what = f"{call.op}, {case}, {shards} shards"
                yield from same_call(subject, what, call, replace(call, shards=shards))


def spread_blocks(subject: Subject) -> Iterator[tuple[str, Call, tuple[int, ...]]]:
    """Return blocks, what they are called, and over how many devices each is spread."""
    for mode in modes(subject):
        eight: dict[str, Any] = {"groups": 8} if mode == "balanced" else {}
        dtypes = dict.fromkeys((axis_dtypes(subject)[mode], *subject.info.dtypes))
        for i, dtype in enumerate(dtypes if mode == "row" else [*dtypes][:1]):
            call = with_claimed(subject, replace(block(0.37, mode, dtype=dtype, **eight), key=KEY))
            yield f"{mode}, {dtype}", call, (4,) if i else (2, 8)
        call = replace(block(0.37, mode, **eight), key=KEY, dy=None)
        for first in (32, 2**32 - 16):
            moved = replace(block(0.37, mode, offset=first, **eight), key=KEY, dy=None)
            yield f"{mode}, offset={first}", moved, (4,)
        for p in (0.0, 0.9, 1.0) if mode == "row" else (1.0,):
            yield f"{mode}, p={p}", replace(call, drop_prob=p), (8,)
        yield f"{mode}, evaluation", replace(call, training=False), (4,)
        if "keep" in subject.info.claims:
            keep = some_kept(32) | (mode == "batch")
            given = replace(call, keep=keep, key=None, seed=None)
            yield f"{mode}, a keep", given, (4,)
        for axis in axes(subject)[1:]:
            options = {**eight, **axis_options(axis)}
            made = replace(block(0.37, mode, BLOCK_OF_AXIS[axis], **options), key=KEY)
            yield f"{mode}, axis={axis}", with_claimed(subject, made), (4,)


@check("DIST-2", needs=("collectives", "skip", "balanced", "keyed"))
def skipping_is_silent(subject: Subject) -> Results:
    for shape, groups, shards in (((32, 5), 8, 2), ((32, 5), 8, 8), ((64, 33), 16, 8)):
        call = with_claimed(
            subject, replace(block(0.37, "balanced", shape, groups=groups), key=KEY)
        )
        skips, dense = (
            subject.run(replace(call, shards=shards, options={**call.options, "skip": skip}))
            for skip in (True, False)
        )
        got, most = skips.collectives, dense.collectives
        both = None if got is None or most is None else (got, most)
        yield told("collectives", both, partial(at_most, f"{shards} shards, {groups} groups"))


def at_most(case: str, both: tuple[int, int]) -> Finding | None:
    """Return a finding if a program that skips holds more collectives than one that does not."""
    got, most = both
    return holds(case, got <= most, f"at most {most} collectives", got)
