"""MASK: what is dropped, and how often; by statistics, since no key is asked for."""

from dataclasses import replace

import numpy as np

from conformance.calls import balanced
from conformance.check import Results, Subject, check, equal, holds, likely
from conformance.numerics import sample
from conformance.protocol import Call


@check("MASK-1")
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


@check("MASK-2")
def ranks_and_batches_work(subject: Subject) -> Results:
    for rank in range(1, 7):
        for batch in (0, 1, 2, 4):
            x = np.ones((batch, 2, 1, 3, 2, 1)[:rank])
            y = subject.run(Call(x, 0.37)).y
            yield holds(f"x of {x.shape}", y.shape == x.shape, f"shape {x.shape}", y.shape)


@check("MASK-3")
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


@check("MASK-4")
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


@check("MASK-5")
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
