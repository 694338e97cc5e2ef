"""The digits of pi and of e, by other arithmetic."""

import math
from fractions import Fraction

from conformance.make_golden import inputs


def test_pi_and_e_have_their_known_digits():
    # pi: the first words of Blowfish's P-array; e: TEA's and RC5's constant, and the word after it
    assert f"{inputs.PI >> inputs.BITS - 96:x}" == "243f6a8885a308d313198a2e"
    assert f"{inputs.E >> inputs.BITS - 64:x}" == "b7e151628aed2a6a"
    assert f"{inputs.PI % 2**64:x}" == pi_by_a_series_of_ramanujans(inputs.BITS)


def pi_by_a_series_of_ramanujans(bits):
    """The last 64 of so many bits of pi's fraction: 1914, equation 44, 8 digits a term."""
    total = sum(
        Fraction(
            math.factorial(4 * k) * (1103 + 26390 * k), math.factorial(k) ** 4 * 396 ** (4 * k)
        )
        for k in range(bits // 24)
    )
    scale = 1 << bits + 64
    root_of_8 = math.isqrt(8 * scale * scale)
    pi = scale * 9801 * total.denominator * scale // (root_of_8 * total.numerator)
    return f"{pi >> 64 & 2**64 - 1:x}"
