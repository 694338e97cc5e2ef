"""Numbers as exact fractions, rounded to nearest, ties to even, where SPEC.md says so.

Not here: the inputs (inputs.py), and which rows are kept (cipher.py).
"""

import math
from fractions import Fraction

# IEEE 754, and bfloat16: digits of the significand, smallest and largest exponent of 1.f * 2^e.
FORMATS = {
    "float64": (53, -1022, 1023),
    "float32": (24, -126, 127),
    "float16": (11, -14, 15),
    "bfloat16": (8, -126, 127),
}
INF, NAN = math.inf, math.nan


def nearest(value: Fraction, dtype: str) -> float:
    """Return the number of dtype nearest to value, ties to even, an infinity beyond the largest."""
    digits, smallest, largest = FORMATS[dtype]
    unit = Fraction(2) ** (max(exponent(value), smallest) - digits + 1)
    rounded = round(value / unit) * unit  # Python rounds a fraction's half to even
    if abs(rounded) < 2 ** (largest + 1):
        return float(rounded)
    return INF if rounded > 0 else -INF


def exponent(value: Fraction) -> int:
    """Return e such that 2^e <= |value| < 2^(e+1), and -10000 for 0."""
    if not value:
        return -10_000
    e = abs(value.numerator).bit_length() - value.denominator.bit_length()
    return e if abs(value) >= Fraction(2) ** e else e - 1


def largest(dtype: str) -> float:
    """Return the largest finite number of dtype."""
    digits, _, top = FORMATS[dtype]
    return math.ldexp(2**digits - 1, top - digits + 1)


def factor(
    p: float, dtype: str, training: bool, scale_by_keep: bool = True, scale_at: str = "train"
) -> float:
    """Return SCALE-1's s, SCALE-3's q, or 1 where there is no factor."""
    if not scale_by_keep or (scale_at == "train") != training or p == 1:
        return 1.0
    q = nearest(1 - Fraction(p), "float64")
    value = q if not training else nearest(1 / Fraction(q), "float64")
    return nearest(Fraction(value), compute_type(dtype))


def compute_type(dtype: str) -> str:
    """Return the dtype that SPEC.md computes in."""
    return "float64" if dtype == "float64" else "float32"


def product(x: float, s: float, dtype: str) -> float:
    """Return round_D(round_C(x) * s) for a finite s > 0."""
    if x == 0 or not math.isfinite(x):
        return x
    computed = nearest(Fraction(x) * Fraction(s), compute_type(dtype))
    return nearest(Fraction(computed), dtype) if math.isfinite(computed) else computed
