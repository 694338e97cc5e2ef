"""Threefry-2x32-20 against Random123's known answers and against Python's integers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from droppath import fold_in, key, random_bits, split
from droppath.random import threefry2x32

M = 2**32 - 1
word = st.integers(0, M)


def cipher(k0: int, k1: int, x0: int, x1: int) -> tuple[int, int]:
    """Threefry-2x32-20 round by round, as the paper's figure 5 has it, in Python's integers."""
    ks = [k0, k1, 0x1BD11BDA ^ k0 ^ k1]
    x0, x1 = (x0 + k0) & M, (x1 + k1) & M
    for i in range(20):
        r = [13, 15, 26, 6, 17, 29, 16, 24][i % 8]
        x0 = (x0 + x1) & M
        x1 = ((x1 << r | x1 >> 32 - r) & M) ^ x0
        if i % 4 == 3:
            n = i // 4 + 1
            x0, x1 = (x0 + ks[n % 3]) & M, (x1 + ks[(n + 1) % 3] + n) & M
    return x0, x1


KNOWN = [  # Random123, tests/kat_vectors: "threefry2x32 20 counter key result"
    ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
    ((M, M), (M, M), (0x1CB996FC, 0xBB002BE7)),
    ((0x13198A2E, 0x03707344), (0x243F6A88, 0x85A308D3), (0xC4923A9C, 0x483DF7A0)),
]


@pytest.mark.parametrize(("k", "counter", "want"), KNOWN)
def test_the_cipher_gives_random123s_known_answers(k, counter, want):
    got = threefry2x32(np.array(k, np.uint32), *np.array(counter, np.uint32))
    assert (int(got[0]), int(got[1])) == want
    assert cipher(*k, *counter) == want


@given(word, word, word, word)
def test_the_cipher_is_that_of_pythons_integers(k0, k1, x0, x1):
    got = threefry2x32(np.array([k0, k1], np.uint32), np.uint32(x0), np.uint32(x1))
    assert tuple(map(int, got)) == cipher(k0, k1, x0, x1)


def test_the_cipher_leaves_its_arguments_as_they_are():
    k, x0, x1 = key(7), np.arange(3, dtype=np.uint32), np.ones(3, np.uint32)
    threefry2x32(k, x0, x1)
    assert k.tolist() == [0, 7]
    assert (x0.tolist(), x1.tolist()) == ([0, 1, 2], [1, 1, 1])


@pytest.mark.parametrize("seed", [0, 1, 2**31, M, np.int64(M), np.uint32(M)])
def test_a_key_is_zero_and_the_seed(seed):
    assert key(seed).dtype == np.uint32
    assert key(seed).tolist() == [0, int(seed)]


@given(word, word, word)
def test_fold_in_is_the_cipher_of_the_counter_zero_and_data(k0, k1, data):
    got = fold_in(np.array([k0, k1], np.uint32), data)
    assert (got.dtype, tuple(got.tolist())) == (np.uint32, cipher(k0, k1, 0, data))


def test_fold_in_of_many_is_each_of_them():
    keys, data = split(key(3), 4), np.arange(4, dtype=np.uint32)
    want = [[fold_in(k, int(i)).tolist() for i in data] for k in keys]
    assert fold_in(keys[:, None], data).tolist() == want
    assert fold_in(keys, 2).tolist() == [row[2] for row in want]
    assert np.diagonal(want).T.tolist() == fold_in(keys, data).tolist()


def test_split_gives_fold_in_of_each_index():
    assert split(key(9)).tolist() == [list(cipher(0, 9, 0, i)) for i in range(2)]
    assert split(key(9), 5).tolist() == [list(cipher(0, 9, 0, i)) for i in range(5)]
    assert split(split(key(9), 3), 4).shape == (3, 4, 2)
    assert split(key(9), 0).shape == (0, 2)


@given(word, word, st.integers(0, 5), st.integers(0, 2**64 - 5))
def test_a_word_of_random_bits_is_the_xor_of_the_cipher_of_its_counter(k0, k1, num, offset):
    want = [a ^ b for i in range(num) for a, b in [cipher(k0, k1, *divmod(offset + i, 2**32))]]
    got = random_bits(np.array([k0, k1], np.uint32), num, offset)
    assert (got.dtype, got.tolist()) == (np.uint32, want)


@pytest.mark.parametrize("offset", [0, 1, 2**32 - 2, 2**32, 2**63 - 1, 2**63, 2**64 - 3])
def test_the_counter_carries_into_its_high_word_and_reaches_the_last_of_2_to_the_64(offset):
    want = [a ^ b for i in range(3) for a, b in [cipher(0, 5, *divmod(offset + i, 2**32))]]
    assert random_bits(key(5), 3, offset).tolist() == want


def test_random_bits_of_several_keys_are_those_of_each():
    keys = split(key(1), 6).reshape(2, 3, 2)
    want = [[random_bits(k, 4, 9).tolist() for k in row] for row in keys]
    assert random_bits(keys, 4, 9).tolist() == want


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: key(-1), "seed must be an integer in [0, 2**32), got -1"),
        (lambda: key(2**32), "seed must be an integer in [0, 2**32), got 4294967296"),
        (lambda: key(2**40 + 5), "seed must be an integer in [0, 2**32), got 1099511627781"),
        (lambda: key(0.0), "seed must be an integer, got 0.0"),
        (lambda: key(None), "seed must be an integer, got None"),
        (lambda: key(False), "seed must be an integer, got False"),
        (lambda: fold_in(key(0), -1), "data must be an integer in [0, 2**32), got -1"),
        (lambda: fold_in(key(0), 2**32), "data must be an integer in [0, 2**32), got 4294967296"),
        (lambda: fold_in(key(0), 1.5), "data must be an integer, got 1.5"),
        (lambda: split(key(0), -1), "num must be an integer in [0, 2**32), got -1"),
        (lambda: random_bits(key(0), -1), "num must be an integer in [0, 2**32), got -1"),
        (lambda: random_bits(key(0), 2.5), "num must be an integer, got 2.5"),
        (
            lambda: random_bits(key(0), 2, 2**64 - 1),
            "offset must be an integer in [0, 2**64 - 2 + 1), got 18446744073709551615",
        ),
        (
            lambda: random_bits([0, 5], 1),
            "key must be uint32 of shape (2,), such as droppath.key(7), got int64 of (2,)",
        ),
        (
            lambda: fold_in(5, 1),
            "key must be uint32 of shape (2,), such as droppath.key(7), got int64 of ()",
        ),
        (
            lambda: split(np.uint32(5)),
            "key must be uint32 of shape (2,), such as droppath.key(7), got uint32 of ()",
        ),
    ],
)
def test_a_bad_argument_is_named(call, text):
    with pytest.raises(ValueError) as error:
        call()
    assert str(error.value) == text
