"""Floating-point formats as SPEC.md uses them, and exact binomial bounds: NumPy only.

Numbers of any format travel as float64; rounding and steps are worked out from the format itself,
so that no library's bfloat16 is trusted.
"""

import math

import numpy as np

from conformance.protocol import Array

# (digits of the significand, smallest and largest exponent) as np.frexp counts; IEEE 754, bfloat16.
FORMATS = {
    "float64": (53, -1021, 1024),
    "float32": (24, -125, 128),
    "float16": (11, -13, 16),
    "bfloat16": (8, -125, 128),
}


def compute_type(dtype: str) -> str:
    """Return the dtype that SPEC.md computes in."""
    return "float64" if dtype == "float64" else "float32"


def step(values: Array, dtype: str) -> Array:
    """Return the distance to the next number of dtype, away from zero, at each value: float64."""
    digits, smallest, _ = FORMATS[dtype]
    _, exponents = np.frexp(values)
    return np.ldexp(1.0, np.maximum(exponents, smallest) - digits)


def round_to(values: Array, dtype: str) -> Array:
    """Return values rounded to dtype, ties to even, beyond its range to infinity, as float64."""
    values = np.asarray(values, np.float64)
    unit = step(np.where(np.isfinite(values), values, 0.0), dtype)
    with np.errstate(invalid="ignore"):
        rounded = np.where(np.isfinite(values), np.rint(values / unit) * unit, values)
        too_large = np.abs(rounded) > np.ldexp(2 - 2.0**-52, FORMATS[dtype][2] - 1)
    return np.copysign(np.where(too_large, np.inf, rounded), values)


def product(x: Array, s: float, dtype: str) -> Array:
    """Return SCALE-1's round_D(round_C(x) * s): s rounded to C, the product in C, then to D."""
    compute = np.dtype(compute_type(dtype)).type
    with np.errstate(over="ignore", invalid="ignore"):
        return round_to(x.astype(compute) * compute(s), dtype)


def sample(shape: tuple[int, ...], dtype: str, first: int = 1) -> Array:
    """Return numbers of dtype with nothing up the sleeve: 3 sin(first), 3 sin(first + 1), ..."""
    return round_to(3 * np.sin(np.arange(first, first + math.prod(shape))).reshape(shape), dtype)


def tail(count: int, trials: int, p: float) -> float:
    """Return the smaller of P(X <= count) and P(X >= count) for X binomial(trials, p), exactly."""
    if p in (0.0, 1.0):
        return float(count == trials * p)
    i = np.arange(trials)
    ratios = np.log((trials - i) / (i + 1)) + math.log(p) - math.log1p(-p)
    masses = np.exp(trials * math.log1p(-p) + np.concatenate([[0.0], np.cumsum(ratios)]))
    return float(min(masses[: count + 1].sum(), masses[count:].sum()))
