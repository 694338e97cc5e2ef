"""DropPath as a PyTorch module: timm's class, with a key where it is wanted."""

from typing import TYPE_CHECKING
from weakref import WeakSet

import torch
from torch import Tensor, nn

from droppath.arguments import Mode, ScaleAt, check_groups, check_mode, check_scale_at
from droppath_torch.functional import drop_path
from droppath_torch.masks import Key, Offset, Rate, check_rate

if TYPE_CHECKING:
    from droppath_torch.keyed import LayerKey

torch.fx.wrap("drop_path")  # torch.fx records one call: shapes and masks are not traced

was_keyed: "WeakSet[DropPath]" = WeakSet()  # those whose latest forward may have been in `keyed`


def in_backward() -> bool:
    """Return whether the autograd engine is running: then a forward is a recomputation."""
    return torch._C._current_graph_task_id() != -1


class DropPath(nn.Module):
    """Drop whole samples of a residual branch in training: `x + drop_path(branch(x))`.

    y[i] = x[i] / (1 - drop_prob) if sample i is kept else 0

    Takes the place of timm's DropPath as it is. No parameters, no state. A rate of 0 stays a
    DropPath, to be scheduled later: assign `drop_prob`. Under torch.compile another float compiles
    again; a 0-d tensor does not.

    Args:
      drop_prob: probability in [0, 1] that a sample is dropped; float or 0-d tensor.
      scale_by_keep: False leaves kept samples as they are.
      mode, scale_at, axis, groups, generator: as in `droppath_torch.drop_path`.

    Raises: ValueError for arguments outside these ranges.

    >>> import droppath
    >>> DropPath(0.5)(torch.ones(4), key=droppath.key(0))
    tensor([2., 2., 0., 0.])

    Source: Huang et al. 2016, arXiv 1603.09382; droppath/SPEC.md.
    """

    drop_prob: Rate
    layer_key: "LayerKey | None" = None  # set by `keyed`, for as long as it lasts

    def __init__(
        self,
        drop_prob: Rate = 0.0,
        scale_by_keep: bool = True,
        *,
        mode: Mode = "row",
        scale_at: ScaleAt = "train",
        axis: int = 0,
        groups: int = 1,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        check_mode(mode)
        check_scale_at(scale_at)
        check_groups(groups, 0)  # whether it divides is seen when the batch is
        self.drop_prob = check_rate(drop_prob)
        self.scale_by_keep = scale_by_keep
        self.mode: Mode = mode
        self.scale_at: ScaleAt = scale_at
        self.axis = axis
        self.groups = groups
        self.generator = generator

    def forward(
        self, x: Tensor, *, key: Key | None = None, keep: Tensor | None = None, offset: Offset = 0
    ) -> Tensor:
        """Return x with dropped samples set to zero: floating [..., B, ...], same shape and dtype.

        In training with drop_prob > 0 the mask is `keep`, or is drawn from `key`, from the key of
        the surrounding `keyed`, or from `generator`, the first that is given.
        """
        p = check_rate(self.drop_prob)
        drops = self.training and (isinstance(p, Tensor) or p > 0)
        if drops and key is None and keep is None:
            if self.layer_key is not None:
                keep = self.layer_key.keep_mask(self, x)
            elif not torch.compiler.is_compiling():
                self._check_not_replayed()
        return drop_path(
            x,
            p,
            self.training,
            key=key,
            keep=keep,
            generator=self.generator,
            mode=self.mode,
            scale_by_keep=self.scale_by_keep,
            scale_at=self.scale_at,
            axis=self.axis,
            groups=self.groups,
            offset=offset,
        )

    def _check_not_replayed(self) -> None:
        """Raise if activation checkpointing runs a forward again whose `keyed` block has ended."""
        if self in was_keyed and in_backward():
            raise RuntimeError(
                "backward must run within keyed(), as its forward did, to checkpoint"
            )
        was_keyed.discard(self)

    def extra_repr(self) -> str:
        """Return timm's text, and the options that are not the default."""
        options = {
            "scale_by_keep": True,
            "mode": "row",
            "scale_at": "train",
            "axis": 0,
            "groups": 1,
        }
        changed = [f"{k}={getattr(self, k)}" for k, v in options.items() if getattr(self, k) != v]
        return ", ".join([f"drop_prob={round(float(self.drop_prob), 3):0.3f}", *changed])
