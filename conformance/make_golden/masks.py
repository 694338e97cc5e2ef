"""masks.json: the masks that a key draws, and how many rows they keep at most."""

from typing import Any

from conformance.make_golden.cipher import fold_in, keep_mask, random_bits, threshold
from conformance.make_golden.inputs import KEY
from conformance.make_golden.vector import Vector, Vectors, hexes, vector, words


def mask_vectors() -> Vectors:
    """Yield the vectors of masks."""
    why = "each row is dropped iff its draw is below T"
    for p in (0.0, 0.001, 0.1, 0.37, 0.9, 1 - 2**-12, 1.0):
        yield mask(f"row/b33/p{p}", "KEY-2", why, p, 33)
    why = "a rate that is rare in a short batch, and a batch of no round size"
    yield mask("row/b4097/p0.01", "KEY-2", why, 0.01, 4097)
    draw23 = random_bits(KEY, 1)[0] >> 9
    why = "row 0's draw is T - 1, so that it drops: T is rounded up"
    yield mask("row/b1/draw-below-t", "KEY-2", why, (draw23 + 0.5) / 2**23, 1)
    why = "row 0's draw is T, so that it is kept: below T, not at most T"
    yield mask("row/b1/draw-is-t", "KEY-2", why, draw23 / 2**23, 1)
    why = "T is formed from p rounded to float32; from p in float64 row 0 would drop"
    yield mask("row/b1/float32", "KEY-2", why, draw23 / 2**23 + 2**-50, 1)
    why = "rows are counted from the offset, in 64 bits"
    for batch, offset in ((8, 16), (8, 2**32 - 4), (3, 2**63 - 2)):
        yield mask(f"row/b{batch}/at-{offset}", "KEY-6", why, 0.37, batch, offset=offset)
    why = "one draw decides for all rows"
    for seed in range(4):
        made = f"batch/b3/seed{seed}", "KEY-3", why, 0.37, 3
        yield mask(*made, mode="batch", key=(0, seed))
    why = "the draw is the first one, whatever the offset"
    yield mask("batch/b3/at-5", "KEY-3", why, 0.37, 3, mode="batch", key=(0, 1), offset=5)
    yield from balanced_masks()
    yield from model_masks()
    yield from capacities()


def balanced_masks() -> Vectors:
    """Yield the vectors of mode "balanced"."""
    why = "in each group the rows with the smallest words are kept"
    layouts = ((1, 1, 0.1), (1, 1, 0.9), (2, 1, 0.05), (3, 1, 0.37), (10, 1, 0.1), (33, 1, 0.9))
    for batch, groups, p in (*layouts, (12, 3, 0.37), (32, 4, 0.1), (32, 32, 0.37)):
        made = f"balanced/b{batch}-g{groups}/p{p}", "KEY-4", why, p, batch
        yield mask(*made, mode="balanced", groups=groups)
    why = "b p is a whole number: each group drops exactly that many"
    made = "balanced/b32-g4/p0.25", "BAL-1", why, 0.25, 32
    yield mask(*made, mode="balanced", groups=4)
    why = "groups are counted from the offset too"
    for groups, offset in ((2, 4), (1, 2**32 - 8)):
        made = f"balanced/b8-g{groups}/at-{offset}", "KEY-6", why, 0.37, 8
        yield mask(*made, mode="balanced", groups=groups, offset=offset)


def model_masks() -> Vectors:
    """Yield the vectors of a model's layers."""
    rates, source = (0.1, 0.37, 0.9), "KEY-7 in Python's integers; key from pi"
    for step in (0, 7):
        key = fold_in(KEY, step)
        keep = [keep_mask(fold_in(key, layer), p, 8) for layer, p in enumerate(rates)]
        why = f"layer l draws from fold_in(key, l), the key being pi's with step {step} folded in"
        made = vector(f"masks/model/step{step}", "KEY-7", why, source, "keyed model", op="model")
        yield made | {
            "dtype": "bool",
            "shape": [3, 8],
            "key": words(key),
            "drop_prob": hexes([*rates]),
            "options": {"batch": 8},
            "want": {"keep": [bit for layer in keep for bit in layer]},
        }
    keys = [fold_in(KEY, layer) for layer in range(3)]
    calls = [keys, [fold_in(key, 2) for key in keys], [fold_in(key, 3) for key in keys]]
    keep = [keep_mask(key, p, 8) for keys in calls for key, p in zip(keys, rates, strict=True)]
    why = "call c > 0 of a layer draws from its key with c + 1 folded in: 2, then 3"
    source = "KEY-8 in Python's integers; key from pi"
    claims = "keyed model calls"
    yield vector("masks/model/calls3", "KEY-8", why, source, claims, op="model") | {
        "dtype": "bool",
        "shape": [3, 3, 8],
        "key": words(KEY),
        "drop_prob": hexes([*rates]),
        "options": {"batch": 8, "calls": 3},
        "want": {"keep": [bit for mask in keep for bit in mask]},
    }


def capacities() -> Vectors:
    """Yield the vectors of kept_capacity."""
    why, source = "a static number, from T alone", "BAL-4 in Python's integers"
    for batch, groups, p in ((1, 1, 0.9), (10, 1, 1.0), (32, 1, 0.1), (32, 4, 0.1), (100, 4, 0.37)):
        name = f"masks/capacity/b{batch}-g{groups}/p{p}"
        made = vector(name, "BAL-4", why, source, "schedule", op="kept_capacity")
        yield made | {
            "dtype": "uint32",
            "shape": [],
            "drop_prob": p.hex(),
            "options": {"batch": batch, "groups": groups},
            "want": {"count": batch - groups * (batch // groups * threshold(p) >> 23)},
        }


def mask(name: str, clause: str, why: str, p: float, batch: int, **options: Any) -> Vector:
    """Return a vector of op keep_mask: each row of a short mask, the dropped rows of a long one."""
    key = options.pop("key", KEY)
    keep, mode = keep_mask(key, p, batch, **options), options.get("mode")
    source = f"{clause} in Python's integers; key " + ("from pi" if key == KEY else "by hand")
    claims = f"keyed {mode}" if mode else "keyed"
    made = vector(f"masks/{name}", clause, why, source, claims, op="keep_mask", dtype="bool")
    options |= {"offset": hex(options["offset"])} if "offset" in options else {}
    dropped = [i for i, kept in enumerate(keep) if not kept]
    return made | {
        "shape": [batch],
        "key": words(key),
        "drop_prob": p.hex(),
        "options": {"batch": batch, **options},
        "want": {"keep": keep} if batch <= 64 else {"dropped": dropped},
    }
