"""The factor on kept rows (SPEC.md, area SCALE): whether there is one in a phase, and its value.

Plain float64 on the host. Not here: the product and its rounding, which belong to who holds x.
"""

from droppath.arguments import ScaleAt


def scales(training: bool, scale_by_keep: bool, scale_at: ScaleAt) -> bool:
    """Return whether kept rows are multiplied in this phase (SCALE-2, SCALE-3).

    >>> scales(True, True, "train"), scales(False, True, "train"), scales(False, True, "eval")
    (True, False, True)
    """
    return bool(scale_by_keep) and (scale_at == "train") == bool(training)


def inverse_keep_prob(drop_prob: float) -> float:
    """Return s = 1/(1 - drop_prob) in float64 (SCALE-1); 1 at drop_prob = 1: no row is kept there.

    >>> inverse_keep_prob(0.75), inverse_keep_prob(1.0)
    (4.0, 1.0)
    """
    return 1.0 / (1.0 - drop_prob) if drop_prob < 1 else 1.0
