"""What the checks of RES must reject."""

from dataclasses import replace
from typing import Any

import numpy as np

from conformance.mutant import REFERENCE, answering, calling, is_skipping, mutant
from conformance.protocol import Array, Call


def leaking(call: Call, x: Array, keep: Array) -> Array:
    """Return x + keep * branch(x): a dropped branch that overflows is felt."""
    y = REFERENCE.forward(call, x, keep)
    if call.op == "residual":
        with np.errstate(invalid="ignore"):
            y[~keep] = x[~keep] + 0 * call.options["branch"](x[~keep])
    return y


def floored(call: Call, x: Array) -> Array:
    """Return a balanced mask without the row that is kept for the fraction of b (1 - p)."""
    keep = REFERENCE.draw(call, x)
    if not (is_skipping(call) and call.options.get("mode") == "balanced" and keep.size):
        return keep
    rows = keep.reshape(call.options.get("groups", 1), -1)
    most = int(rows.shape[1] * (1 - call.drop_prob))
    return (rows & (rows.cumsum(1) <= most)).reshape(-1)


def one_more(call: Call, keep: Array) -> Array:
    """Return the rows that are kept, and the first that is dropped."""
    run = keep.copy()
    run[np.flatnonzero(~keep)[:1]] = True
    return run


def leaking_spare(call: Call, x: Array, keep: Array) -> Array:
    """Return x + keep * branch(x) on the rows that run."""
    y = REFERENCE.forward(call, x, keep)
    if call.op == "residual" and not call.options.get("axis"):
        spare = REFERENCE.rows(call, keep) & ~keep
        per_sample = [w[spare].astype(x.dtype) for w in call.options.get("per_sample", ())]
        y[spare] += 0 * call.options["branch"](x[spare], *per_sample)
    return y


def leaking_gradient(call: Call, dy: Array, keep: Array) -> Array:
    """Return the gradient with 0 * J^T dy added on dropped rows."""
    dx = REFERENCE.backward(call, dy, keep)
    if call.op == "residual":
        per_sample = [w[~keep].astype(dy.dtype) for w in call.options.get("per_sample", ())]
        dx[~keep] += 0 * call.options["branch"](dy[~keep], *per_sample)
    return dx


def ungathered(call: Call, x: Array, keep: Array) -> Array:
    """Return a block whose branch gets some rows of x, and of its arguments the first ones."""
    if call.op != "residual":
        return REFERENCE.forward(call, x, keep)
    branch, given = call.options["branch"], call.options.get("per_sample", ())

    def first(rows: Array, *taken: Array) -> Array:
        pairs = zip(given, taken, strict=True)
        return branch(rows, *(w[: len(own)].astype(own.dtype) for w, own in pairs))

    return REFERENCE.forward(replace(call, options={**call.options, "branch": first}), x, keep)


def resized(call: Call) -> dict[str, Any]:
    """Return options whose per-sample arguments are repeated or cut to the batch."""
    if "per_sample" not in call.options:
        return dict(call.options)
    batch = call.x.shape[call.options.get("axis", 0)]
    fitting = [np.resize(w, (batch, *w.shape[1:])) for w in call.options["per_sample"]]
    return {**call.options, "per_sample": fitting}


MUTANTS = (
    mutant(
        "residual without the factor",
        "RES-1",
        forward=lambda c, x, keep: REFERENCE.forward(
            replace(c, options={**c.options, "scale_by_keep": False}), x, keep
        ),
    ),
    mutant("residual that leaks", "RES-2", forward=leaking),
    mutant(
        "residual that promotes",
        "RES-3",
        run=answering(
            dtype=lambda c, o: "float32" if c.op == "residual" and c.dtype == "float16" else o.dtype
        ),
    ),
    mutant("runs all rows", "RES-4", rows=lambda c, keep: np.ones_like(keep)),
    mutant("runs no row if none is kept", "RES-4", rows=lambda c, keep: keep & (c.drop_prob < 1)),
    mutant("runs a row more than it keeps", "RES-4", rows=one_more),
    mutant("runs floor(b (1 - p)) rows", "RES-4 RES-5", draw=floored, rows=lambda c, keep: keep),
    mutant("spare rows that leak", "RES-4", forward=leaking_spare),
    mutant(
        "skips without the factor",
        "RES-1 RES-5",
        run=calling(options=lambda c: {**c.options, "scale_by_keep": not is_skipping(c)}),
    ),
    mutant("arguments stay where they are", "RES-5 RES-6", forward=ungathered),
    mutant("arguments of any batch", "RES-6", run=calling(options=resized)),
    mutant("gradient that leaks", "RES-7", backward=leaking_gradient),
    mutant(
        "gradient of the branch alone",
        "RES-7",
        run=answering(
            dx=lambda c, o: o.dx - c.dy if c.op == "residual" and o.dx is not None else o.dx
        ),
    ),
)
