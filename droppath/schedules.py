"""Schedules: drop_prob over the depth of a model, and over training.

Plain float64 arithmetic on the host (SPEC.md, area SCHED). Not here: changing a model's modules,
which is the backends' work.
"""

import math
from collections.abc import Iterable, Sequence
from fractions import Fraction
from typing import Any, Literal, SupportsIndex, cast, overload

import numpy as np
from numpy.typing import NDArray

from droppath.arguments import (
    check_choice,
    check_drop_prob,
    check_flags,
    check_number,
    check_word,
)
from droppath.masks import DRAW_BITS

Rule = Literal["linear", "paper", "exclusive", "uniform"]
Shape = Literal["linear", "cosine"]
GRID = 1 << DRAW_BITS  # the rates that are drawn exactly are its fractions (KEY-2)
TEXT = str, bytes, bytearray  # Python takes these for sequences; they hold no rates and no depths


@overload
def drop_path_rates(
    drop_path_rate: float, depth: SupportsIndex, *, rule: Rule = "linear", whole: bool = False
) -> list[float]: ...
@overload
def drop_path_rates(
    drop_path_rate: float, depth: Sequence[int], *, rule: Rule = "linear", whole: bool = False
) -> list[list[float]]: ...
def drop_path_rates(
    drop_path_rate: float,
    depth: SupportsIndex | Sequence[int],
    *,
    rule: Rule = "linear",
    whole: bool = False,
) -> list[float] | list[list[float]]:
    """Return the drop_prob of each of `depth` blocks, the maximum being drop_path_rate.

    With i = 0 .. L-1, the i-th of L blocks gets drop_path_rate times (SCHED-1):

    - "linear": i / (L-1), and 1 if L = 1; timm, Swin, ConvNeXt.
    - "paper": (i+1) / L; Huang et al. 2016, equation 4.
    - "exclusive": i / L, so that the maximum is not reached; EfficientNet.
    - "uniform": 1; DINOv3.

    Args:
      drop_path_rate: probability in [0, 1].
      depth: number of blocks, or a list with the number in each stage.
      whole: True gives each stage the rates nearest to these whose sum is a whole number, so that
        a `layer_plan` drops that many layers in every step: all by one factor, at most 1 each
        (SCHED-6). The sums of short stages can be far from what they were: see `expected_depth`.

    Returns: a list of L floats, or one list a stage.
    Raises: ValueError for a rate outside [0, 1], a negative depth, an unknown rule.

    >>> drop_path_rates(0.5, 3)
    [0.0, 0.25, 0.5]
    >>> drop_path_rates(0.5, [1, 2], rule="uniform")
    [[0.5], [0.5, 0.5]]
    >>> sum(drop_path_rates(0.4, 12)), sum(drop_path_rates(0.4, 12, whole=True))
    (2.4, 2.0)
    """
    check_flags(whole=whole)
    rate = check_drop_prob(drop_path_rate, "drop_path_rate")
    check_choice("rule", rule, ("linear", "paper", "exclusive", "uniform"))
    nested = isinstance(depth, Sequence) and not isinstance(depth, TEXT)
    given = cast(Sequence[int], depth) if nested else [cast(SupportsIndex, depth)]
    sizes = [check_word(size, "depth") for size in given]
    rates = iter([rate * _fraction(i, sum(sizes), rule) for i in range(sum(sizes))])
    stages = [[next(rates) for _ in range(size)] for size in sizes]
    stages = [_whole(stage) for stage in stages] if whole else stages
    return stages if nested else stages[0]  # SCHED-3


def _fraction(i: int, blocks: int, rule: Rule) -> float:
    if rule == "linear":
        return i / (blocks - 1) if blocks > 1 else 1.0  # SCHED-2: one block gets the full rate
    if rule == "uniform":
        return 1.0
    return (i + 1) / blocks if rule == "paper" else i / blocks


