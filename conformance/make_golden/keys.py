"""keys.json: keys and random bits."""

from typing import Any

from conformance.make_golden.cipher import KNOWN, fold_in, random_bits
from conformance.make_golden.inputs import KEY
from conformance.make_golden.vector import Vector, Vectors, vector, words


def key_vectors() -> Vectors:
    """Yield the vectors of keys and random bits."""
    why = "the key of a seed is the words 0 and seed"
    for seed in (0, 5, 2**32 - 1):
        yield random_vector(f"key/{seed}", why, "key", [0, seed], options={"seed": seed})
    yield from known_answers()
    key = words(KEY)
    why = "the integer is the low word of the counter, without a sign"
    for data in (0, 1, 7, 2**31, 2**32 - 1):
        want, options = [*fold_in(KEY, data)], {"data": data}
        yield random_vector(f"fold-in/{data}", why, "fold_in", want, key=key, options=options)
    why = "the i-th key of a split is fold_in(key, i), so that it does not depend on num"
    for num in (1, 2, 5):
        want = [word for i in range(num) for word in fold_in(KEY, i)]
        yield random_vector(f"split/{num}", why, "split", want, key=key, options={"num": num})
    for num, offset in ((1, 0), (5, 0), (3, 2), (4, 2**32 - 2), (4, 2**63 - 2), (3, 2**64 - 3)):
        far = "the counter has 64 bits: the high word first, and no sign"
        why = far if offset > 2 else "the i-th word is that of the counter offset + i"
        name, want = f"bits/{num}-at-{offset}", random_bits(KEY, num, offset)
        counters = {"num": num, "offset": hex(offset)}
        yield random_vector(name, why, "random_bits", want, key=key, options=counters)


def known_answers() -> Vectors:
    """Yield Random123's known answers, as far as the ops can ask for them."""
    source = "Random123, kat_vectors: threefry2x32 with 20 rounds"
    for i, (key, (high, low), cipher) in enumerate(KNOWN):
        why = f"the xor of the known cipher {' '.join(words(cipher))}"
        given = {"key": words(key), "options": {"num": 1, "offset": hex(high << 32 | low)}}
        want = [cipher[0] ^ cipher[1]]
        yield random_vector(f"bits/kat{i}", why, "random_bits", want, source=source, **given)
    why = "both words of a known cipher, in their order"
    given = {"key": words((0, 0)), "options": {"data": 0}}
    want = [*KNOWN[0][2]]
    yield random_vector("fold-in/kat0", why, "fold_in", want, source=source, **given)


def random_vector(name: str, why: str, op: str, want: list[int], **rest: Any) -> Vector:
    """Return a vector of keys and words."""
    shape = [rest["options"]["num"], 2] if op == "split" else [len(want)]
    source = rest.pop("source", "KEY-1 in Python's integers")
    made = vector(f"keys/{name}", "KEY-1", why, source, "random", op=op, dtype="uint32")
    return made | {"shape": shape} | rest | {"want": {"words": words(want)}}
