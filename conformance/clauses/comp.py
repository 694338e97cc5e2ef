"""COMP: a compiled program draws as the eager call does; keys and rates are its data."""

from dataclasses import replace

import numpy as np

import droppath
from conformance.blocks import BLOCK, block, same_call, with_claimed
from conformance.calls import KEY, forms, mode_options, modes
from conformance.check import Finding, Results, Subject, check, equal, holds
from conformance.numerics import sample
from conformance.protocol import Call, Outcome


@check("COMP-1", needs=("compile", "keyed"))
def compiled_is_eager(subject: Subject) -> Results:
    for mode in modes(subject):
        for dtype in subject.info.dtypes if mode == "row" else subject.info.dtypes[-1:]:
            made = replace(block(0.37, mode, dtype=dtype), key=KEY)
            plain = replace(made, op="drop_path", options=mode_options(mode))
            for call in (plain, made) if "residual" in subject.info.claims else (plain,):
                one = with_claimed(subject, call)
                case = f"{call.op}, {mode}, {dtype}"
                yield from same_call(subject, case, one, replace(one, compiled=True))


@check("COMP-2", needs=("compile", "keyed"))
def another_key_is_data(subject: Subject) -> Results:
    for mode in modes(subject):
        for call in forms(subject, Call(np.ones(BLOCK), 0.37, options=mode_options(mode))):
            masks = set()
            for i, key in enumerate(droppath.split(KEY, 6)):
                case = f"{call.op}, {mode}, key {i}"
                outcome = subject.run(replace(call, key=key, compiled=True))
                want = subject.run(replace(call, key=key)).y
                yield equal(case, want, outcome.y, "float32")
                if i:
                    yield not_built(case, outcome)
                masks.add(outcome.y.tobytes())
            yield holds(f"{call.op}, {mode}", len(masks) > 1, "several masks", "one")


def not_built(case: str, outcome: Outcome) -> Finding | None:
    """Return a finding unless the outcome came from a program that was there."""
    got = "cannot be told" if outcome.built is None else "another program"
    return holds(case, outcome.built is False, "the same program", got)


# Exact in float32, so that a rate loses nothing on its way to the program.
DATA = (0.0, 0.125, 0.375, 0.875, 1.0)


@check("COMP-3", needs=("scan", "keyed"))
def rates_are_data(subject: Subject) -> Results:
    for dtype in subject.info.dtypes:
        x = sample(BLOCK, dtype)
        for rates in (DATA, DATA[::-1]):
            outcome = subject.run(Call(x, list(rates), dtype, "layers", key=KEY))
            calls = [
                Call(x, p, dtype, key=droppath.fold_in(KEY, layer)) for layer, p in enumerate(rates)
            ]
            want, case = np.stack([subject.run(call).y for call in calls]), f"{rates}, {dtype}"
            yield equal(f"{case}, masks", (want != 0) * 1.0, (outcome.y != 0) * 1.0, "float32")
            yield equal(case, want, outcome.y, dtype, 4)
        if "compile" in subject.info.claims:
            yield not_built(f"other rates, {dtype}", outcome)


@check("COMP-4", needs=("vmap", "keyed"))
def mapped_is_alone(subject: Subject) -> Results:
    keys = droppath.split(KEY, 5)
    for mode in modes(subject):
        for dtype in subject.info.dtypes:
            call = Call(sample((5, *BLOCK), dtype), 0.37, dtype, options=mode_options(mode))
            got = subject.run(replace(call, op="mapped", key=keys)).y
            pairs = zip(call.x, keys, strict=True)
            want = [subject.run(replace(call, x=x, key=key)).y for x, key in pairs]
            yield equal(f"{mode}, {dtype}", np.stack(want), got, dtype)
