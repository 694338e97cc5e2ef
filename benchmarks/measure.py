"""How time is taken: all methods of a case in one setup in one process, one step of each by turns.

A slow minute of the machine then falls on all of them alike. Each round has an order of its own, so
that no method always follows the same other. Ratios are within a setup: each has its own process,
for what frameworks hold of memory, threads and caches would else fall on one another.
"""

import ctypes
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from benchmarks.cases import BASES, Block, Case
from benchmarks.records import Record
from droppath import key, layer_plan, split

DRAWS = 10_000  # of a batch, for the realised rate
FEWEST, MOST = 9, 200  # rounds: enough for quartiles; more does not narrow them

TRIM_THRESHOLD, MMAP_THRESHOLD, ARENA_MAX = -1, -3, -8  # of glibc's malloc.h
MOST_BYTES = 1 << 30


@dataclass(frozen=True)
class Step:
    """A forward and backward, ready to be run to its end again and again; its peak in bytes."""

    run: Callable[[], object]
    memory: int


class Setup(Protocol):
    """A framework, eager or compiled; device is "cpu" or a GPU's name."""

    name: str
    device: str

    def labels(self, block: Block) -> Mapping[str, str]:
        """Return the methods that can be measured on a block, and what to call them."""

    def prepare(self, case: Case, method: str) -> Step:
        """Return the step of a method, compiled and run at least once."""

    def realised_rate(self, method: str, drop_prob: float, batch: int, draws: int) -> float:
        """Return the share of samples that a method drops in that many draws of a batch."""


def measure(case: Case, setup: Setup, seconds: float, say: Callable[[str], None]) -> list[Record]:
    """Return a record for each method of the case that the setup has, timed for about `seconds`."""
    labels = setup.labels(case.block)
    steps = {}
    for method in filter(labels.__contains__, case.methods):
        say(labels[method])
        steps[method] = setup.prepare(case, method)
    say(f"{len(steps)} steps by turns")
    times = interleave({method: step.run for method, step in steps.items()}, seconds)
    say("realised rates")
    return [
        Record(
            case=case,
            setup=setup.name,
            method=method,
            label=labels[method],
            seconds=quartiles(times[method]),
            repeats=len(times[method]),
            ratios={
                base: median_ratio(times[method], times[base]) for base in BASES if base in times
            },
            memory=step.memory,
            rate=realised_rate(setup, case, method),
            draws=DRAWS,
        )
        for method, step in steps.items()
    ]


def realised_rate(setup: Setup, case: Case, method: str) -> float:
    """Return the share of samples that a method drops, the mean over the layers, in DRAWS draws.

    Of a plan, which is the same in every setup, the share of layers.
    """
    if method == "plan":
        return float(1 - layer_plan(split(key(0), DRAWS), case.rates).mean())
    draws = DRAWS // len(case.rates)
    return float(np.mean([setup.realised_rate(method, p, case.batch, draws) for p in case.rates]))


def hold_memory() -> None:
    """Let freed memory stay with the process, as it does on a GPU; before threads are started.

    Else each step waits for fresh pages from the system, a tenth of its time where it was measured.
    Without glibc nothing is done.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(TRIM_THRESHOLD, MOST_BYTES)
        mallopt(MMAP_THRESHOLD, MOST_BYTES)
        mallopt(ARENA_MAX, 1)  # a thread's own arena holds no more than 64 MiB


def interleave(runs: Mapping[str, Callable[[], object]], seconds: float) -> dict[str, list[float]]:
    """Return the seconds of each run in each round; a first round is not timed."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    turns, shuffle = list(runs.items()), random.Random(0).shuffle
    for _, run in turns:
        run()
    start = time.perf_counter()
    for rounds in range(MOST):
        if rounds >= FEWEST and time.perf_counter() - start > seconds:
            break
        shuffle(turns)
        for name, run in turns:
            before = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - before)
    return times


def median_ratio(seconds: Sequence[float], to: Sequence[float]) -> float:
    """Return the median of the ratios within each round."""
    return float(np.median(np.divide(seconds, to)))


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """Return the lower quartile, the median and the upper quartile."""
    low, median, high = np.percentile(values, (25, 50, 75))
    return float(low), float(median), float(high)
