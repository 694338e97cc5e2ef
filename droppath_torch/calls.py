"""Which call of a layer it is, within one forward of a model (KEY-8).

A forward begins with the call of the model that `keyed` was given; a layer's calls count within it.
A call that activation checkpointing makes again gets the number that it repeats, or is refused
where that cannot be known. Not here: what a call draws (step_masks.py).
"""

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from droppath_torch.arrays import Segment, checkpoint_segment, in_backward, is_compiling

OUTSIDE_KEYED = (
    "backward must run within the keyed() block of its forward, since activation checkpointing "
    "runs the forward again"
)
SECOND_FORWARD = (
    "key must serve one forward of model, got a call of a DropPath in a second: enter keyed again "
    "with another key for another forward"
)
OUTSIDE_FORWARD = (
    "key must serve one call of each DropPath outside a forward, got a second: call the model "
    "itself that keyed was given, or enter keyed again with another key"
)
UNKNOWN_CALL = (
    "checkpointing must run again what tells which call of a DropPath it repeats, got one of "
    "{calls} calls and no sign which: give each branch a DropPath of its own, or do not nest "
    "checkpoints around this one"
)
NAME = "_droppath_forwards"  # of the attribute, and of the hooks


class Forwards:
    """Counts the forwards of a model."""

    def __init__(self) -> None:
        self.begun = 0
        self.depth = 0  # a model may call itself

    @property
    def current(self) -> int:
        """Return the number of the forward that runs, from 1, or 0 if none does."""
        return self.begun if self.depth else 0


@contextmanager
def watched(model: nn.Module) -> Iterator[Forwards]:
    """Count the forwards of a model, for as long as the block lasts.

    By hooks in their places and not by `register_forward_pre_hook`, which names each one anew: then
    torch.compile would compile again at each block. It cannot trace that a hook is set; where the
    block itself is compiled all in it counts as one forward.
    """
    outer, forwards = getattr(model, NAME, None), Forwards()
    if is_compiling():
        forwards.begun = forwards.depth = 1
        yield forwards
        return
    places: tuple[dict[Any, Any], ...] = (
        model._forward_pre_hooks,
        model._forward_hooks,
        model._forward_hooks_always_called,
    )
    for hooks, hook in zip(places, (_begin, _end, True), strict=True):
        hooks[NAME] = hook
    setattr(model, NAME, forwards)
    try:
        yield forwards
    finally:
        if outer is not None:
            setattr(model, NAME, outer)
        else:
            delattr(model, NAME)
            for hooks in places:
                hooks.pop(NAME, None)


def _begin(model: Any, _: Any) -> None:
    if is_compiling() or not in_backward():
        forwards = model._droppath_forwards
        if not forwards.depth:
            forwards.begun += 1
        forwards.depth += 1


def _end(model: Any, _: Any, __: Any) -> None:
    if is_compiling() or not in_backward():
        model._droppath_forwards.depth -= 1


class Calls:
    """Numbers the calls of one layer: 0, 1, ... in one forward, and again in its recomputation."""

    def __init__(self, forwards: Forwards) -> None:
        self.forwards = forwards
        self.forward = 0  # the one that its calls are in
        self.made = 0
        self.repeated = 0  # by programs that a recomputation runs
        self.eager = False  # whether any was made outside of a program
        self.in_program = is_compiling()  # `keyed` itself is compiled
        self.segments: dict[int, weakref.ref[Any]] = {}  # by call: the checkpoint that it is in
        self.repeating: tuple[weakref.ref[Any], object, int] | None = None

    def number(self) -> int:
        """Return the number of an eager call. Raises where it cannot be known."""
        segment = checkpoint_segment()
        if in_backward() or (segment is not None and segment.run is not None):
            return self._repeated(segment)
        now, call = self.forwards.current, self.made
        if call and not (now and now == self.forward):
            raise ValueError(SECOND_FORWARD if now or self.forward else OUTSIDE_FORWARD)
        if segment is not None:
            self.segments[call] = weakref.ref(segment.checkpoint)
        self.forward, self.made, self.eager = now, call + 1, True
        return call

    def number_in_program(self) -> int | None:
        """Return the number of a call that torch.compile traces; None if others came before.

        Where a recomputation after the forward runs a program of all of its calls, they count anew.
        """
        call = self.made
        if call and not self.in_program and self._made_before():
            if self.eager or self.forwards.current or not (self.forward and self._in_backward()):
                return None
            call = self.repeated - self._repeated_before()
            self.repeated += 1
            return call
        self.forward, self.made = self.forwards.current, call + 1
        return call

    # what a trace has done is not done: these are as they were before the program

    @torch._dynamo.assume_constant_result
    def _made_before(self) -> bool:
        return self.made > 0

    @torch._dynamo.assume_constant_result
    def _repeated_before(self) -> int:
        return self.repeated

    @torch._dynamo.assume_constant_result
    def _in_backward(self) -> bool:
        return in_backward()

    def _repeated(self, segment: Segment | None) -> int:
        """Return the number of the call that a recomputation repeats."""
        if not self.made:
            raise RuntimeError(OUTSIDE_KEYED)
        if self.made == 1:
            return 0
        if segment is None or segment.run is None:
            raise RuntimeError(UNKNOWN_CALL.format(calls=self.made))
        of, run = weakref.ref(segment.checkpoint), segment.run
        before = self.repeating
        again = before is not None and before[0]() is segment.checkpoint and before[1] == run
        done = before[2] if before is not None and again else 0
        mine = [c for c, ref in self.segments.items() if ref() is segment.checkpoint]
        if done >= len(mine):
            raise RuntimeError(UNKNOWN_CALL.format(calls=self.made))
        self.repeating = of, run, done + 1
        return mine[done]
