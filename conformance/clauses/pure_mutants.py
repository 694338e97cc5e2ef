"""What the checks of PURE must reject."""

from dataclasses import replace

import numpy as np

from conformance.mutant import REFERENCE, Part, answering, calling, mutant
from conformance.protocol import Call, Outcome


def key_of_the_call_before() -> Part:
    """Return a `run` that draws from the key that the last call of as many rows had."""
    last: dict[int, object] = {}

    def run(call: Call) -> Outcome:
        if call.key is None or np.shape(call.key) != (2,):
            return REFERENCE.run(call)
        rows = call.x.shape[call.options.get("axis", 0)]
        key, last[rows] = last.get(rows, call.key), call.key
        return REFERENCE.run(replace(call, key=key))

    return run


MUTANTS = (
    mutant("modifies x", "PURE-1", run=answering(x_after=lambda c, o: o.y)),
    mutant(
        "a block adds in place",
        "PURE-1",
        run=answering(x_after=lambda c, o: o.y if c.op == "residual" else o.x_after),
    ),
    mutant(
        "modifies x in bfloat16",
        "PURE-1",
        run=answering(x_after=lambda c, o: o.y if c.dtype == "bfloat16" else o.x_after),
    ),
    mutant(
        "modifies x where gradients are wanted",
        "PURE-1",
        run=answering(x_after=lambda c, o: o.x_after if c.dy is None else o.y),
    ),
    mutant(
        "replaces NaN in x",
        "PURE-1",
        run=answering(
            x_after=lambda c, o: (
                None if o.x_after is None else np.nan_to_num(o.x_after, posinf=np.inf)
            )
        ),
    ),
    mutant("moves the global state", "PURE-2", run=answering(drew=lambda c, o: c.key is not None)),
    mutant(
        "a block with a key moves the global state",
        "PURE-2",
        run=answering(drew=lambda c, o: c.key is not None and c.op == "residual"),
    ),
    mutant(
        "the backward of a keyed call draws",
        "PURE-2",
        run=answering(drew=lambda c, o: c.key is not None and c.dy is not None),
    ),
    mutant("a state left by the call before", "PURE-2", run=key_of_the_call_before()),
    mutant(
        "draws although a keep is given",
        "PURE-3",
        run=answering(drew=lambda c, o: c.keep is not None),
    ),
    mutant(
        "a block draws although a keep is given",
        "PURE-3",
        run=answering(drew=lambda c, o: c.keep is not None and c.op == "residual"),
    ),
    mutant(
        "p = 0 passes a keep by",
        "PURE-3",
        run=answering(y=lambda c, o: c.x if c.keep is not None and c.drop_prob == 0 else o.y),
    ),
    mutant(
        "p = 0 passes a keep by in blocks",
        "PURE-3",
        run=calling(
            keep=lambda c: None if c.op == "residual" and c.drop_prob == 0 else c.keep,
        ),
    ),
    mutant(
        "a keep of no rows is none",
        "PURE-3",
        run=calling(keep=lambda c: ~c.keep if c.keep is not None and not c.keep.any() else c.keep),
    ),
    mutant(
        "the gradient forgets the keep",
        "PURE-3",
        run=answering(dx=lambda c, o: c.dy if c.keep is not None and c.op == "drop_path" else o.dx),
    ),
)
