"""DropPath and DropPathResidual as PyTorch modules: timm's class, with a key where wanted."""

import copy
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx, nn

from droppath.arguments import (
    Mode,
    ScaleAt,
    check_axis,
    check_callable,
    check_flags,
    check_groups,
    check_mode,
    check_options,
    check_skip,
)
from droppath.scaling import scales
from droppath_torch.arguments import check_copied, check_generator, check_nothing_given
from droppath_torch.arrays import dtype_text, in_backward, is_compiling
from droppath_torch.calls import OUTSIDE_KEYED
from droppath_torch.functional import drop_path, is_zero, scale
from droppath_torch.masks import Draw, Key, Offset, Rate, check_rate
from droppath_torch.residual import Branch, run_residual
from droppath_torch.spread import Begun
from droppath_torch.step_masks import NONE_DUE, LayerKey, LayerMask
from droppath_torch.traced import ScriptedDropPath, record_residual

fx.wrap("drop_path")  # torch.fx records one call: shapes and masks are not traced


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
    default_mode: Mode = "row"
    layer_key: LayerKey | None = None  # set by `keyed`, for as long as it lasts
    was_keyed: bool = False  # whether the latest forward may have been within a `keyed` that ended
    why_masked: str | None = None  # set by `skip_dropped`: why a branch is computed, "" if none is
    skips_from: tuple[str, ...] = ()  # and the modules where those begin that are not
    is_open: bool = False  # whether the forward of a block runs whose branches are skipped
    begun: Begun | None = None  # what a branch runs on that has begun there, and ends here

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
        check_options(mode, scale_at, axis, groups)
        check_flags(scale_by_keep=scale_by_keep)
        check_generator(generator)
        self.drop_prob = check_rate(drop_prob)
        self.scale_by_keep = scale_by_keep
        self.mode: Mode = mode
        self.scale_at: ScaleAt = scale_at
        self.axis = axis
        self.groups = groups
        self.generator = generator
        self.layer_key = None  # in its place from the first: torch.compile tells None from nothing

    if TYPE_CHECKING:  # nn.Module's own takes anything

        def __call__(
            self,
            x: Tensor,
            *,
            key: Key | None = None,
            keep: Tensor | None = None,
            offset: Offset = 0,
        ) -> Tensor: ...

    def forward(
        self, x: Tensor, *, key: Key | None = None, keep: Tensor | None = None, offset: Offset = 0
    ) -> Tensor:
        """Return x with dropped samples set to zero: floating [..., B, ...], same shape and dtype.

        In training with drop_prob > 0 the mask is `keep`, or is drawn from `key`, from the key of
        the surrounding `keyed`, or from `generator`, the first that is given.
        """
        p = check_rate(self.drop_prob)
        if self.begun is not None:
            check_nothing_given(key=key, keep=keep, offset=offset)
            return self._end_branch(x, p)
        if key is None and keep is None:
            keep, sent = self._keyed_mask(x, p, offset)
            keep = keep if sent is None else sent.keep
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

    def _end_branch(self, x: Tensor, p: Rate) -> Tensor:
        """Return the whole batch of what a branch made of the rows that it began with."""
        begun, self.begun = self.begun, None
        assert begun is not None
        s = scale(p, x) if scales(True, self.scale_by_keep, self.scale_at) else 1.0
        return begun.spread(x, s, check_axis(self.axis, x.shape, dtype_text(x)))

    def _keyed_mask(self, x: Tensor, p: Rate, offset: Offset) -> LayerMask:
        """Return the mask of the surrounding `keyed`; none if none is due."""
        if not self.training or is_zero(p) or not isinstance(x, Tensor):  # which drop_path refuses
            return NONE_DUE
        if self.layer_key is not None:
            if getattr(self, "_is_replica", False):
                raise ValueError(
                    "model must not be replicated by nn.DataParallel within keyed, whose replicas "
                    "would share its masks: use DistributedDataParallel"
                )
            if isinstance(offset, Tensor) or offset:
                raise ValueError(f"offset must be given to keyed, which draws here, got {offset!r}")
            check_mode(self.mode)
            batch = x.shape[check_axis(self.axis, x.shape, dtype_text(x))]
            check_groups(self.groups, batch)
            return self.layer_key.keep_mask(batch, x.device)
        # is_compiling first: torch.compile would compile again for each value of was_keyed
        if not is_compiling() and self.was_keyed:
            if in_backward():
                raise RuntimeError(OUTSIDE_KEYED)
            self.was_keyed = False
        return NONE_DUE

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy or a pickle holds: nothing of a surrounding `keyed` or forward."""
        passing = "layer_key", "was_keyed", "is_open", "begun"
        return {name: value for name, value in self.__dict__.items() if name not in passing}

    def __prepare_scriptable__(self) -> nn.Module:
        """Return what torch.jit.script takes in place of it."""
        given = self.drop_prob, self.mode, self.scale_by_keep, self.scale_at, self.axis
        if self.generator is not None:
            raise ValueError("generator must be None for torch.jit.script, got a torch.Generator")
        return ScriptedDropPath(*given).train(self.training)

    def extra_repr(self) -> str:
        """Return timm's text, and the options that are not the default."""
        options = {
            "scale_by_keep": True,
            "mode": self.default_mode,
            "scale_at": "train",
            "axis": 0,
            "groups": 1,
        }
        changed = [f"{k}={getattr(self, k)}" for k, v in options.items() if getattr(self, k) != v]
        return ", ".join([f"drop_prob={round(float(self.drop_prob), 3):0.3f}", *changed])


