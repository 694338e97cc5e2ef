"""Exact masks: keys, offsets and rates at which a wrong draw shows, and the comparison with KEY's.

Not here: which of them a clause looks at (clauses/key.py).
"""

import math
from dataclasses import replace
from typing import Any

import numpy as np

import droppath
from conformance.blocks import residual_mask
from conformance.calls import KEY, mode_options
from conformance.check import Finding, Results, Subject, equal
from conformance.protocol import Array, Call

KEYS = (
    KEY,
    droppath.fold_in(droppath.fold_in(KEY, 3), 1),
    *np.array(
        [[0, 0], [2**32 - 1] * 2, [1, 0], [2**31, 2**31 + 1], [0x13198A2E, 0x03707344]], np.uint32
    ),
)
SIZES = (0, 1, 2, 3, 7, 8, 64, 65, 128, 257, 4097, 70_000)
# Around the ends of 16, 31, 32 and 63 bits: counters of one word and two, of int32 and int64.
OFFSETS = (
    *(1, 5, 2**16 - 5, 2**31 - 9, 2**31 + 3, 2**32 - 7, 2**32 + 9, 2**33 + 7, 2**40),
    *(2**53 + 1, 2**63 - 8, 2**63 + 11, 2**64 - 64),
)
# Not exact in float32; in float32 but not on the grid of 2^-23; below it; nearly 1.
RATES = (
    *(0.001, 0.01, 0.1, 1 / 3, 0.37, 0.9, 0.999, 1e-4, 3e-7, 1e-9, 1 - 2**-12, 1 - 2**-23),
    *(1 - 2**-24, math.nextafter(1, 0), 0.0, 1.0),
)

# Where a draw is 0, and where it is 2^23 - 1: the first i with random_bits(KEY, 1, i)[0] >> 9 so,
# the same of fold_in(KEY, 1), and the first seed with random_bits(key(seed), 1)[0] >> 9 so.
ROW_OF_0, ROW_OF_MOST = 3_055_035, 22_525_397
UP_OF_0, UP_OF_MOST = 1_791_709, 18_590_319
SEED_OF_0, SEED_OF_MOST = 780_233, 20_192_286
# T = 0 in the first, 1 in the next four; float32 holds them all as normal numbers or as 0.
LEAST_RATES = (1e-50, 1e-30, 1e-9, 2**-24, 2**-23)
MOST_RATES = (1 - 2**-22, 1 - 2**-23, 1 - 2**-24, math.nextafter(1, 0))  # T up to 2^23


def exact(subject: Subject, call: Call, case: str = "", residual: bool = False) -> Results:
    """Yield the comparison of a call's mask, of every element, with the mask of its key.

    residual: whether to look at a residual block too, where that is claimed.
    """
    options, axis = call.options, call.options.get("axis", 0)
    drawn = {name: options[name] for name in ("mode", "groups", "offset") if name in options}
    keep = droppath.keep_mask(call.key, call.drop_prob, call.x.shape[axis], **drawn)
    column = keep.reshape([-1 if i == axis % call.x.ndim else 1 for i in range(call.x.ndim)])
    want = np.broadcast_to(column, call.x.shape) * 1.0
    words = [int(word) for word in call.key]
    case = f"{case}x of {call.x.shape}, p={call.drop_prob!r}, key={words}, {options}"
    yield same(case, want, subject.keep(call))
    if residual and "residual" in subject.info.claims:
        yield same(f"residual, {case}", want, residual_mask(subject, replace(call, op="residual")))


def same(case: str, want: Array, keep: Array) -> Finding | None:
    """Return a finding unless a mask, of bools, is the one wanted."""
    return equal(case, want * 1.0, keep * 1.0, "float32")


def masked(
    batch: int, p: float, mode: str, key: Array = KEY, groups: int = 1, offset: int = 0
) -> Call:
    """Return a call of [batch, 2] rows that draws from a key; options at their default are left."""
    options: dict[str, Any] = mode_options(mode)
    options |= {"groups": groups} if groups > 1 else {}
    options |= {"offset": offset} if offset else {}
    return Call(np.ones((batch, 2)), p, key=key, options=options)


def beside(draw: int) -> list[float]:
    """Return rates about a draw: T is the draw, one more, and what rounding makes of others."""
    grid = np.float32(draw / 2**23)
    return [
        float(grid),
        (draw + 1) / 2**23,
        (draw + 0.25) / 2**23,  # T is one more, also where float32 does not hold it: then
        (draw + 2**-17) / 2**23,  # this is rounded to the grid first
        float(np.nextafter(grid, np.float32(0))),
        float(np.nextafter(grid, np.float32(1))),
    ]


def beside_rest(up: int, group_size: int) -> list[float]:
    """Return rates whose b T mod 2^23 is at most up, the most that is; and the next above it.

    b T = r mod 2^23 has a solution T where r is a multiple of the power of 2 in b.
    """
    power = math.gcd(group_size, 2**23)
    inverse = pow(group_size // power, -1, 2**23 // power)
    rests = up // power, up // power + 1
    return [rest * inverse % (2**23 // power) / 2**23 for rest in rests]
