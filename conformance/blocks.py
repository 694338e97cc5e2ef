"""Residual blocks: the calls and comparisons that the checks of several areas share."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

import droppath
from conformance.calls import KEY, mode_options
from conformance.check import Finding, Results, Subject, equal
from conformance.numerics import compute_type, product, sample
from conformance.protocol import Array, Call

BLOCK = (32, 5)  # one shape for most: JAX compiles each of its operations for each shape
BLOCK_OF_AXIS = (BLOCK, (2, *BLOCK))  # and with the batch along axis 1
SHAPES = ((1, 5), (3, 2, 2, 2), (65,), (128, 5))  # and few more; over 64 rows run of the last
EXTREMES = (0.0, 1e-9, 1 - 2.0**-20, 1.0)  # of the rate; no row of a batch is kept at the third


def block(
    p: float, mode: str, shape: tuple[int, ...] = BLOCK, dtype: str = "float32", **options: Any
) -> Call:
    """Return a residual call whose branch takes a power of 2 for each sample, with its dy."""
    axis = options.get("axis", 0)
    w = powers(shape[axis]).reshape(-1, *[1] * (len(shape) - axis - 1))
    options = {"branch": scaled, "per_sample": [w], **mode_options(mode), **options}
    x, dy = sample(shape, dtype), sample(shape, dtype, first=9000)
    return Call(x, p, dtype, "residual", dy=dy, options=options)


def powers(count: int, key: Any = KEY) -> Array:
    """Return powers of 2 from 1/8 to 16 in no order: no part of them is like another."""
    return np.exp2(droppath.random_bits(key, count) % 8 - 3.0)


def scaled(x: Any, w: Any) -> Any:
    """Return a branch's output with a factor for each sample."""
    return x * w


def some_kept(count: int) -> Array:
    """Return a mask to be given, which keeps two rows of three, in no order: bool [count]."""
    return droppath.random_bits(KEY, count) % 3 > 0


def axes(subject: Subject) -> tuple[int, ...]:
    """Return the batch axes to ask for, which BLOCK_OF_AXIS has shapes for."""
    return (0, 1) if "axis" in subject.info.claims else (0,)


def axis_options(axis: int) -> dict[str, Any]:
    """Return the options of an axis; an implementation that knows no other is not asked for 0."""
    return {"axis": axis} if axis else {}


def settings(subject: Subject) -> Iterator[tuple[bool, dict[str, Any]]]:
    """Return both phases, each with all options of the factor that are claimed."""
    by_keep = [{}, {"scale_by_keep": False}] if "scale_by_keep" in subject.info.claims else [{}]
    at = [{}, {"scale_at": "eval"}] if "scale_at" in subject.info.claims else [{}]
    for training in (True, False):
        yield from ((training, {**one, **other}) for one in by_keep for other in at)


def factor(call: Call) -> float:
    """Return the s of kept rows as SCALE has it, in float64; 0 where no row is."""
    p, by_keep = call.drop_prob, call.options.get("scale_by_keep", True)
    at_train = call.options.get("scale_at", "train") == "train"
    if call.training and p == 1:
        return 0.0
    if not by_keep or at_train != call.training:
        return 1.0
    return 1 / (1 - p) if call.training else 1 - p


def block_sum(call: Call, x: Array, f: Array, keep: Array) -> Array:
    """Return x + s f where keep, x elsewhere, rounded to the dtype of the call."""
    s = product(np.ones(()), factor(call), compute_type(call.dtype))
    with np.errstate(over="ignore", invalid="ignore"):
        return np.where(keep, product(x + s * f, 1.0, call.dtype), x)


def plain_and_block(subject: Subject, made: Call) -> list[Call]:
    """Return the call of drop_path that is like a block's, and the block's, where it is claimed.

    Where it gives no dx, balanced mode is asked for the block alone, batch mode for drop_path.
    """
    options = {k: v for k, v in made.options.items() if k not in ("branch", "per_sample")}
    plain = replace(made, op="drop_path", options=options)
    if "residual" not in subject.info.claims:
        return [plain]
    alone = {"balanced": [made], "batch": [plain]}
    mode = options.get("mode", "row")
    return alone.get(mode, [plain, made]) if made.dy is None else [plain, made]


