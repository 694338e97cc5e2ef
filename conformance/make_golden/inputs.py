"""What goes in: numbers, bits and a key with nothing up the sleeve.

x is made from the fraction of pi, dy and `keep` from that of e, and the key is the first two words
of pi, as in Blowfish and in Random123's known answers. docs/vectors.md says it in full.
"""

import math

from conformance.make_golden.cipher import WORD
from conformance.make_golden.exact import FORMATS, INF, NAN

# The binary digits of the fractions of pi (Machin's formula) and of e (its series), as integers.
BITS = 4096
ONE = 1 << BITS + 64  # 64 more, for the errors of the truncated terms


def arctan_of_inverse(n: int) -> int:
    """Return arctan(1/n) * ONE."""
    return sum((-1) ** k * (ONE // n ** (2 * k + 1)) // (2 * k + 1) for k in range(BITS))


PI = (16 * arctan_of_inverse(5) - 4 * arctan_of_inverse(239)) % ONE >> 64
E = sum(ONE // math.factorial(k) for k in range(BITS // 4)) % ONE >> 64
KEY = (PI >> BITS - 32, PI >> BITS - 64 & WORD)


def number(digits_of: int, i: int, dtype: str) -> float:
    """Return a number of dtype from bits 64 i to 64 i + 63: 1 of sign, 3 of exponent, significand.

    (-1)^sign * 1.f * 2^(exponent - 4), with as many bits of f as dtype has; the last are not used.
    """
    word = digits_of >> BITS - 64 * (i + 1) & 2**64 - 1
    digits = FORMATS[dtype][0]
    significand = 1 << digits - 1 | (word & 2**60 - 1) >> 61 - digits
    value = math.ldexp(significand, (word >> 60 & 7) - 4 - digits + 1)
    return -value if word >> 63 else value


def numbers(digits_of: int, shape: tuple[int, ...], dtype: str) -> list[float]:
    """Return as many numbers as an array of this shape has."""
    return [number(digits_of, i, dtype) for i in range(math.prod(shape))]


def bits(num: int) -> list[int]:
    """Return the first bits of the fraction of e: 1 0 1 1 0 1 1 1 1 1 1 0 ..."""
    return [E >> BITS - 1 - i & 1 for i in range(num)]


SIX = bits(6)  # the rows of x [6, 2]
SPECIAL = 3 * [INF, -INF, NAN, -1.0, -0.0]  # x [3, 5]
