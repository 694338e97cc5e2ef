"""residual.json: residual blocks that skip, their arguments and gradients."""

from fractions import Fraction
from typing import Any

from conformance.make_golden.cipher import keep_mask
from conformance.make_golden.exact import FORMATS, INF, NAN, compute_type, factor, nearest
from conformance.make_golden.inputs import KEY, PI, SIX, E, numbers
from conformance.make_golden.vector import Vector, Vectors, hexes, rows, vector, words


def residual_vectors() -> Vectors:
    """Yield the vectors of residual blocks y = x + s w x."""
    for dtype in FORMATS:
        of = f"residual/{dtype}/p0.37"
        why = "kept rows are x + s f, summed in the compute type; the others are x"
        made = f"{of}/balanced", "RES-1", why, dtype, 0.37
        yield residual(*made, mode="balanced", groups=3)
        why = "f is an infinity on the dropped rows, and not felt there"
        yield residual(f"{of}/row", "RES-2", why, dtype, 0.37, unused=INF)
        why = "a group runs a row more than it keeps: what that gives is NaN, and is not used"
        made = f"{of}/spare", "RES-4", why, dtype, 0.37
        yield residual(*made, unused=NAN, mode="balanced", groups=3, skip=True)
        why = "each row has its own factor, which must follow it"
        yield residual(f"{of}/argument", "RES-6", why, dtype, 0.37, (6, 2), keep=SIX)
        why = "dy bit for bit on dropped rows, where the branch's derivative is an infinity"
        made = f"{of}/gradient", "RES-7", why, dtype, 0.37
        yield residual(*made, unused=INF, gradient=True, mode="balanced", groups=3)
    why = "skipping changes no number: one result, whether all rows are run or some"
    for skip in (True, False):
        made = f"residual/float32/p0.9/skip-{skip}".lower(), "RES-5", why, "float32", 0.9
        yield residual(*made, mode="balanced", groups=2, skip=skip)
        made = f"residual/float32/p0.9/skip-{skip}-gradient".lower(), *made[1:]
        yield residual(*made, gradient=True, mode="balanced", groups=2, skip=skip)
    yield from edges_of_residuals()


def edges_of_residuals() -> Vectors:
    """Yield the vectors of rates of 0 and 1, of evaluation, and of one row."""
    of = "residual/float32"
    why = "at a rate of 0 every row is x + f"
    yield residual(f"{of}/p0.0", "RES-1", why, "float32", 0.0, mode="balanced")
    why = "at a rate of 1 every row is x, whatever f is"
    yield residual(f"{of}/p1.0", "RES-2", why, "float32", 1.0, unused=NAN, mode="balanced")
    why = "outside training every row is x + f"
    yield residual(f"{of}/p0.37/eval", "RES-1", why, "float32", 0.37, training=False)
    why = "the paper's convention: x + (1 - p) f in evaluation"
    made = f"{of}/p0.37/scale-at-eval", "RES-1", why, "float32", 0.37
    yield residual(*made, training=False, scale_at="eval")
    why = "without a factor kept rows are x + f"
    made = f"{of}/p0.37/no-scale", "RES-1", why, "float32", 0.37
    yield residual(*made, mode="balanced", groups=3, scale_by_keep=False)
    why = "a batch of one row has room for one, also if it is dropped"
    for p in (0.1, 0.9):
        made = f"{of}/p{p}/b1", "RES-4", why, "float32", p
        yield residual(*made, (1, 3), unused=NAN, mode="balanced", skip=True)
    why = "one draw decides for the block"
    yield residual(f"{of}/p0.37/batch", "RES-1", why, "float32", 0.37, (3, 2), mode="batch")
    why = "a micro-batch runs the rows of its slice of the mask"
    made = f"{of}/p0.37/at-8", "RES-6", why, "float32", 0.37
    yield residual(*made, (8, 1, 2), mode="balanced", groups=2, offset=8)


def residual(
    name: str,
    clause: str,
    why: str,
    dtype: str,
    p: float,
    shape: tuple[int, ...] = (12, 2),
    *,
    unused: float | None = None,
    keep: list[int] | None = None,
    gradient: bool = False,
    training: bool = True,
    **options: Any,
) -> Vector:
    """Return a vector of op residual, whose branch multiplies row i by the power of 2 w[i].

    unused: w on dropped rows. The mask is keep, or is drawn from the key of pi. The wanted dx if
    gradient, for a dy from e, else the wanted y.
    """
    drawn = {k: v for k, v in options.items() if k in ("mode", "groups", "offset")}
    factors = {k: v for k, v in options.items() if k in ("scale_by_keep", "scale_at")}
    kept = keep_mask(KEY, p, shape[0], **drawn) if keep is None else keep
    kept = kept if training and p < 1 else [int(not training)] * shape[0]
    w, s = weights(kept, unused), factor(p, dtype, training, **factors)
    x = numbers(PI, shape, dtype)
    dy = numbers(E, shape, dtype) if gradient else x
    pairs = zip(dy, rows(shape), strict=True)
    want = [block(v, s * w[i], dtype) if kept[i] else v for v, i in pairs]
    claims = ["keep" if keep else "keyed", *["gradient"] * gradient, *factors]
    claims += [drawn["mode"]] if "mode" in drawn else []
    claims += ["skip"] * ("skip" in options)
    source = f"{clause} in exact fractions; x from pi{', dy from e' * gradient}, w by hand"
    made = vector(name, clause, why, source, " ".join(["residual", *claims]))
    options |= {"offset": hex(options["offset"])} if "offset" in options else {}
    return made | {
        "op": "residual",
        "dtype": dtype,
        "shape": list(shape),
        "drop_prob": p.hex(),
        "training": training,
        "options": options,
        **({"keep": keep} if keep else {"key": words(KEY)}),
        "x": hexes(x),
        "per_sample": hexes(w),
        **({"dy": hexes(dy)} if gradient else {}),
        "steps": 2 if gradient or compute_type(dtype) == dtype else 1,
        "want": {"dx" if gradient else "y": hexes(want)},
    }


def weights(kept: list[int], unused: float | None) -> list[float]:
    """Return w of each row: powers of 2, or `unused`, if that is given, on dropped rows."""
    w = [2.0 ** (i % 4 - 1) for i in range(len(kept))]
    return [v if kept[i] or unused is None else unused for i, v in enumerate(w)]


def block(x: float, factor: float, dtype: str) -> float:
    """Return x + factor * x, rounded once."""
    return nearest(Fraction(x) * (1 + Fraction(factor)), dtype)