def with_claimed(subject: Subject, call: Call) -> Call:
    """Return the call without dy, unless gradients are claimed."""
    return call if "gradient" in subject.info.claims else replace(call, dy=None)


def with_options(call: Call, **options: Any) -> Call:
    """Return the call with further options."""
    return replace(call, options={**call.options, **options})


def residual_mask(subject: Subject, call: Call, **skip: bool) -> Array:
    """Return the mask of a residual call, found with x = 0 and f = 1: bool of x's shape.

    skip: skip=False finds it with all rows computed; else as the implementation does by itself.
    """
    options = {k: v for k, v in call.options.items() if k not in ("per_sample", "skip")}
    options |= {"branch": one, **skip}
    probe = replace(call, x=np.zeros_like(call.x), dy=None, options=options)
    return subject.run(probe).y != 0


def one(x: Any) -> Any:
    """Return a branch's output that is 1 for a finite x."""
    return x * 0 + 1


def block_mask(subject: Subject, call: Call) -> Array:
    """Return which rows of a residual call count: as it shows in a draw, else as SPEC.md says."""
    axis = call.options.get("axis", 0)
    if call.training and call.keep is None:
        return residual_mask(subject, call)
    counts = np.full(call.x.shape[axis], factor(call) > 0)
    counts &= call.keep if call.training else True
    column = [-1 if i == axis else 1 for i in range(call.x.ndim)]
    return np.broadcast_to(counts.reshape(column), call.x.shape)


def by_row(call: Call, keep: Array) -> Array:
    """Return a mask of x's shape as one for its rows: bool [B]."""
    rows = np.moveaxis(keep, call.options.get("axis", 0), 0)
    return rows.reshape(len(rows), -1)[:, 0]


def spoiled(call: Call, keep: Array, unused: float) -> Call:
    """Return a block's call whose branch has the factor `unused` on the rows that are dropped."""
    (w,) = call.options["per_sample"]
    rows = by_row(call, keep).reshape(-1, *[1] * (w.ndim - 1))
    return with_options(call, per_sample=[np.where(rows, w, unused)])


def residual_steps(dtype: str) -> int:
    """Return RES-1's tolerance in steps."""
    return 1 if dtype in ("float16", "bfloat16") else 2


def same_block(case: str, keep: Array, want: Array, got: Array, dtype: str) -> Results:
    """Compare dropped rows bit for bit, kept rows within RES-1's tolerance."""
    yield at_rows(f"{case}, dropped rows", ~keep, want, got, dtype)
    yield at_rows(f"{case}, kept rows", keep, want, got, dtype, residual_steps(dtype))


def at_rows(
    case: str, rows: Array, want: Array, got: Array, dtype: str, steps: int = 0
) -> Finding | None:
    """Compare the rows of a mask of x's shape, bit for bit or within steps."""
    if want.shape != got.shape:
        return equal(case, want, got, dtype)
    return equal(case, want[rows], got[rows], dtype, steps)


def same_call(subject: Subject, case: str, call: Call, other: Call) -> Results:
    """Compare two ways to make one call: bit for bit, but RES-1's tolerance where a sum is kept.

    The gradient of a block may have either sign where it is 0 (RES-5, RES-7).
    """
    want, got = subject.run(call), subject.run(other)
    pairs = [("", want.y, got.y), (", gradient", want.dx, got.dx)]
    for what, one, two in pairs if call.dy is not None else pairs[:1]:
        one, two = (np.zeros(()) if array is None else array for array in (one, two))
        if call.op == "residual" and one.shape == call.x.shape:
            keep = residual_mask(subject, call)
            one, two = (one + 0.0, two + 0.0) if what else (one, two)  # -0 + 0 is 0
            yield from same_block(f"{case}{what}", keep, one, two, call.dtype)
        else:
            yield equal(f"{case}{what}", one, two, call.dtype)
