"""skip_dropped: the blocks of a model that exists stop computing what their DropPaths drop.

Nothing of a block is rewritten: hooks gather the kept rows where its branch begins, and its
DropPath puts them back (hooks.py). Each branch is tried before, beside masking (proof.py). Not
here: residual blocks of our own, DropPathResidual, which need no trial.
"""

from dataclasses import dataclass, field
from typing import Any, cast

from torch import nn

from droppath.arguments import check_flags
from droppath_torch.arguments import check_module
from droppath_torch.branches import Call, is_drop, record, rows_of, starts
from droppath_torch.hooks import Closes, Opens, unhook
from droppath_torch.modules import DropPath
from droppath_torch.proof import (
    Outcome,
    difference,
    first_line,
    model_output,
    precision,
    run,
    why_not,
)
from droppath_torch.trial import (
    FixedMasks,
    WithoutDropout,
    fixed_masks,
    other_parameters,
    put_back,
)

FEWEST = 4  # samples of an example: of 3 masks keep 2, and a row of 1 would broadcast


def skip_dropped(model: nn.Module, *example: Any, undo: bool = False, **keywords: Any) -> nn.Module:
    """Return model, whose branches from now on run on the rows that are kept, in training.

    For blocks of the form `x = x + self.drop_path(self.branch(self.norm(x)))`, in any library's
    code, whose DropPaths are ours (see `convert`). The model is run on the example, to see where
    each branch begins, and each block on the example with noise, twice or more. A branch is skipped
    if block and gradients are masking's, within rounding; else it stays masked, and its DropPath's
    `why_masked` says why ("" if all its calls are skipped). So what mixes samples, as BatchNorm in
    training does, stays as it is; what comes after it in a branch may be skipped: `skips_from`
    has the names of the modules from which on rows are left out.

    What runs are the kept rows in eager mode, `droppath.kept_capacity` of them under torch.compile
    in mode "balanced", which is the mode to convert with; "batch" is not skipped. State dict,
    `keyed`, deep copies, pickles, and evaluation are as before. What hooks within a branch see are
    the rows that run. Call it before the model is compiled or wrapped for several devices.

    Args:
      model: in training mode. Changed in place: hooks on its blocks.
      example, keywords: arguments of the model, of at least 4 samples; per-sample arguments that
        training will give, such as attention masks, included.
      undo: True takes the hooks off again, without an example.

    Raises: ValueError, before anything is changed, for a model without a DropPath, in evaluation
      mode, or skipped already; and what the model raises for the example. Generators of torch,
      buffers and gradients stay as they are.

    >>> import torch
    >>> class Block(nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.branch, self.drop_path = nn.Linear(3, 3), DropPath(0.4, mode="balanced")
    ...     def forward(self, x):
    ...         return x + self.drop_path(self.branch(x))
    >>> model = skip_dropped(nn.Sequential(Block(), Block()), torch.randn(8, 3))
    >>> [block.drop_path.why_masked for block in model]
    ['', '']
    """
    drops = _check(model, undo, bool(example or keywords))
    if undo:
        unhook(model)
        for drop in drops:
            vars(drop).pop("why_masked", None)
            vars(drop).pop("skips_from", None)
        return model
    try:
        with put_back(model), WithoutDropout():
            why, begun = _skip(model, drops, example, keywords)
    except BaseException:
        unhook(model)
        raise
    for drop in drops:
        drop.why_masked = "; ".join(dict.fromkeys(why[drop]))
        drop.skips_from = tuple(name for name, m in model.named_modules() if (m, drop) in begun)
    return model


def _check(model: nn.Module, undo: bool, given: bool) -> list[DropPath]:
    check_module(model)
    check_flags(undo=undo)
    drops = [m for m in model.modules() if isinstance(m, DropPath) and is_drop(m)]
    if not drops:
        raise ValueError(
            "model must hold a DropPath of droppath_torch beside residual blocks, got none: "
            "convert(model) makes them of other libraries'"
        )
    if undo and given:
        raise ValueError("example must not be given with undo=True")
    if bool(undo) != any(drop.why_masked is not None for drop in drops):
        must = "have been skipped to be undone" if undo else "not be skipped: undo it first"
        raise ValueError(f"model must {must}")
    if not undo and not model.training:
        raise ValueError("model must be in training mode, got one in evaluation mode")
    return drops


