"""skip_dropped: the blocks of a model that exists stop computing what their DropPaths drop.

Nothing of a block is rewritten: its modules get classes whose calls gather the kept rows where its
branch begins, and its DropPath puts them back (hooks.py, hooked.py). Each branch is tried before,
beside masking, on a copy (proof.py). Not here: residual blocks of our own, DropPathResidual, which
need no trial; modules of Flax Linen.
"""

from dataclasses import dataclass, field
from typing import Any, cast

import jax
from flax import nnx

from droppath.arguments import check_flags
from droppath_flax.branches import Call, is_drop, record, rows_of, starts
from droppath_flax.hooked import hook, set_skipped, unhook
from droppath_flax.hooks import module_at, skipped_of
from droppath_flax.layers import check_module
from droppath_flax.modules import DropPath
from droppath_flax.order import GRAPH, Path, modules_of
from droppath_flax.proof import (
    Masked,
    Outcome,
    difference,
    first_line,
    masked,
    model_output,
    precision,
    why_not,
)
from droppath_flax.trial import copied, fixed_masks

FEWEST = 4  # samples of an example: of 3 masks keep 2, and a row of 1 would broadcast


def skip_dropped(
    model: nnx.Module, *example: Any, undo: bool = False, **keywords: Any
) -> nnx.Module:
    """Return model, whose branches from now on run on the rows that are kept, in training.

    For blocks of the form `x = x + self.drop_path(self.branch(self.norm(x)))`, in anyone's NNX
    code, whose DropPaths are ours. A copy of the model is run on the example, to see where each
    branch begins, and each block on the example with noise, twice or more. A branch is skipped if
    block and gradients are masking's, within rounding; else it stays masked, and its DropPath's
    `why_masked` says why ("" if all its calls are skipped). So what mixes samples, as BatchNorm in
    training does, stays as it is; what comes after it in a branch may be skipped: `skips_from` has
    the names, within the block, of the modules from which on rows are left out.

    What runs are `droppath.kept_capacity` rows, in mode "balanced" at a rate that is no JAX array,
    since the number of rows is part of a program; "row" and "batch" are not skipped. State, copies,
    splits, pickles, and evaluation are as before. A DropPath may be given `deterministic`, `rngs`,
    `key` and `offset` if these are arguments of its block by the same name.

    Args:
      model: in training mode. Changed in place: classes and static attributes of its modules.
      example, keywords: arguments of the model, of at least 4 samples; per-sample arguments that
        training will give, such as attention masks, included.
      undo: True makes the model as it was, without an example.

    Raises: ValueError, before anything is changed, for a model without a DropPath, in evaluation
      mode, or skipped already; and what the model raises for the example. Random streams and
      variables of the model and the example stay as they are.

    >>> import jax.numpy as jnp
    >>> class Block(nnx.Module):
    ...     def __init__(self, rngs):
    ...         self.branch = nnx.Linear(3, 3, rngs=rngs)
    ...         self.drop_path = DropPath(0.4, mode="balanced", rngs=rngs)
    ...     def __call__(self, x):
    ...         return x + self.drop_path(self.branch(x))
    >>> model = skip_dropped(Block(nnx.Rngs(0, dropout=1)), jnp.ones((8, 3)))
    >>> model.drop_path.why_masked, model.drop_path.skips_from
    ('', ('branch',))
    """
    drops = _check(model, undo, bool(example or keywords))
    if undo:
        unhook(model)
        for drop in drops.values():
            for name in vars(drop).keys() & {"why_masked", "skips_from"}:
                delattr(drop, name)
        return model
    with jax.default_matmul_precision("float32"):
        trials = _skip(model, drops, example, keywords)
    modules = modules_of(model)
    for path, module in modules_of(trials.model).items():
        if skipped := skipped_of(module):
            set_skipped(modules[path], skipped)
            for held in {(), *(each for at, role in skipped for each in (at, role.drop))}:
                hook(module_at(modules[path], held))
    for path, drop in drops.items():
        drop.why_masked = "; ".join(dict.fromkeys(trials.why[path]))
        drop.skips_from = tuple(dict.fromkeys(trials.names[path]))
    return model


def _check(model: nnx.Module, undo: bool, given: bool) -> dict[Path, DropPath]:
    check_module(model)
    check_flags(undo=undo)
    drops = _drops(model)
    if not drops:
        raise ValueError(
            "model must hold a DropPath of droppath_flax beside residual blocks, got none"
        )
    if undo and given:
        raise ValueError("example must not be given with undo=True")
    if bool(undo) != any(drop.why_masked is not None for drop in drops.values()):
        must = "have been skipped to be undone" if undo else "not be skipped: undo it first"
        raise ValueError(f"model must {must}")
    if not undo and all(drop.deterministic for drop in drops.values()):
        raise ValueError("model must be in training mode, got one in evaluation mode")
    return drops


