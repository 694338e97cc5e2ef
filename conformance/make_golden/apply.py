"""apply.json: what happens to kept and to dropped rows."""

from conformance.make_golden.exact import FORMATS
from conformance.make_golden.inputs import SIX, bits
from conformance.make_golden.vector import Vectors, call


def apply_vectors() -> Vectors:
    """Yield the vectors of what happens to kept and to dropped rows."""
    for dtype in FORMATS:
        of = f"apply/{dtype}"
        why = "s is formed in float64 and rounded to the compute type, never to a short dtype"
        for p in (0.1, 0.37, 0.9):
            yield call(f"{of}/p{p}/scale", "SCALE-1", why, dtype, p, keep=SIX)
        why = "without a factor kept rows are x bit for bit"
        made = f"{of}/p0.37/no-scale", "SCALE-2", why, dtype, 0.37
        yield call(*made, keep=SIX, scale_by_keep=False)
        why = "the factor 1 - p of the paper's convention, in evaluation"
        made = f"{of}/p0.37/scale-at-eval", "SCALE-3", why, dtype, 0.37
        yield call(*made, training=False, scale_at="eval")
    why = "without a factor evaluation is the identity too"
    made = "apply/float32/p0.37/no-scale-eval", "SCALE-2", why, "float32", 0.37
    yield call(*made, training=False, scale_by_keep=False)
    why = "under the paper's convention training has no factor"
    for dtype in ("float32", "bfloat16"):
        made = f"apply/{dtype}/p0.37/scale-at-eval-train", "SCALE-3", why, dtype, 0.37
        yield call(*made, keep=SIX, scale_at="eval")
    why = "one decision for each index of the batch axis, whichever axis that is"
    for axis, shape in ((1, (2, 5)), (-1, (2, 2, 4)), (1, (2, 4, 2))):
        made = f"apply/float32/p0.1/rank{len(shape)}-axis{axis}", "MASK-1", why, "float32", 0.1
        yield call(*made, shape, keep=bits(shape[axis]), axis=axis)
