"""What each part of a combination's outcome must be, and the clause that it breaks if it is not.

The mask is that of droppath.keep_mask, or that of the call on ones for a black box. The values are
SPEC.md's formulas, here in NumPy once more. A row counts as kept by its first element, which no
special value takes; where a mask is wrong, values are compared on the rows where it is right.
"""

from collections.abc import Iterator
from functools import partial

import numpy as np

import droppath
from conformance.blocks import residual_mask, residual_steps
from conformance.calls import threshold
from conformance.check import Finding, Subject, Untold, draws_nothing, equal, holds, told
from conformance.covering import Row
from conformance.factors import KEYS, axis_of, call_of, mask_of, named, with_factors
from conformance.numerics import FORMATS, compute_type, product, round_to, step
from conformance.protocol import Array, BrokenAdapter, Call, Outcome
from conformance.text import first_line

Judgements = list[tuple[str, Finding | Untold | None]]  # each with its clause
Results = Iterator[tuple[str, Finding | Untold | None]]
BLACK_BOX = {"MASK-1", "MASK-5", "BAL-1"}  # what its mask is held to, which no key draws


def judged(subject: Subject, row: Row) -> Judgements:
    """Return the comparisons of a row; of its eager call, if that is as wrong as the other."""
    found = _compared(subject, row)
    if row["how"] != "eager" and any(isinstance(result, Finding) for _, result in found):
        eager = _compared(subject, {**row, "how": "eager"})
        return eager if any(isinstance(result, Finding) for _, result in eager) else found
    return found


def serves(subject: Subject, row: Row) -> set[str]:
    """Return the clauses that the outcome of a row may break."""
    eager = clauses(subject, {**row, "how": "eager"})
    own = set[str]() if "keyed" in subject.info.claims else BLACK_BOX
    return {*clauses(subject, row).values(), *eager.values(), *own}


def clauses(subject: Subject, row: Row) -> dict[str, str]:
    """Return the clause that each part of a row's outcome is held to."""
    block, scale, p = row["op"] != "drop_path", row["scale"], row["p"]
    training, given = row["phase"].startswith("training"), row["phase"].endswith("keep")
    scaled = {"factor": "SCALE-1", "factor in evaluation": "SCALE-3"}.get(scale, "SCALE-2")
    same = {"SCALE-1": "EVAL-1"}.get(scaled, scaled)
    undrawn = training and p == 0 and not given
    kept = "EVAL-2" if undrawn else scaled if training else same
    gone = "DROP-2" if p == 1 else "DROP-1"
    mask = {"row": "KEY-2", "batch": "KEY-3"}.get(row["mode"], "KEY-4")
    mask = "KEY-6" if row["offset"] != "0" and row["mode"] != "batch" else mask
    mask = mask if "keyed" in subject.info.claims else "MASK-3"  # its own mask, found on ones
    parts = {
        "kept": "RES-1" if block else kept,
        "dropped": "RES-2" if block else gone,
        "mask": "PURE-3" if given else mask,
        "dtype": "RES-3" if block else "TYPE-1",
        "shape": "TYPE-2",
        "dx": "RES-7" if block else "GRAD-3" if training and p == 1 else "GRAD-1",
        "mask of dx": "GRAD-2",
    }
    elsewhere = {"compiled": "COMP-1", "2 shards": "DIST-1"}.get(row["how"])
    parts = dict.fromkeys(parts, elsewhere) if elsewhere else parts
    drew = "PURE-3" if given else "EVAL-2" if undrawn else "PURE-2"
    return {**parts, "x": "PURE-1", "drew": drew if training else "EVAL-1"}


def _compared(subject: Subject, row: Row) -> Judgements:
    of, case = clauses(subject, row), named(subject, row)
    try:
        with np.errstate(all="ignore"):
            call = call_of(subject, row)
            keep, found = _mask(subject, row, call, case)
            call = with_factors(call, row, keep)
            outcome = subject.run(call)
            return [*found, *_parts(of, row, case, call, keep, outcome)]
    except BrokenAdapter:
        raise
    except Exception as error:  # what is asked for must work
        return [(of["kept"], Finding(case, "a result", first_line(error)))]


def _mask(subject: Subject, row: Row, call: Call, case: str) -> tuple[Array, Judgements]:
    """Return the rows whose branch counts, bool [B], and what a black box's mask breaks."""
    p, batch = row["p"], row["batch"]
    if not call.training:
        return np.full(batch, p < 1 or row["scale"] != "factor in evaluation"), []
    if call.keep is not None:
        return call.keep & (p < 1), []
    if p in (0, 1):
        return np.full(batch, p < 1), []
    if call.key is not None:
        return droppath.keep_mask(KEYS[row["key"]], p, batch, **mask_of(row)), []
    probe = residual_mask if call.op == "residual" else Subject.keep
    flat = np.moveaxis(probe(subject, call), axis_of(row), 0).reshape(batch, -1)
    keep = flat[:, 0]
    whole = holds(f"{case}, rows", bool((flat == keep[:, None]).all()), "whole rows", "parts")
    found: Judgements = [("MASK-1", whole)]
    drawn = mask_of(row)
    if drawn.get("mode") == "batch":
        found += [("MASK-5", holds(case, len({*keep}) == 1, "one decision", keep.tolist()))]
    if drawn.get("mode") == "balanced":
        dropped = (~keep).reshape(drawn.get("groups", 1), -1)
        least = dropped.shape[1] * threshold(p) >> 23
        counts = {*(int(n) - least for n in dropped.sum(1))}
        found += [("BAL-1", holds(case, counts <= {0, 1}, f"{least} or one more", counts))]
    return keep, found