def _drops(model: nnx.Module) -> dict[Path, DropPath]:
    return {path: cast(DropPath, m) for path, m in modules_of(model).items() if is_drop(m)}


def _skip(
    model: nnx.Module, drops: dict[Path, DropPath], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> "Trials":
    """Return the trials of all blocks, on a copy, whose blocks skip what may be skipped."""
    copy, args, kwargs = copied(model, args, kwargs)
    calls = _record(copy, args, kwargs)
    trials = Trials(copy, {id(drop): path for path, drop in _drops(copy).items()})
    called = {trials.paths[id(drop)] for block in calls for drop in block.drops}
    for path, drop in drops.items():
        if drop.mode != "balanced":
            trials.left_alone[path] = f"mode is {drop.mode!r}"
        elif isinstance(drop.drop_prob, jax.Array):
            trials.left_alone[path] = "drop_prob is a JAX array"
        if path in trials.left_alone or path not in called:
            trials.why[path].append(trials.left_alone.get(path, "the example does not call it"))
    fixed_masks(copy, 0.5)
    blocks = {id(call.module): call.module for call in calls}
    is_all = [*blocks] == [id(copy)]  # then the trial of the block is that of the model
    want = None if is_all else model_output(copy, args, kwargs)
    for block in blocks.values():
        trials.skip_block([call for call in calls if call.module is block])
    if want and (wrong := _differs(copy, args, kwargs, want)):
        for module in modules_of(copy).values():
            set_skipped(module, ())
        for path in drops:
            trials.why[path].append(f"the blocks agree, but {wrong}")
            trials.names[path].clear()
    return trials


def _record(copy: nnx.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Call]:
    """Run the example with nothing dropped. Returns the calls of blocks."""
    fixed_masks(copy, 0.0)
    calls = record(copy, *nnx.clone((args, kwargs), **GRAPH))
    fewest = min((rows_of(c.calls[i]) for c in calls for i in c.drop_calls), default=FEWEST)
    if fewest < FEWEST:
        raise ValueError(f"example must hold at least {FEWEST} samples, got {fewest}")
    return calls


def _differs(model: nnx.Module, args: Any, kwargs: Any, want: Outcome) -> str:
    """Return how the whole model's output differs: a check for what passes the blocks by.

    Its bound is wide, eps**0.25 of the largest number, since rounding grows over depth.
    """
    try:
        got = model_output(model, args, kwargs)
    except Exception as error:
        return first_line(error)
    return difference(got, want, precision(want) ** 0.5)


@dataclass
class Trials:
    """The trials of all blocks of a copy: why what is masked is, and where the rest begins."""

    model: nnx.Module
    paths: dict[int, Path]  # of DropPaths, by their ids
    left_alone: dict[Path, str] = field(default_factory=dict)
    why: dict[Path, list[str]] = field(default_factory=dict)
    names: dict[Path, list[str]] = field(default_factory=dict)  # of begins, in their blocks

    def __post_init__(self) -> None:
        for path in self.paths.values():
            self.why[path], self.names[path] = [], []

    def skip_block(self, calls: list[Call]) -> None:
        """Let a block skip the branches that may be skipped, for all of its calls."""
        first, begun = calls[0], set[tuple[Path, Path]]()
        try:
            tried = masked(calls)
        except Exception as error:
            reason = f"the block does not run by itself, {first_line(error)}"
            for drop in first.drops:
                self.why[self.paths[id(drop)]].append(reason)
            return
        for index in first.drop_calls:
            path = self.paths[id(first.calls[index].module)]
            if path not in self.left_alone:
                self.skip_branch(path, tried, index, begun)

    def skip_branch(
        self, path: Path, tried: Masked, index: int, begun: set[tuple[Path, Path]]
    ) -> None:
        """Let a branch begin where it may, or say why not, of the first place that was tried."""
        block = tried.calls[0]
        reasons = [why for call in tried.calls if (why := call.late.get(index, ""))]
        if not reasons:
            for start in starts(block, index):
                reason = "" if start.place in begun else why_not(start, tried)
                if not reason:
                    begun.add(start.place)
                    self.names[path].append(".".join(map(str, start.place[0])))
                    return
                reasons.append(reason)
        reasons.append("its block calls no module with these rows before")
        drop = block.calls[index].module
        others = [i for i in block.drop_calls if block.calls[i].module is drop]
        which = f"call {others.index(index) + 1} of {len(others)}: " if len(others) > 1 else ""
        self.why[path].append(which + reasons[0])
