"""plans.json: which layers run, how many at most, and what a stack of them makes of x."""

from fractions import Fraction
from typing import Any

from conformance.make_golden.cipher import fold_in, layer_plan, random_bits, threshold
from conformance.make_golden.inputs import KEY
from conformance.make_golden.vector import Vector, Vectors, hexes, vector, words

LINEAR = [i / 22 for i in range(12)]


def plan_vectors() -> Vectors:
    """Yield the vectors of depth plans."""
    why = "the layers on which the marks fall, in the order of their words, are dropped"
    for step in range(8):
        yield plan(f"linear12/step{step}", "PLAN-1", why, LINEAR, fold_in(KEY, step))
    why = "a rate of 1 is always dropped, one of 0 never"
    yield plan("zeros-and-ones", "PLAN-1", why, [1.0, 0.0, 0.3, 1.0, 0.0])
    why = "more layers than the sums of 32 bits hold"
    yield plan("l600", "PLAN-1", why, [(i * 29 % 64) / 64 for i in range(600)])
    u, key = random_bits(fold_in((0, 1), 1), 1)[0] >> 9, (0, 1)
    why = "the layer ends on the mark, so that it is dropped: T is rounded up"
    yield plan("end-on-the-mark", "PLAN-1", why, [(2**23 - u - 0.5) / 2**23], key)
    why = "the layer ends one before the mark, so that it runs"
    yield plan("end-before-the-mark", "PLAN-1", why, [(2**23 - u - 1) / 2**23], key)
    why = "all rates are one: the order alone decides, and whether one more is dropped"
    for step in range(4):
        yield plan(f"equal5/step{step}", "PLAN-1", why, [0.37] * 5, fold_in(KEY, step))
    for name, rates in (
        ("whole", [0.25] * 12),
        ("linear12", LINEAR),
        ("rest", [0.37] * 5),
        ("ones", [1.0] * 3),
    ):
        why, source = "L less the sum of the T, rounded down", "PLAN-3 in Python's integers"
        made = vector(f"plans/depth/{name}", "PLAN-3", why, source, "plan", op="planned_depth")
        count = len(rates) - (sum(map(threshold, rates)) >> 23)
        yield made | {
            "dtype": "uint32",
            "shape": [],
            "options": {"rates": hexes(rates)},
            "want": {"count": count},
        }
    yield from stack_vectors()


RATES = [0.0, 0.5, 0.75, 0.5, 0.75, 0.5]  # of the sum 3; the factors are 1, 2, 4, 2, 4, 2
PARAMS = [1.0, 1.0, -0.75, 0.5, -0.5, 2.0]
X = [1.0, -2.0, 0.5, 3.0, 0.0, 1.5]


def stack_vectors() -> Vectors:
    """Yield the vectors of stacks, whose sums are exact in every dtype."""
    why = "three of six layers run, each with its factor"
    for step in range(4):
        yield stack(f"step{step}", "STACK-1", why, fold_in(KEY, step))
    why = "the gradient passes the same layers"
    yield stack("gradient", "STACK-1", why, KEY, gradient=True)
    why = "in evaluation all layers run, without a factor"
    yield stack("eval", "STACK-1", why, None, training=False)
    why = "a plan that is given decides"
    yield stack("plan", "STACK-1", why, None, [0, 1, 0, 0, 1, 1])
    why = "dropped layers hold NaN"
    yield stack("unused", "STACK-2", why, KEY, unused=float("nan"))


def stack(
    name: str,
    clause: str,
    why: str,
    key: tuple[int, int] | None,
    keep: list[int] | None = None,
    *,
    training: bool = True,
    gradient: bool = False,
    unused: float | None = None,
) -> Vector:
    """Return a vector of op stack, whose layers add w x; unused: w of the layers dropped."""
    plan = keep or (layer_plan(key, RATES) if key else [1] * len(RATES))
    params = [w if run or unused is None else unused for w, run in zip(PARAMS, plan, strict=True)]
    made = vector(
        f"plans/stack/{name}",
        clause,
        why,
        f"{clause} in exact fractions; x by hand",
        " ".join(["stack", *["gradient"] * gradient]),
        op="stack",
        shape=[3, 2],
        drop_prob=hexes(RATES),
        training=training,
        params=hexes(params),
        x=hexes(X),
    )
    wanted = hexes([after(v, plan, training) for v in X])
    source: dict[str, Any] = {"dy": hexes(X)} if gradient else {}
    source |= {"keep": keep} if keep else {"key": words(key)} if key else {}
    return made | source | {"want": {"dx" if gradient else "y": wanted}}


def after(x: float, plan: list[int], training: bool) -> float:
    """Return x after the layers of a plan: STACK-1."""
    total = Fraction(1)
    for p, w, run in zip(RATES, PARAMS, plan, strict=True):
        s = 1 / (1 - Fraction(p)) if training else Fraction(1)
        total *= 1 + s * Fraction(w) * run
    return float(total * Fraction(x))


def plan(
    name: str, clause: str, why: str, rates: list[float], key: tuple[int, int] = KEY
) -> Vector:
    """Return a vector of op layer_plan: each layer of a short plan, what a long one drops."""
    runs = layer_plan(key, rates)
    source = f"{clause} in Python's integers; key " + ("by hand" if key == (0, 1) else "from pi")
    made = vector(f"plans/{name}", clause, why, source, "plan", op="layer_plan", dtype="bool")
    dropped = [layer for layer, run in enumerate(runs) if not run]
    return made | {
        "shape": [len(rates)],
        "key": words(key),
        "options": {"rates": hexes(rates)},
        "want": {"keep": runs} if len(rates) <= 64 else {"dropped": dropped},
    }
