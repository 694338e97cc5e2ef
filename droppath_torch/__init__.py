"""DropPath (Stochastic Depth) for PyTorch, by the clauses of droppath/SPEC.md."""

from droppath_torch.functional import drop_path
from droppath_torch.keyed import keyed
from droppath_torch.masks import keep_mask
from droppath_torch.modules import DropPath

__all__ = ["DropPath", "drop_path", "keep_mask", "keyed"]