def _whole(rates: list[float]) -> list[float]:
    """SCHED-6: multiples of 2^-23, in proportion to rates but at most 1, whose sum is whole."""
    count = math.ceil(math.fsum(rates) - 0.5 - 1e-9)  # the nearest whole number; a half goes down
    shares, full = [Fraction(p) for p in rates], list[int]()
    while True:
        rest = [i for i in range(len(rates)) if i not in full]
        total = sum(shares[i] for i in rest)
        factor = (count - len(full)) / total if total else Fraction(0)
        above = [i for i in rest if shares[i] * factor > 1]
        if not above:
            break
        full += above
    wanted = [Fraction(1) if i in full else p * factor for i, p in enumerate(shares)]
    units = [math.floor(p * GRID) for p in wanted]
    by_rest = sorted(range(len(rates)), key=lambda i: units[i] - wanted[i] * GRID)
    for i in by_rest[: count * GRID - sum(units)]:  # the largest remainders
        units[i] += 1
    return [n / GRID for n in units]


@overload
def ramp(
    step: float,
    *,
    begin: float,
    end: float,
    start: float = 0.0,
    stop: float = 1.0,
    shape: Shape = "linear",
) -> float: ...
@overload
def ramp(
    step: NDArray[Any],
    *,
    begin: float,
    end: float,
    start: float = 0.0,
    stop: float = 1.0,
    shape: Shape = "linear",
) -> NDArray[np.float64]: ...
def ramp(
    step: float | NDArray[Any],
    *,
    begin: float,
    end: float,
    start: float = 0.0,
    stop: float = 1.0,
    shape: Shape = "linear",
) -> float | NDArray[np.float64]:
    """Return the value at `step` of a ramp from start (step <= begin) to stop (step >= end).

    value = start + (stop - start) * w, with u = (step - begin) / (end - begin) and w = u for
    "linear", (1 - cos(pi u)) / 2 for "cosine". Continuous at both ends, which it meets exactly
    (SCHED-4). Multiply rates by it for a warm-up; a begin equal to end is a jump to stop at end.

    step: in the unit of begin and end; a number gives a float, an array float64 of its shape.
    Raises ValueError unless begin <= end, all finite, or for an unknown shape.

    >>> ramp(5, begin=0, end=10), ramp(99, begin=0, end=10, stop=0.3)
    (0.5, 0.3)
    """
    check_choice("shape", shape, ("linear", "cosine"))
    for name, value in {"begin": begin, "end": end, "start": start, "stop": stop}.items():
        check_number(value, name)
    if not begin <= end:
        raise ValueError(f"begin must be at most end, got begin={begin!r}, end={end!r}")
    at = np.asarray(step)
    if at.dtype.kind not in "iuf" or np.isnan(at).any():
        raise ValueError(f"step must be a number, got {step!r}")
    at = at.astype(np.float64)
    u = np.clip((at - begin) / (end - begin if end > begin else 1.0), 0.0, 1.0)
    w = u if shape == "linear" else (1 - np.cos(np.pi * u)) / 2
    values = np.where(at >= end, stop, np.where(at <= begin, start, start + (stop - start) * w))
    return values if values.ndim else float(values)


def expected_depth(rates: Iterable[float | Iterable[float]]) -> float:
    """Return the expected number of kept blocks, the sum of 1 - p (SCHED-5). Rates may be nested.

    >>> expected_depth(drop_path_rates(0.5, 54, rule="paper"))  # Huang et al. 2016, section 3
    40.25
    """
    if not isinstance(rates, Iterable) or isinstance(rates, TEXT) or _is_0d(rates):
        raise ValueError(f"rates must be a list of rates or of lists of them, got {rates!r}")
    nested = [p if isinstance(p, Iterable) and not isinstance(p, TEXT) else (p,) for p in rates]
    return math.fsum(1 - check_drop_prob(p, "rates") for stage in nested for p in stage)


def _is_0d(rates: object) -> bool:
    return getattr(rates, "ndim", 1) == 0