def _skip(
    model: nn.Module, drops: list[DropPath], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[dict[DropPath, list[str]], set[tuple[nn.Module, nn.Module]]]:
    """Hook all branches that may be skipped. Returns for each DropPath why others may not.

    And where branches begin, each with its DropPath.
    """
    left_alone = {drop for drop in drops if drop.mode == "batch"}
    why = {drop: ["mode is 'batch'"] if drop in left_alone else [] for drop in drops}
    calls = _record(model, drops, args, kwargs)
    called = {drop for block in calls for drop in block.drops}
    for drop in drops:
        if drop not in called:
            why[drop].append("the example does not call it")
    with fixed_masks(model) as masks:
        trials = Trials(masks, why, left_alone)
        want = model_output(model, drops, args, kwargs, masks)
        for block in dict.fromkeys(call.module for call in calls):
            trials.skip_block([call for call in calls if call.module is block])
        trials.close()
        wrong = _differs(model, drops, args, kwargs, masks, want)
    if wrong:
        unhook(model)
        for drop in drops:
            why[drop].append(f"the blocks agree, but {wrong}")
    return why, set() if wrong else trials.begun


def _record(
    model: nn.Module, drops: list[DropPath], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> list[Call]:
    """Run the example with nothing dropped. Returns the calls of blocks."""
    for drop in drops:
        drop.drop_prob = 0.0  # put_back gives the rates back
    calls = record(model, args, kwargs)
    fewest = min((rows_of(c.calls[i]) for c in calls for i in c.drop_calls), default=FEWEST)
    if fewest < FEWEST:
        raise ValueError(f"example must hold at least {FEWEST} samples, got {fewest}")
    return calls


def _differs(
    model: nn.Module, drops: list[DropPath], args: Any, kwargs: Any, masks: Any, want: Outcome
) -> str:
    """Return how the whole model's output differs: a check for what passes the blocks by.

    Its bound is wide, eps**0.25 of the largest number, since rounding grows over depth.
    """
    try:
        got = model_output(model, drops, args, kwargs, masks)
    except Exception as error:
        return first_line(error)
    return difference(got, want, precision(want) ** 0.5)


@dataclass
class Trials:
    """The trials of all blocks of a model: what is hooked, and why what is not is not."""

    masks: list[FixedMasks]
    why: dict[DropPath, list[str]]
    left_alone: set[DropPath]
    begun: set[tuple[nn.Module, nn.Module]] = field(default_factory=set)  # begin, with its DropPath
    handles: dict[nn.Module, list[Any]] = field(default_factory=dict)  # of blocks

    def skip_block(self, calls: list[Call]) -> None:
        """Hook the branches of a block that may be skipped, for all of its calls."""
        first, block = calls[0], calls[0].module
        opens, closes = Opens(block, first.drops), Closes(block, first.drops)
        self.handles[block] = [
            block.register_forward_pre_hook(opens),
            block.register_forward_hook(closes),
        ]
        with other_parameters(block):
            try:
                wants = [run(call, self.masks) for call in calls]
            except Exception as error:
                reason = f"the block does not run by itself, {first_line(error)}"
                for drop in first.drops:
                    self.why[drop].append(reason)
                return
            for index in first.drop_calls:
                self.skip_branch(calls, index, wants)

    def skip_branch(self, calls: list[Call], index: int, wants: list[Outcome]) -> None:
        """Hook a branch where it begins, or say why not, of the first place that was tried."""
        call, reasons = calls[0].calls[index], list[str]()
        drop = cast(DropPath, call.module)
        if drop in self.left_alone:
            return
        if call.given[1]:
            reasons.append("its call is given where its mask comes from")
        else:
            for start in starts(calls[0], index):
                place = start.begin, drop
                reason = "" if place in self.begun else why_not(start, calls, wants, self.masks)
                if not reason:
                    self.begun.add(place)
                    return
                reasons.append(reason)
        reasons.append("its block calls no module with these rows before")
        others = [i for i in calls[0].drop_calls if calls[0].calls[i].module is drop]
        which = f"call {others.index(index) + 1} of {len(others)}: " if len(others) > 1 else ""
        self.why[drop].append(which + reasons[0])

    def close(self) -> None:
        """Take the hooks off the blocks none of whose DropPaths is skipped anywhere."""
        skipped = {drop for _, drop in self.begun}
        for block, handles in self.handles.items():
            opens = next(h for h in block._forward_pre_hooks.values() if isinstance(h, Opens))
            if skipped.isdisjoint(opens.drops):
                for handle in handles:
                    handle.remove()
