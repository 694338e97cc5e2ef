"""What the checks of DIST must reject."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import droppath
from conformance.mutant import (
    REFERENCE,
    Part,
    calling,
    compiling,
    is_skipping,
    mutant,
    words,
)
from conformance.protocol import Call, Outcome, joined, parts


def each_part(**changes: Callable[[Call, Call], Any]) -> Part:
    """Return a `run` whose parts of a call are changed: a function of the first part and a part."""

    def run(call: Call) -> Outcome:
        if call.shards == 1:
            return REFERENCE.run(call)
        split = [replace(part, shards=1) for part in parts(call)]
        given = [{name: new(split[0], part) for name, new in changes.items()} for part in split]
        outcomes = [
            REFERENCE.run(replace(part, **one)) for part, one in zip(split, given, strict=True)
        ]
        return joined(outcomes, call.options.get("axis", 0))

    return run


def per_sample_of_first(first: Call, part: Call) -> dict[str, Any]:
    """Return a part's options with the arguments of the first."""
    return {**part.options, "per_sample": first.options.get("per_sample", ())}


def from_0(first: Call, part: Call) -> dict[str, Any]:
    """Return a part's options with its offset within the batch of the call."""
    return {**part.options, "offset": part.options["offset"] - first.options["offset"]}


def unscaled(first: Call, part: Call) -> dict[str, Any]:
    """Return a part's options without a factor where x is of 16 bits, or of another axis."""
    wrong = part.dtype in ("float16", "bfloat16") or bool(part.options.get("axis"))
    return {**part.options, **({"scale_by_keep": False} if wrong else {})}


def at_0(call: Call) -> dict[str, Any]:
    """Return the options of a call without its offset."""
    return {name: value for name, value in call.options.items() if name != "offset"}


MUTANTS = (
    mutant(
        "the first part of x on all devices", "DIST-1", run=each_part(x=lambda first, _: first.x)
    ),
    mutant(
        "the first device's arguments on all", "DIST-1", run=each_part(options=per_sample_of_first)
    ),
    mutant(
        "the first device's keep on all", "DIST-1", run=each_part(keep=lambda first, _: first.keep)
    ),
    mutant("devices that begin at row 0", "DIST-1", run=each_part(options=from_0)),
    mutant("devices that do not scale 16 bits", "DIST-1", run=each_part(options=unscaled)),
    mutant(
        "devices that train in evaluation",
        "DIST-1",
        run=each_part(training=lambda _, part: True),
    ),
    mutant(
        "rows of large batches gathered from other devices",
        "DIST-2",
        **compiling(lambda c, o: replace(o, collectives=int(is_skipping(c) and len(c.x) > 32))),
    ),
    mutant(
        "a mask that depends on the number of devices",
        "DIST-1",
        run=calling(
            key=lambda c: (
                c.key
                if c.shards == 1 or c.keep is not None
                else droppath.fold_in(words(c), c.shards)
            )
        ),
    ),
    mutant(
        "rows gathered from other devices",
        "DIST-2",
        **compiling(lambda c, o: replace(o, collectives=int(is_skipping(c)))),
    ),
    mutant(
        "shards along another axis have the mask of the first",
        "DIST-1",
        run=lambda c: (
            joined(
                [REFERENCE.run(replace(part, options=at_0(part))) for part in parts(c)],
                c.options["axis"],
            )
            if c.shards > 1 and c.options.get("axis")
            else REFERENCE.run(c)
        ),
    ),
)
