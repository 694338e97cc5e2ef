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


def edges(dtype: str) -> Array:
    """Return the numbers of dtype at its edges, of both signs: where it ends, and what is special.

    0, infinity, the largest and two thirds of it, the smallest normal, the largest and the smallest
    subnormal, 1, the next above it and two ties; NaN.
    """
    digits, smallest, largest = FORMATS[dtype]
    top, normal = np.ldexp(2 - 2.0 ** (1 - digits), largest - 1), np.ldexp(0.5, smallest)
    least, unit = np.ldexp(1.0, smallest - digits), 2.0 ** (1 - digits)
    ends = [0.0, np.inf, top, top / 3 * 2, top - np.ldexp(1.0, largest - digits), normal]
    ends += [normal - least, least, 1.0, 1 + unit, 1 + 3 * unit, 1 + 5 * unit]
    values = round_to(np.array(ends), dtype)
    return np.concatenate([values, -values, [np.nan]])


def flushed(want: Array, got: Array, x: Array, dtype: str) -> Array:
    """Return want, but got where it is a zero that SPEC.md lets stand for a subnormal number."""
    if not want.shape == got.shape == x.shape:
        return want
    normal = np.ldexp(0.5, FORMATS[dtype][1])
    small = (np.abs(x) < normal) & (x != 0) | (np.abs(want) < normal) & (want != 0)
    zero = (got == 0) & (np.signbit(got) == np.signbit(want))
    return np.where(small & zero, got, want)


def tail(count: int, trials: int, p: float) -> float:
    """Return the smaller of P(X <= count) and P(X >= count) for X binomial(trials, p), exactly."""
    if p in (0.0, 1.0):
        return float(count == trials * p)
    return min(at_least(count, trials, p), at_least(trials - count, trials, 1 - p))


def at_least(count: int, trials: int, p: float) -> float:
    """Return P(X >= count) for X binomial(trials, p): the sum of its masses."""
    if p in (0.0, 1.0):
        return float(count <= trials * p)
    if count <= trials * p:  # the sum of the shorter tail has no cancellation
        return 1.0 if count <= 0 else 1 - at_least(trials - count + 1, trials, 1 - p)
    if count > trials:
        return 0.0
    log = math.lgamma(trials + 1) - math.lgamma(count + 1) - math.lgamma(trials - count + 1)
    log += count * math.log(p) + (trials - count) * math.log1p(-p)
    longest = int(40 * math.sqrt(trials * p * (1 - p))) + 1000  # of what follows no digit is left
    i = np.arange(count, min(trials, count + longest))
    ratios = np.cumprod((trials - i) / (i + 1) * (p / (1 - p)))
    return math.exp(log) * (1 + float(ratios.sum()))


def smallest_error(trials: int, p: float, alpha: float, power: float = 0.99) -> float:
    """Return the smallest e such that rates of p (1 - e) and p (1 + e) are found with this power.

    Found: the count of successes in so many trials has a tail below alpha under p. Infinite if no
    count is too small. A rate above 1 is taken as 1.
    """

    def error(p: float) -> float:
        """Return by how much a rate must exceed p to be found."""
        low, high = int(trials * p), trials + 1  # P(X >= high) < alpha <= P(X >= low)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if at_least(middle, trials, p) < alpha else (middle, high)
        if high > trials:
            return math.inf
        rates = [p, 1.0]
        for _ in range(50):
            rate = sum(rates) / 2
            rates[int(at_least(high, trials, rate) >= power)] = rate
        return rates[1] - p

    return max(error(p), error(1 - p)) / p