def _parts(
    of: dict[str, str], row: Row, case: str, call: Call, keep: Array, outcome: Outcome
) -> Results:
    """Yield the comparison of each part of an outcome with what it must be."""
    dtype, shape, y, dx = call.dtype, call.x.shape, outcome.y, outcome.dx
    yield of["shape"], holds(case, y.shape == shape, f"shape {shape}", y.shape)
    yield of["dtype"], holds(case, outcome.dtype == dtype, dtype, outcome.dtype)
    if call.shards == 1:
        same = partial(equal, f"{case}; x after the call", call.x, dtype=dtype)
        yield of["x"], told("x_after", outcome.x_after, same)
    if call.seed is None:
        yield of["drew"], draws_nothing(case, outcome)
    drawn = call.training and row["p"] < 1 and (call.keep is not None or row["p"] > 0)
    kept = _kept(row, call, call.x, y) if drawn and y.shape == shape else keep
    if drawn:
        yield of["mask"], _same(f"{case}; y", keep, kept)
    if y.shape == shape:
        both = of["kept"], of["dropped"] if call.training else of["kept"]  # SCALE-3: p = 1
        yield from _values(both, row, f"{case}; y", call, keep, kept == keep, call.x, y)
    if call.dy is None:
        return
    if dx is None:
        yield of["dx"], Untold("dx")
        return
    yield of["dtype"], holds(f"{case}; dx", outcome.dx_dtype == dtype, dtype, outcome.dx_dtype)
    yield of["dx"], holds(f"{case}; dx", dx.shape == shape, f"shape {shape}", dx.shape)
    if dx.shape == shape:
        felt = _kept(row, call, call.dy, dx) if drawn else keep
        if drawn:
            yield of["mask of dx"], _same(f"{case}; dx", kept, felt)
        both = of["dx"], of["dx"]
        yield from _values(both, row, f"{case}; dx", call, keep, felt == keep, call.dy, dx)


def _kept(row: Row, call: Call, x: Array, y: Array) -> Array:
    """Return the rows that are kept in y, or in dx where x is dy, by the first element of each."""
    first = [np.moveaxis(a, axis_of(row), 0).reshape(row["batch"], -1)[:, 0] for a in (x, y)]
    kept: Array = first[1] != (first[0] if call.op == "residual" else 0)
    return kept


def _same(case: str, want: Array, got: Array) -> Finding | None:
    wanted, others = (f"kept: {np.flatnonzero(rows).tolist()}" for rows in (want, got))
    return holds(f"{case}, rows", bool((want == got).all()), wanted, others)


def _values(
    of: tuple[str, str],
    row: Row,
    case: str,
    call: Call,
    keep: Array,
    right: Array,
    x: Array,
    got: Array,
) -> Results:
    """Yield the comparison of kept and of dropped rows, where the mask is right; x: dy, of dx."""
    is_dx, axis = x is call.dy, axis_of(row) % x.ndim
    column = [-1 if a == axis else 1 for a in range(x.ndim)]
    ran, spare = (
        np.broadcast_to((rows & right).reshape(column), x.shape) for rows in (keep, ~keep)
    )
    want, grant = _branched(call, x, is_dx)
    yield of[0], _close(f"{case}, kept rows", want, got, ran, grant, call.dtype)
    block = call.op == "residual"
    want, grant = (x, 0.0 if is_dx else -1.0) if block else (np.zeros_like(x), -1.0)
    yield of[1], _close(f"{case}, dropped rows", want, got, spare, grant, call.dtype)


def _branched(call: Call, x: Array, is_dx: bool) -> tuple[Array, Array | float]:
    """Return what a kept row of x becomes, and by how much it may differ: below 0, by nothing."""
    p, dtype, late = call.drop_prob, call.dtype, call.options.get("scale_at") == "eval"
    scaled = call.options.get("scale_by_keep", True) and late != call.training
    s = (1.0 if p == 1 else 1 / (1 - p)) if call.training else 1 - p
    s = s if scaled else 1.0
    if call.op == "drop_path":
        return product(x, s, dtype), -1.0
    compute = np.dtype(compute_type(dtype)).type
    f = call.options["branch"](x, *call.options.get("per_sample", ()))
    y = x.astype(compute) + compute(s) * f.astype(compute)
    want = round_to(y.astype(np.float64), dtype)
    if is_dx:
        return want, 2 * _step(np.maximum(np.abs(x), np.abs(s * f)), dtype)
    return want, residual_steps(dtype) * _step(want, dtype)


def _step(values: Array, dtype: str) -> Array:
    return step(np.where(np.isfinite(values), values, 0.0), dtype)


def _close(
    case: str, want: Array, got: Array, where: Array, grant: Array | float, dtype: str
) -> Finding | None:
    """Compare some elements: bit for bit, but for what is granted and for subnormals taken as 0."""
    least = np.ldexp(1.0, FORMATS[dtype][1] - 1)
    flushed = (got == 0) & (np.abs(want) < least) & (np.signbit(got) == np.signbit(want))
    right = ~where | flushed | (np.abs(want - got) <= grant)
    return equal(case, np.where(right, 0.0, want), np.where(right, 0.0, got), dtype)
