"""DropPath (Stochastic Depth) for PyTorch, by the clauses of droppath/SPEC.md."""

from droppath.version import __version__
from droppath_torch.functional import drop_path
from droppath_torch.keyed import keyed
from droppath_torch.masks import keep_mask
from droppath_torch.modules import DropPath, DropPathResidual
from droppath_torch.plans import layer_plan
from droppath_torch.residual import drop_path_residual
from droppath_torch.skipping import skip_dropped
from droppath_torch.stacks import drop_path_stack
from droppath_torch.summary import summary
from droppath_torch.surgery import convert, set_drop_probs

__all__ = [
    "DropPath",
    "DropPathResidual",
    "__version__",
    "convert",
    "drop_path",
    "drop_path_residual",
    "drop_path_stack",
    "keep_mask",
    "keyed",
    "layer_plan",
    "set_drop_probs",
    "skip_dropped",
    "summary",
]
