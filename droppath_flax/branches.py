"""Where the branches of a model's blocks may begin: what an example's forward calls, and in order.

A block is a module whose own forward calls a DropPath. What it calls before is where the branch may
begin, the earliest first. Modules have names relative to their block. Not here: whether a branch
begins there (proof.py).
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from inspect import signature
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from droppath.places import Arguments, Place, by_place
from droppath_flax.hooked import WATCH
from droppath_flax.hooks import Begins, Follows, Run, Skipped, named_arguments
from droppath_flax.modules import DropPath, DropPathResidual
from droppath_flax.order import Path, modules_of
from droppath_flax.trial import is_node, shown, stand_in

RECORDED = itertools.count()
INDEX = "recorded_as"  # the attribute by which the copies of a module are known during a record
HANDED = ("deterministic", "rngs", "key", "offset")  # to a DropPath, from the block's arguments


@dataclass
class Call:
    """A call of a module, with what it called itself.

    late: for each call of a DropPath, why what it is given is not known where its branch begins;
    nothing if it is.
    """

    module: nnx.Module
    given: Arguments
    calls: list["Call"] = field(default_factory=list)
    late: dict[int, str] = field(default_factory=dict)

    @property
    def places(self) -> dict[Place, Any]:
        """The arguments by their places."""
        return by_place(self.given)

    @property
    def drop_calls(self) -> list[int]:
        """Which of its calls are of a DropPath."""
        return [i for i, call in enumerate(self.calls) if is_drop(call.module)]

    @property
    def drops(self) -> list[DropPath]:
        """The DropPaths that it calls, each once."""
        called = {id(call.module): call.module for call in self.calls}
        return [drop for drop in called.values() if isinstance(drop, DropPath)]

    @property
    def names(self) -> dict[int, Path]:
        """The paths to the modules that it holds, by their ids."""
        return {id(m): path for path, m in modules_of(self.module).items()}


def is_drop(module: object) -> bool:
    """Return whether a module is a DropPath whose branch is another's."""
    return isinstance(module, DropPath) and not isinstance(module, DropPathResidual)


@dataclass(frozen=True)
class Start:
    """Where a branch may begin: what a block's modules do then before they are called."""

    begin: nnx.Module
    drop_call: int  # of the block's calls of DropPaths
    place: tuple[Path, Path]  # of the module, and of the DropPath
    skipped: Skipped


