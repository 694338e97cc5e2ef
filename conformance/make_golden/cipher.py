"""Threefry-2x32-20 in Python's integers, and the masks that it draws: the clauses of KEY.

An own one, that must first give Random123's known answers (files.py holds it to that).
"""

import math
from fractions import Fraction

from conformance.make_golden.exact import nearest

# Random123, threefry.h: R_32x2_{0..7}_0 and SKEIN_KS_PARITY32.
ROTATIONS = (13, 15, 26, 6, 17, 29, 16, 24)
PARITY = 0x1BD11BDA
WORD = 2**32 - 1
Key = tuple[int, int]


def threefry(key: Key, counter: Key) -> Key:
    """Return the cipher of a counter: Threefry-2x32 with 20 rounds (KEY-1)."""
    schedule = (*key, key[0] ^ key[1] ^ PARITY)
    a, b = (counter[0] + key[0]) & WORD, (counter[1] + key[1]) & WORD
    for i in range(20):
        a, r = (a + b) & WORD, ROTATIONS[i % 8]
        b = ((b << r | b >> 32 - r) & WORD) ^ a
        if i % 4 == 3:
            n = i // 4 + 1
            a, b = (a + schedule[n % 3]) & WORD, (b + schedule[(n + 1) % 3] + n) & WORD
    return a, b


# Random123, examples/kat_vectors, threefry2x32 with 20 rounds: key, counter, cipher.
KNOWN: tuple[tuple[Key, Key, Key], ...] = (
    ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
    ((WORD, WORD), (WORD, WORD), (0x1CB996FC, 0xBB002BE7)),
    ((0x13198A2E, 0x03707344), (0x243F6A88, 0x85A308D3), (0xC4923A9C, 0x483DF7A0)),
)


def fold_in(key: Key, data: int) -> Key:
    """Return the key made from a key and an integer."""
    return threefry(key, (0, data))


def random_bits(key: Key, num: int, offset: int = 0) -> list[int]:
    """Return num words, the i-th from the counter offset + i."""
    ciphers = (threefry(key, (i >> 32, i & WORD)) for i in range(offset, offset + num))
    return [a ^ b for a, b in ciphers]


def threshold(p: float) -> int:
    """Return KEY-2's T."""
    return math.ceil(Fraction(nearest(Fraction(p), "float32")) * 2**23)


def keep_mask(
    key: Key, p: float, batch: int, mode: str = "row", groups: int = 1, offset: int = 0
) -> list[int]:
    """Return 1 where the row is kept, 0 where it is dropped (KEY-2, KEY-3, KEY-4)."""
    if mode == "row":
        return [int(word >> 9 >= threshold(p)) for word in random_bits(key, batch, offset)]
    if mode == "batch":
        return [int(random_bits(key, 1)[0] >> 9 >= threshold(p))] * batch
    b = batch // groups
    words, keep = random_bits(fold_in(key, 0), batch, offset), [0] * batch
    up = random_bits(fold_in(key, 1), groups, offset // b)
    for g in range(groups):
        m, rest = divmod(b * threshold(p), 2**23)
        m += up[g] >> 9 < rest
        for i in sorted(range(g * b, (g + 1) * b), key=lambda i: (words[i], i))[: b - m]:
            keep[i] = 1
    return keep


def layer_plan(key: Key, rates: list[float]) -> list[int]:
    """Return 1 where the layer runs, 0 where it is dropped (PLAN-1)."""
    words, runs = random_bits(fold_in(key, 0), len(rates)), [1] * len(rates)
    end = random_bits(fold_in(key, 1), 1)[0] >> 9
    for layer in sorted(range(len(rates)), key=lambda layer: (words[layer], layer)):
        begin, end = end, end + threshold(rates[layer])
        runs[layer] = int(begin >> 23 == end >> 23)
    return runs
