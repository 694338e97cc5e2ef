"""What the checks of SCHED must reject."""

from typing import Any

import numpy as np

import droppath
from conformance.mutant import mutant, op
from conformance.protocol import Array


def ramp_that_stays(**options: Any) -> Array:
    """Return a ramp that is updated only while it lasts, in ten steps."""
    last = options["end"] - (options["end"] - options["begin"]) / 10
    return droppath.ramp(**options | {"step": np.minimum(options["step"], last)})


def flat_rates(**options: Any) -> list[float]:
    """Return rates that forget the stages."""
    return [p for stage in np.atleast_2d(droppath.drop_path_rates(**options)) for p in stage]


MUTANTS = (
    mutant(
        "linear is exclusive",
        "SCHED-1",
        compute=op(
            "drop_path_rates",
            lambda drop_path_rate, depth, rule: droppath.drop_path_rates(
                drop_path_rate, depth, rule="exclusive" if rule == "linear" else rule
            ),
        ),
    ),
    mutant(
        "one block is never dropped",
        "SCHED-2",
        compute=op(
            "drop_path_rates",
            lambda drop_path_rate, depth, rule: (
                [0.0] if depth == 1 else droppath.drop_path_rates(drop_path_rate, depth, rule=rule)
            ),
        ),
    ),
    mutant("stages are flattened", "SCHED-3", compute=op("drop_path_rates", flat_rates)),
    mutant("a ramp that never lands", "SCHED-4", compute=op("ramp", ramp_that_stays)),
    mutant(
        "depth of what is dropped",
        "SCHED-5",
        compute=op("expected_depth", lambda rates: sum(rates)),
    ),
)
