"""edge.json: special values, rates near 0 and 1, overflow, rounding, shapes."""

import math

from conformance.make_golden.exact import FORMATS, INF, NAN, largest
from conformance.make_golden.inputs import SPECIAL, bits
from conformance.make_golden.vector import Vectors, call


def edge_vectors() -> Vectors:
    """Yield the vectors of special values, rates near 0 and 1, rounding and shapes."""
    for dtype in FORMATS:
        yield from edges_of_values(dtype)
        yield from edges_of_rounding(dtype)
    why = "finite in float32, but beyond the largest number once rounded to bfloat16"
    made = "edge/bfloat16/overflow-in-rounding", "SCALE-1", why, "bfloat16", 0.003
    yield call(*made, (2, 1), x=[largest("bfloat16"), 1.0], keep=[1, 1])
    why = "the product is rounded to float32 first: that makes it a tie, which goes up here"
    for dtype, x in (("bfloat16", 165 / 128), ("float16", 1233 / 1024)):
        made = f"edge/{dtype}/product", "SCALE-1", why, dtype, 0.4
        yield call(*made, (2, 1), x=[x, -x], keep=[1, 1])
    yield from edges_of_rates()
    why = "every rank from 1 to 6, and the empty batch"
    for name, shape in {"empty": (0, 3), "rank1": (5,), "rank6": (3, 1, 2, 1, 1, 2)}.items():
        made = f"edge/float32/{name}", "MASK-2", why, "float32", 0.37
        yield call(*made, shape, keep=bits(shape[0]))


def edges_of_values(dtype: str) -> Vectors:
    """Yield the vectors of infinities, NaN and the zeros."""
    of, shape = f"edge/{dtype}", (3, 5)
    why = "outside training y is x bit for bit, special values and the sign of zero included"
    made = f"{of}/evaluation", "EVAL-1", why, dtype, 0.3
    yield call(*made, shape, x=SPECIAL, training=False)
    why = "a rate of 0 is the identity, with no draw"
    yield call(f"{of}/p0", "EVAL-2", why, dtype, 0.0, shape, x=SPECIAL)
    why = "dropped rows are +0 whatever they held; kept rows pass infinities and NaN on"
    yield call(f"{of}/dropped", "DROP-1", why, dtype, 0.37, shape, x=SPECIAL, keep=bits(3))
    why = "at a rate of 1 all is +0, where x / 0 * 0 would be NaN"
    yield call(f"{of}/p1", "DROP-2", why, dtype, 1.0, shape, x=SPECIAL)


def edges_of_rounding(dtype: str) -> Vectors:
    """Yield the vectors of overflow and of ties."""
    top = largest(dtype)
    why = "a product beyond the largest number is an infinity of its sign"
    made = f"edge/{dtype}/overflow", "SCALE-1", why, dtype, 0.37
    yield call(*made, (2, 2), x=[top, -top, top / 2, -1.0], keep=[1, 1])
    # s is 1.25, and 1.25 * 2 = 2.5, 1.25 * 6 = 7.5 steps lie half way: to 2 and to 8
    digits = FORMATS[dtype][0]
    ties = [math.ldexp(2 ** (digits - 1) + m, 1 - digits) for m in (2, 6)]
    why = "a product half way between two numbers goes to the even one: down, then up"
    made = f"edge/{dtype}/tie", "SCALE-1", why, dtype, 0.2
    yield call(*made, (4, 1), x=[*ties, *(-x for x in ties)], keep=[1, 1, 1, 1])


def edges_of_rates() -> Vectors:
    """Yield the vectors of rates near 0 and 1, and of those where keep is given too."""
    shape, x, keep = (3, 1), [1.0, -1.5, 1.0], [1, 1, 0]
    why = "1 - p is the smallest that float64 knows: s is 2^53, and not an infinity"
    made = "edge/float32/p-below-1", "SCALE-1", why, "float32", 1 - 2**-53
    yield call(*made, shape, x=x, keep=keep)
    why = "1/(1 - p) rounds to the number after 1, where 1 + p would round to 1"
    made = "edge/float64/p-tiny", "SCALE-1", why, "float64", 2**-53
    yield call(*made, shape, x=x, keep=keep)
    why = "a given mask decides also where nothing would be drawn"
    yield call("edge/float32/p0-keep", "DROP-1", why, "float32", 0.0, shape, x=x, keep=keep)
    why = "at a rate of 1 nothing is kept, whatever the given mask says"
    yield call("edge/float32/p1-keep", "DROP-2", why, "float32", 1.0, shape, x=x, keep=keep)
    why = "evaluation at a rate of 1 selects too: inf * 0 is NaN"
    made = "edge/float32/p1-eval", "SCALE-3", why, "float32", 1.0
    yield call(*made, shape, x=[INF, -1.0, NAN], training=False, scale_at="eval")
