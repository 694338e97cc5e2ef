"""The hooks by which a branch in another's code runs on the rows that are kept.

A block opens its DropPaths; where a branch begins, its DropPath draws and rows are gathered; the
DropPath puts what came of them among zeros; the block closes. What a hook holds are modules of the
same model, so that a deep copy or a pickle of the model has its own. Not here: where a branch
begins (branches.py), whether it may be skipped (proof.py).
"""

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from droppath.arguments import check_axis
from droppath.places import Arguments, Place, argument_at, replaced
from droppath_torch.arrays import dtype_text, in_backward, is_compiling
from droppath_torch.functional import draws_nothing
from droppath_torch.masks import Draw, check_rate
from droppath_torch.modules import DropPath
from droppath_torch.residual import rows_of_branch
from droppath_torch.spread import Begun


@dataclass
class Opens:
    """Before a block's forward: its DropPaths wait for their branches to begin."""

    block: nn.Module
    drops: list[DropPath]

    def __call__(self, block: nn.Module, args: Any) -> None:
        if block is not self.block:  # a replica of nn.DataParallel, whose DropPaths are others
            return
        for drop in self.drops:
            drop.is_open, drop.begun = True, None


@dataclass
class Closes:
    """After a block's forward. Raises RuntimeError if a branch did not come to its DropPath."""

    block: nn.Module
    drops: list[DropPath]

    def __call__(self, block: nn.Module, args: Any, output: Any) -> None:
        if block is not self.block:
            return
        left = [drop for drop in self.drops if drop.begun is not None]
        for drop in self.drops:
            drop.is_open, drop.begun = False, None
        if left:
            raise RuntimeError(
                f"{type(block).__name__} must take the way of skip_dropped's example: a branch "
                "began and did not come to its DropPath"
            )


@dataclass
class Begins:
    """Before the module where a branch begins: draw, and gather x and per-sample arguments.

    at: the place of x. per_sample: the places of what is gathered with it, along axis 0.
    """

    drop: DropPath
    at: Place
    per_sample: list[Place]

    def __call__(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Arguments | None:
        drop, x = self.drop, argument_at(args, kwargs, self.at)
        # a recomputed segment may lie within the block
        is_open = drop.is_open or (not is_compiling() and in_backward())
        if not is_open or not isinstance(x, Tensor):
            return None
        drop.begun = begun = begin(drop, x)
        if begun is None:
            return None
        axis = check_axis(drop.axis, x.shape, dtype_text(x))
        args, kwargs = _gathered(begun, args, kwargs, self.per_sample)
        return replaced(args, kwargs, self.at, begun.take(x, axis))


@dataclass
class Follows:
    """Before a later module of a branch: gather its per-sample arguments.

    known: the places of arguments that the example had. Raises ValueError for another one that has
    the batch as its first axis, of which nothing was proven.
    """

    drop: DropPath
    per_sample: list[Place]
    known: list[Place]

    def __call__(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Arguments | None:
        begun = self.drop.begun
        if begun is None or begun.rows is None or begun.rows.taken is None:
            return None
        for place, value in (*enumerate(args), *kwargs.items()):
            if place not in self.known and _is_batch(value, begun):
                raise ValueError(
                    f"{place} of {type(module).__name__} must be in skip_dropped's example to be "
                    f"given by sample, got {tuple(value.shape)}"
                )
        return _gathered(begun, args, kwargs, self.per_sample)


def begin(drop: DropPath, x: Tensor) -> Begun | None:
    """Draw for a branch of x, [..., B, ...]. Returns None where nothing is dropped."""
    p = check_rate(drop.drop_prob)
    if not drop.training:
        return None
    keep, sent = drop._keyed_mask(x, p, 0)
    draw = Draw(None, keep, drop.mode, drop.groups, 0, drop.generator, sent)
    if draws_nothing(p, draw):
        return None
    axis = check_axis(drop.axis, x.shape, dtype_text(x))
    # keyed's masks keep no row too many, so that a compiled program may skip by them
    skip = True if keep is not None and drop.mode == "balanced" else None
    skip = None if isinstance(p, Tensor) else skip
    return Begun(rows_of_branch(draw, p, skip, x, axis), x.shape[axis])


def unhook(model: nn.Module) -> None:
    """Take all of these hooks off a model."""
    for module in model.modules():
        for hooks in (module._forward_pre_hooks, module._forward_hooks):
            ours = [k for k, h in hooks.items() if isinstance(h, Opens | Closes | Begins | Follows)]
            for k in ours:
                del hooks[k]
                module._forward_pre_hooks_with_kwargs.pop(k, None)
        if isinstance(module, DropPath):  # of a forward that was broken off
            vars(module).pop("is_open", None)
            vars(module).pop("begun", None)


def _gathered(
    begun: Begun, args: tuple[Any, ...], kwargs: dict[str, Any], places: list[Place]
) -> Arguments:
    """Return the arguments with the rows of those, at these places, that have the batch."""
    for place in places:
        value = argument_at(args, kwargs, place)
        if isinstance(value, tuple | list):  # the tables of rotary embeddings, say
            each = (begun.take(v, 0) if _is_batch(v, begun) else v for v in value)
            args, kwargs = replaced(args, kwargs, place, type(value)(each))
        elif _is_batch(value, begun):
            args, kwargs = replaced(args, kwargs, place, begun.take(value, 0))
    return args, kwargs


def _is_batch(value: Any, begun: Begun) -> bool:
    """Return whether it is a tensor of all samples; what came of the branch has the kept ones."""
    return isinstance(value, Tensor) and value.ndim > 0 and value.shape[0] == begun.batch
