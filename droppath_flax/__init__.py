"""DropPath (Stochastic Depth) for JAX and Flax, by the clauses of droppath/SPEC.md.

Flax NNX modules are here; their Linen twins are in `droppath_flax.linen`.
"""

from droppath.version import __version__
from droppath_flax.functional import drop_path
from droppath_flax.keyed import keyed
from droppath_flax.masks import keep_mask
from droppath_flax.modules import DropPath, DropPathResidual
from droppath_flax.plans import layer_plan
from droppath_flax.residual import drop_path_residual
from droppath_flax.skipping import skip_dropped
from droppath_flax.stacking import stack_layers
from droppath_flax.stacks import drop_path_stack
from droppath_flax.summary import summary
from droppath_flax.surgery import set_drop_probs

__all__ = [
    "DropPath",
    "DropPathResidual",
    "__version__",
    "drop_path",
    "drop_path_residual",
    "drop_path_stack",
    "keep_mask",
    "keyed",
    "layer_plan",
    "set_drop_probs",
    "skip_dropped",
    "stack_layers",
    "summary",
]
