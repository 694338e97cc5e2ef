"""Where the branches of a model's blocks may begin: what an example's forward calls, and in order.

A block is a module whose own forward calls a DropPath. What it calls before is where the branch may
begin, the earliest first. Not here: whether it does (proof.py).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from droppath.places import Arguments, Place, by_place
from droppath_torch.hooks import Begins, Follows
from droppath_torch.modules import DropPath, DropPathResidual


@dataclass
class Call:
    """A call of a module, with what it called itself."""

    module: nn.Module
    given: Arguments
    calls: list["Call"] = field(default_factory=list)

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
        called = [call.module for call in self.calls]
        return [drop for drop in dict.fromkeys(called) if isinstance(drop, DropPath)]


def is_drop(module: nn.Module) -> bool:
    """Return whether a module is a DropPath whose branch is another's."""
    return isinstance(module, DropPath) and not isinstance(module, DropPathResidual)


@dataclass(frozen=True)
class Start:
    """Where a branch may begin: at a call, whose argument at a place has the rows."""

    drop: DropPath
    begin: nn.Module
    begins: Begins
    follows: list[tuple[nn.Module, Follows]]

    def hook(self) -> list[Any]:
        """Register the hooks. Returns their handles."""
        both: list[tuple[nn.Module, Any]] = [(self.begin, self.begins), *self.follows]
        return [m.register_forward_pre_hook(hook, with_kwargs=True) for m, hook in both]


def record(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Call]:
    """Run the model without a gradient. Returns the calls of its blocks, as they end.

    Their tensors are those that were passed, not copies; their lists are as they were then.
    """
    stack, blocks = [Call(model, ((), {}))], list[Call]()

    def enter(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        args, kwargs = tree_map_only(Tensor, lambda x: x, (args, kwargs))  # in lists of our own
        call = Call(module, (args, kwargs))
        stack[-1].calls.append(call)
        stack.append(call)

    def leave(module: nn.Module, args: Any, output: Any) -> None:
        call = stack.pop()
        if call.drop_calls:
            blocks.append(call)
        else:
            call.calls.clear()
            call.given = tree_map_only(Tensor, _shape_of, call.given)  # activations are large

    with _hooked(model, enter, leave), torch.no_grad():
        model(*args, **kwargs)
    return blocks


@contextmanager
def _hooked(model: nn.Module, enter: Any, leave: Any) -> Iterator[None]:
    handles = []
    try:
        for module in model.modules():
            handles.append(module.register_forward_pre_hook(enter, with_kwargs=True))
            handles.append(module.register_forward_hook(leave))
        yield
    finally:
        for handle in handles:
            handle.remove()


def starts(block: Call, index: int) -> Iterator[Start]:
    """Yield where the branch may begin whose DropPath is the block's call of this index.

    First come the calls since the DropPath before, then those before it. Each is tried with the
    per-sample arguments gathered, then without. A later one must have weights to save. The first is
    no Identity: that computes nothing, and may stand on the stream.
    """
    drop = block.calls[index].module
    assert isinstance(drop, DropPath)
    rows = rows_of(block.calls[index])
    before = [i for i in block.drop_calls if i < index]
    since = before[-1] + 1 if before else 0
    is_identity = [type(call.module) is nn.Identity for call in block.calls]
    first = next((i for i in range(since, index) if not is_identity[i]), index)
    for i in (*range(first, index), *range(since)):
        call = block.calls[i]
        at = next((p for p, v in call.places.items() if _rows(v, drop.axis) == rows), None)
        if at is None or is_drop(call.module):
            continue
        later = [c for c in block.calls[i + 1 : index] if not is_drop(c.module)]
        if i != first and not any(map(_has_weights, (call, *later))):
            continue
        given = {id(c): _given_by_sample(c, rows) for c in (call, *later)}
        yield _start(drop, call, at, later, given)
        if any(given.values()):
            yield _start(drop, call, at, later, {})


def rows_of(call: Call) -> int:
    """Return how many rows the call of a DropPath has; 0 if it is given no batch."""
    assert isinstance(call.module, DropPath)
    return _rows(call.places.get(0, call.places.get("x")), call.module.axis)


def _rows(value: Any, axis: int) -> int:
    has_axis = isinstance(value, Tensor) and -value.ndim <= axis < value.ndim
    return value.shape[axis] if has_axis else 0


def _given_by_sample(call: Call, rows: int) -> list[Place]:
    """Return the places of arguments that hold a tensor whose first axis is the batch."""

    def has_rows(value: Any) -> bool:
        each = value if isinstance(value, tuple | list) else [value]
        return any(_rows(v, 0) == rows for v in each)

    return [place for place, value in call.places.items() if has_rows(value)]


def _has_weights(call: Call) -> bool:
    return any(p.ndim > 1 for p in call.module.parameters())


def _shape_of(x: Tensor) -> Tensor:
    return torch.empty(x.shape, dtype=x.dtype, device="meta")


def _start(
    drop: DropPath, call: Call, at: Place, later: list[Call], given: dict[int, list[Place]]
) -> Start:
    per_sample = [place for place in given.get(id(call), []) if place != at]
    follows = dict[nn.Module, Follows]()
    for each in later:
        if len(signature(each.module.forward).parameters) > 1:
            known = [place for place, value in each.places.items() if value is not None]
            one = follows.setdefault(each.module, Follows(drop, [], []))
            one.known.extend(known)
            one.per_sample.extend(given.get(id(each), []))
    return Start(drop, call.module, Begins(drop, at, per_sample), list(follows.items()))
