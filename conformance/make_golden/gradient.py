"""gradient.json: dx for a given dy."""

from conformance.make_golden.exact import FORMATS
from conformance.make_golden.inputs import SIX, SPECIAL, E, bits, numbers
from conformance.make_golden.vector import Vectors, call


def gradient_vectors() -> Vectors:
    """Yield the vectors of dx."""
    for dtype in FORMATS:
        of, dy = f"gradient/{dtype}", numbers(E, (6, 2), dtype)
        why = "the gradient is scaled by the forward's rule, and is +0 on dropped rows"
        for p in (0.1, 0.37, 0.9):
            yield call(f"{of}/p{p}/scale", "GRAD-1", why, dtype, p, keep=SIX, dy=dy)
        why = "dropped rows are selected in the backward too: inf * 0 is NaN"
        made = f"{of}/p0.37/not-finite", "GRAD-1", why, dtype, 0.37
        yield call(*made, (3, 5), keep=bits(3), dy=SPECIAL)
        why = "at a rate of 1 the gradient is +0, where a division by 1 - p would give NaN"
        yield call(f"{of}/p1", "GRAD-3", why, dtype, 1.0, dy=dy)
    why = "the backward's mask lies along the forward's axis"
    made, shape = ("gradient/float32/p0.37/axis1", "GRAD-1", why, "float32", 0.37), (2, 5)
    yield call(*made, shape, keep=bits(5), dy=numbers(E, shape, "float32"), axis=1)
    why = "no factor in the forward, none in the backward"
    for dtype in ("float32", "bfloat16"):
        made = f"gradient/{dtype}/p0.37/no-scale", "GRAD-1", why, dtype, 0.37
        yield call(*made, keep=SIX, dy=numbers(E, (6, 2), dtype), scale_by_keep=False)