class DropPathResidual(DropPath):
    """A residual block whose dropped samples are not computed: `x + drop_path(branch(x))`.

    y[i] = x[i] + branch(x)[i] / (1 - drop_prob) if sample i is kept else x[i]

    Args:
      branch: a module, or a function, of x and of what else the call is given.
      skip: as in `droppath_torch.drop_path_residual`, and so is `mode`, here "balanced".
      Others as in `DropPath`. The state dict is the branch's, under "branch.".

    Under DistributedDataParallel, "batch" mode leaves the branch's parameters without a gradient
    where it is not run: set find_unused_parameters=True, or skip=False. Give all ranks one key by
    `keyed`: else each drops by itself, and under fully_shard they wait for each other forever.
    Shard the branch, not the block.

    A deep copy has a branch of its own if that is a module or a bound method; a function that holds
    modules is refused, but what it finds in global variables stays the original's.

    Raises: ValueError for arguments outside these ranges.

    >>> import droppath
    >>> DropPathResidual(torch.neg, 0.5)(torch.ones(4), key=droppath.key(0))
    tensor([ 1., -1.,  1., -1.])

    Source: Huang et al. 2016, arXiv 1603.09382; Oquab et al. 2023, arXiv 2304.07193, section 5.
    """

    default_mode: Mode = "balanced"

    def __init__(
        self,
        branch: Branch,
        drop_prob: Rate = 0.0,
        scale_by_keep: bool = True,
        *,
        mode: Mode = "balanced",
        skip: bool | None = None,
        scale_at: ScaleAt = "train",
        axis: int = 0,
        groups: int = 1,
        generator: torch.Generator | None = None,
    ) -> None:
        check_callable(branch)
        check_skip(skip)
        super().__init__(
            drop_prob,
            scale_by_keep,
            mode=mode,
            scale_at=scale_at,
            axis=axis,
            groups=groups,
            generator=generator,
        )
        self.branch = branch
        self.skip = skip

    if TYPE_CHECKING:

        def __call__(
            self,
            x: Tensor,
            *per_sample: Tensor,
            key: Key | None = None,
            keep: Tensor | None = None,
            offset: Offset = 0,
        ) -> Tensor: ...

    def forward(
        self,
        x: Tensor,
        *per_sample: Tensor,
        key: Key | None = None,
        keep: Tensor | None = None,
        offset: Offset = 0,
    ) -> Tensor:
        """Return x, and on kept samples what the branch adds: x's shape and dtype.

        per_sample: further arguments of the branch, tensors [B, ...]. Others as in `DropPath`.
        """
        p, skip = check_rate(self.drop_prob), self.skip
        check_skip(skip)
        if isinstance(x, fx.Proxy):
            return record_residual(self, x, per_sample, key=key, keep=keep, offset=offset)
        sent = None
        if key is None and keep is None:
            keep, sent = self._keyed_mask(x, p, offset)
            if keep is not None and self.mode == "balanced" and not isinstance(p, Tensor):
                skip = skip is not False  # also compiled: keyed's masks keep no row too many
        draw = Draw(key, keep, self.mode, self.groups, offset, self.generator, sent)
        options = skip, self.scale_by_keep, self.scale_at, self.axis
        return run_residual(draw, x, self.branch, p, self.training, per_sample, *options)

    def __deepcopy__(self, memo: dict[int, Any]) -> "DropPathResidual":
        """Return a copy. Raises ValueError for a branch that would keep the original's weights."""
        check_copied(self.branch)
        made = self.__class__.__new__(self.__class__)
        memo[id(self)] = made
        made.__setstate__(copy.deepcopy(self.__getstate__(), memo))
        return made

    def __prepare_scriptable__(self) -> nn.Module:
        """Raise: the branch that a residual block skips is out of TorchScript's reach."""
        raise ValueError("branch must not be skipped under torch.jit.script: use DropPath there")

    def extra_repr(self) -> str:
        """Return DropPath's text, and skip if it is not the default."""
        changed = [] if self.skip is None else [f"skip={self.skip}"]
        return ", ".join([super().extra_repr(), *changed])
