"""What the checks of EVAL must reject."""

from dataclasses import replace

import numpy as np

from conformance.mutant import REFERENCE, answering, calling, mutant
from conformance.protocol import Array, Call, Outcome


def masked_by_keep(call: Call, outcome: Outcome) -> Array:
    """Return y of training, unscaled, where a keep is given in evaluation."""
    if call.training or call.keep is None:
        return outcome.y
    options = {**call.options, "scale_by_keep": False}
    return REFERENCE.run(replace(call, training=True, options=options)).y


def at_zero(call: Call, outcome: Outcome) -> bool:
    """Return whether the rate is a zero, in training."""
    return call.training and call.drop_prob == 0


MUTANTS = (
    mutant("ignores training", "EVAL-1", run=calling(training=True, seed=lambda c: c.seed or 0)),
    mutant("draws in evaluation", "EVAL-1", run=answering(drew=lambda c, o: c.training is False)),
    mutant(
        "draws in evaluation from a key",
        "EVAL-1",
        run=answering(drew=lambda c, o: not c.training and c.key is not None),
    ),
    mutant(
        "draws in evaluation in batch mode",
        "EVAL-1",
        run=answering(drew=lambda c, o: not c.training and c.options.get("mode") == "batch"),
    ),
    mutant("applies a keep in evaluation", "EVAL-1", run=answering(y=masked_by_keep)),
    mutant(
        "evaluation adds 0",
        "EVAL-1",
        run=answering(y=lambda c, o: o.y if c.training else o.y + 0.0),
    ),
    mutant(
        "evaluation replaces NaN",
        "EVAL-1",
        run=answering(y=lambda c, o: o.y if c.training else np.where(np.isnan(o.y), 0, o.y)),
    ),
    mutant(
        "drops in evaluation at an axis other than 0",
        "EVAL-1",
        run=calling(
            training=lambda c: c.training or c.options.get("axis", 0) != 0 < c.drop_prob < 1,
            seed=lambda c: 0 if c.options.get("axis") else c.seed,
        ),
    ),
    mutant("draws at p = 0", "EVAL-2", run=answering(drew=lambda c, o: c.drop_prob == 0)),
    mutant(
        "draws at p = -0.0",
        "EVAL-2",
        run=answering(drew=lambda c, o: at_zero(c, o) and np.signbit(c.drop_prob)),
    ),
    mutant(
        "draws at p = 0 in balanced mode",
        "EVAL-2",
        run=answering(drew=lambda c, o: at_zero(c, o) and c.options.get("mode") == "balanced"),
    ),
    mutant(
        "draws at p = 0 if a key is given",
        "EVAL-2",
        run=answering(drew=lambda c, o: at_zero(c, o) and c.key is not None),
    ),
    mutant(
        "a model without a key drops at p = 0",
        "EVAL-2",
        run=answering(
            y=lambda c, o: o.y * 0 if c.op == "model" and c.key is c.seed is None else o.y
        ),
    ),
)
