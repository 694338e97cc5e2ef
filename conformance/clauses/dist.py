"""DIST: the number of devices changes nothing."""

from dataclasses import replace
from typing import Any

from conformance.blocks import block, same_call, with_claimed
from conformance.calls import KEY, mode_options, modes
from conformance.check import Results, Subject, check, holds


@check("DIST-1", needs=("shard", "keyed"))
def shards_change_nothing(subject: Subject) -> Results:
    for mode in modes(subject):
        options: dict[str, Any] = {"groups": 8} if mode == "balanced" else {}
        made = replace(block(0.37, mode, **options), key=KEY)
        plain = replace(made, op="drop_path", options={**mode_options(mode), **options})
        for call in (plain, made) if "residual" in subject.info.claims else (plain,):
            for shards in (2, 4, 8):
                one = with_claimed(subject, call)
                case = f"{call.op}, {mode}, {shards} shards"
                yield from same_call(subject, case, one, replace(one, shards=shards))


@check("DIST-2", needs=("collectives", "skip", "balanced", "keyed"))
def skipping_is_silent(subject: Subject) -> Results:
    for shards in (2, 8):
        call = with_claimed(subject, replace(block(0.37, "balanced", groups=8), key=KEY))
        skips, dense = (
            subject.run(replace(call, shards=shards, options={**call.options, "skip": skip}))
            for skip in (True, False)
        )
        got, most = skips.collectives, dense.collectives
        less = got is not None and most is not None and got <= most
        yield holds(f"{shards} shards", less, f"at most {most} collectives", got)
