"""DropPath (Stochastic Depth): the numerical specification and its NumPy reference.

SPEC.md, beside this file, is the normative text; `droppath_torch` and `droppath_flax` implement it.
"""

from droppath.masks import keep_mask, kept_capacity
from droppath.plans import layer_plan, planned_depth
from droppath.random import fold_in, key, random_bits, split
from droppath.reference import (
    drop_path,
    drop_path_residual,
    drop_path_residual_vjp,
    drop_path_vjp,
)
from droppath.schedules import drop_path_rates, expected_depth, ramp
from droppath.stacks import drop_path_stack
from droppath.version import __version__

__all__ = [
    "__version__",
    "drop_path",
    "drop_path_rates",
    "drop_path_residual",
    "drop_path_residual_vjp",
    "drop_path_stack",
    "drop_path_vjp",
    "expected_depth",
    "fold_in",
    "keep_mask",
    "kept_capacity",
    "key",
    "layer_plan",
    "planned_depth",
    "ramp",
    "random_bits",
    "split",
]
