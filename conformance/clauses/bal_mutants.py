"""What the checks of BAL must reject."""

import numpy as np

from conformance.mutant import count, drawing_balanced, mutant, op, ranks

MUTANTS = (
    mutant(
        "keeps max(int(b (1 - p)), 1)",
        "BAL-1 BAL-2 MASK-4",
        draw=drawing_balanced(lambda c, b, g: ranks(c, b, g) < max(int(b * (1 - c.drop_prob)), 1)),
    ),
    mutant(
        "never drops at b = 1",
        "BAL-2",
        draw=drawing_balanced(lambda c, b, g: ranks(c, b, g) < np.maximum(b - count(c, b, g), 1)),
    ),
    mutant(
        "keeps a run of rows",
        "BAL-3",
        draw=drawing_balanced(
            lambda c, b, g: (np.arange(b) + ranks(c, b, g)[:, :1]) % b < b - count(c, b, g)
        ),
    ),
    mutant(
        "capacity rounded to nearest",
        "BAL-4",
        compute=op(
            "kept_capacity", lambda drop_prob, batch, groups: round(batch * (1 - drop_prob))
        ),
    ),
)
