"""A program to compile, what it is to be compared with, and what a compiler says of it."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple
from unittest.mock import patch

import jax

from conformance.aot.targets import Target
from conformance.hlo import collectives, sees


class Program(NamedTuple):
    """A program, and what its numbers are held to.

    share: rows of the batch on each device. like: the program that exchanges the same data; None if
    it is to exchange none. masked: the one that computes all rows. rows: which part of the FLOPs of
    `like` it is to take, None where that is not known. state: bytes that it donates. loops: whether
    it scans over layers.
    """

    name: str
    lower: Callable[[Target], jax.stages.Lowered]
    share: int
    like: str | None = None
    masked: str | None = None
    rows: float | None = None
    state: int = 0
    loops: bool = False

    @property
    def conditional(self) -> bool:
        """Whether the branch is behind `lax.cond`."""
        return "batch" in self.name and self.masked is not None


@dataclass(frozen=True)
class Compiled:
    """What a program became for one target. Numbers are those of one device.

    flops, bytes: of one run, None where the compiler gives none. temporary: bytes beside arguments
    and results. donated: bytes of arguments whose place results take. batch: the largest that an
    operation sees, of `share` that are the device's own.
    """

    target: str
    kind: str
    chips: int
    program: str
    flops: float | None
    bytes: float | None
    temporary: int
    donated: int
    collectives: dict[str, int]
    batch: int
    share: int
    seconds: float


def measure(target: Target, program: Program) -> Compiled:
    """Compile a program, and ask what it became."""
    lowered = program.lower(target)
    start = time.perf_counter()
    compiled = lowered.compile()
    seconds = time.perf_counter() - start
    text, chips = compiled.as_text() or "", len(target.devices)
    memory: Any = compiled.memory_analysis()
    cost: Any = compiled.cost_analysis() or {}
    if program.loops and cost.get("flops"):
        cost = unrolled(target, program).cost_analysis()
    return Compiled(
        target.name,
        target.kind,
        chips,
        program.name,
        cost.get("flops") or None,
        cost.get("bytes accessed") or None,
        memory.temp_size_in_bytes,
        memory.alias_size_in_bytes,
        dict(sorted(collectives(text).items())),
        sees(text, program.share * chips, program.share),
        program.share,
        round(seconds, 1),
    )


def unrolled(target: Target, program: Program) -> jax.stages.Compiled:
    """Compile a program without its loops, of which a compiler counts the FLOPs of one turn."""
    jax.clear_caches()
    with patch.object(jax.lax, "scan", partial(jax.lax.scan, unroll=True)):
        compiled = program.lower(target).compile()
    jax.clear_caches()
    return compiled