def record(model: nnx.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Call]:
    """Run the model, whose modules are hooked. Returns the calls of its blocks, as they end.

    Their arguments are those that were passed, not copies; others stand in for those of a transform
    of Flax, which calls copies of modules.
    """
    stack, blocks = [Call(model, ((), {}))], list[Call]()
    # numbers of no earlier record: else a transform takes what it has traced before, unwatched
    modules = {next(RECORDED): module for module in modules_of(model).values()}

    def watch(module: nnx.Module, run: Run, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        index = vars(module).get(INDEX)
        if index is None:  # it was made by the forward
            return run(*args, **kwargs)
        call = Call(modules[index], (args, kwargs))
        stack[-1].calls.append(call)
        stack.append(call)
        y = run(*args, **kwargs)
        stack.pop()
        if call.drop_calls:
            call.late = {i: _why_late(module, call, i) for i in call.drop_calls}
            blocks.append(call)
        else:
            call.calls.clear()
        if not is_drop(module):
            call.given = shown(call.given, keep_arrays=bool(call.calls))
        return y

    token = WATCH.set(watch)
    try:
        for number, module in modules.items():
            object.__setattr__(module, INDEX, number)
        model(*args, **kwargs)
    finally:
        WATCH.reset(token)
        for module in modules.values():
            vars(module).pop(INDEX, None)
    for call in blocks:
        call.given = jax.tree.map(stand_in, call.given, is_leaf=is_node)
    return blocks


def starts(block: Call, index: int) -> Iterator[Start]:
    """Yield where the branch may begin whose DropPath is the block's call of this index.

    First come the calls since the DropPath before, then those before it. Each is tried with the
    per-sample arguments gathered, then without. A later one must have weights to save.
    """
    drop, names = block.calls[index].module, block.names
    assert isinstance(drop, DropPath)
    rows = rows_of(block.calls[index])
    before = [i for i in block.drop_calls if i < index]
    first = before[-1] + 1 if before else 0
    for i in (*range(first, index), *range(first)):
        call = block.calls[i]
        at = next((p for p, v in call.places.items() if _rows(v, drop.axis) == rows), None)
        if at is None or is_drop(call.module) or id(call.module) not in names:
            continue
        later = [c for c in block.calls[i + 1 : index] if not is_drop(c.module)]
        if i != first and not any(map(_has_weights, (call, *later))):
            continue
        given = {id(c): _given_by_sample(c, rows) for c in (call, *later)}
        yield _start(block, index, call, at, later, given)
        if any(given.values()):
            yield _start(block, index, call, at, later, {})


def rows_of(call: Call) -> int:
    """Return how many rows the call of a DropPath has; 0 if it is given no batch."""
    assert isinstance(call.module, DropPath)
    return _rows(call.places.get(0, call.places.get("x")), call.module.axis)


def _why_late(module: nnx.Module, block: Call, index: int) -> str:
    """Return why what a DropPath is given is not known where its branch begins; nothing if it is.

    Known is what the block itself is given, by the same name.
    """
    named, handed = named_arguments(module.__call__, *block.given), block.calls[index].given[1]
    for name, value in handed.items():
        is_argument = name in HANDED and name in named and named[name] is value
        if name != "x" and value is not None and not is_argument:
            must = ", which is no argument of its block by that name" if name in HANDED else ""
            return f"its call is given {name}{must}"
    return "the example has it in evaluation" if handed.get("deterministic") else ""


def _handed(block: Call, index: int) -> tuple[str, ...]:
    """Return the names of what the block hands on to a DropPath, also if that is None."""
    names = signature(block.module.__call__).parameters.keys() | block.places.keys()
    return tuple(name for name in block.calls[index].given[1] if name in HANDED and name in names)


def _rows(value: Any, axis: int) -> int:
    has_axis = _is_array(value) and -value.ndim <= axis < value.ndim
    return int(value.shape[axis]) if has_axis else 0


def _given_by_sample(call: Call, rows: int) -> list[Place]:
    """Return the places of arguments that hold an array whose first axis is the batch."""

    def has_rows(value: Any) -> bool:
        each = value if isinstance(value, tuple | list) else [value]
        return any(_rows(v, 0) == rows for v in each)

    return [place for place, value in call.places.items() if has_rows(value)]


def _has_weights(call: Call) -> bool:
    return any(jnp.ndim(p) > 1 for p in jax.tree.leaves(nnx.state(call.module, nnx.Param)))


def _is_array(value: Any) -> bool:
    return isinstance(value, jax.Array | np.ndarray | jax.ShapeDtypeStruct)


def _start(
    block: Call, index: int, call: Call, at: Place, later: list[Call], given: dict[int, list[Place]]
) -> Start:
    names, dropping = block.names, block.calls[index]
    drop, begin = names[id(dropping.module)], names[id(call.module)]
    per_sample = tuple(place for place in given.get(id(call), []) if place != at)
    skipped: list[Any] = [(begin, Begins(drop, at, per_sample, _handed(block, index)))]
    follows = dict[Path, tuple[list[Place], list[Place]]]()
    for each in later:
        if len(signature(each.module.__call__).parameters) > 1 and id(each.module) in names:
            one = follows.setdefault(names[id(each.module)], ([], []))
            one[0].extend(given.get(id(each), []))
            one[1].extend(place for place, value in each.places.items() if value is not None)
    skipped += [(path, Follows(drop, tuple(a), tuple(b))) for path, (a, b) in follows.items()]
    return Start(call.module, block.drop_calls.index(index), (begin, drop), tuple(skipped))
