"""What the checks of RES must reject."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from conformance.mutant import REFERENCE, Part, answering, calling, is_skipping, mutant
from conformance.protocol import Array, Call


def leaking(call: Call, x: Array, keep: Array) -> Array:
    """Return x + keep * branch(x): a dropped branch that overflows is felt."""
    y = REFERENCE.forward(call, x, keep)
    return leaked(call, x, y, ~keep)


def leaked(call: Call, x: Array, y: Array, rows: Array) -> Array:
    """Return y with 0 * branch(x) added on some rows, if the call is of a block along axis 0."""
    if call.op == "residual" and not call.options.get("axis"):
        per_sample = [w[rows].astype(x.dtype) for w in call.options.get("per_sample", ())]
        with np.errstate(over="ignore", invalid="ignore"):
            y[rows] += 0 * call.options["branch"](x[rows], *per_sample)
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
    return leaked(call, x, y, REFERENCE.rows(call, keep) & ~keep)


def leaking_gradient(call: Call, dy: Array, keep: Array) -> Array:
    """Return the gradient with 0 * J^T dy added on dropped rows."""
    return leaked(call, dy, REFERENCE.backward(call, dy, keep), ~keep)


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


def changed(wrong: Callable[[Call], bool], **options: Any) -> dict[str, Part]:
    """Return the parts of a block that is computed with other options where a call is so."""

    def forward(call: Call, x: Array, keep: Array) -> Array:
        return REFERENCE.forward(other(call), x, keep)

    def backward(call: Call, dy: Array, keep: Array) -> Array:
        return REFERENCE.backward(other(call), dy, keep)

    def other(call: Call) -> Call:
        if call.op != "residual" or not wrong(call):
            return call
        return replace(call, options={**call.options, **options})

    return {"forward": forward, "backward": backward}


def felt(change: Callable[[Array], Array]) -> Part:
    """Return a `forward` of blocks whose branch's output is changed."""

    def forward(call: Call, x: Array, keep: Array) -> Array:
        if call.op != "residual":
            return REFERENCE.forward(call, x, keep)
        branch = call.options["branch"]

        def other(x: Array, *per_sample: Array) -> Array:
            return change(branch(x, *per_sample))

        return REFERENCE.forward(replace(call, options={**call.options, "branch": other}), x, keep)

    return forward


def in_the_dtype_of_both(call: Call, x: Array, keep: Array) -> Array:
    """Return a block in the wider dtype of x and its branch."""
    found = [x.dtype]

    def noted(f: Array) -> Array:
        found.append(f.dtype)
        return f

    y = felt(noted)(call, x, keep)
    return y.astype(max(found, key=lambda dtype: dtype.itemsize))


def positive_zero(call: Call, x: Array, keep: Array) -> Array:
    """Return a block that adds +0 to dropped rows."""
    return REFERENCE.forward(call, x, keep) + (call.op == "residual") * np.zeros((), x.dtype)


def dropping_outside(call: Call, x: Array, keep: Array) -> Array:
    """Return a block that drops the rows of a given keep in evaluation too."""
    given = call.op == "residual" and call.keep is not None and not call.options.get("axis")
    y = REFERENCE.forward(call, x, keep)
    if given and not call.training:
        y[~keep] = x[~keep]
    return y


def at_most_64(call: Call, x: Array) -> Array:
    """Return a mask of which only the first 64 kept rows are kept where rows are skipped."""
    keep = REFERENCE.draw(call, x)
    return keep & (keep.cumsum() <= 64) if is_skipping(call) else keep


def zeros_where(call: Call, dy: Array, keep: Array) -> Array:
    """Return the gradient with zeros where dy is not finite."""
    dx = REFERENCE.backward(call, dy, keep)
    return np.where(np.isfinite(dy), dx, np.zeros_like(dx)) if call.op == "residual" else dx


def in_float32_arguments(call: Call, x: Array, keep: Array) -> Array:
    """Return a block whose branch gets its arguments in float32."""
    if call.op != "residual":
        return REFERENCE.forward(call, x, keep)
    branch = call.options["branch"]

    def other(x: Array, *per_sample: Array) -> Array:
        return branch(x, *(w.astype(np.float32) for w in per_sample))

    return REFERENCE.forward(replace(call, options={**call.options, "branch": other}), x, keep)


def has_axis(call: Call) -> bool:
    """Return whether the batch is along another axis than the first."""
    return bool(call.options.get("axis"))


def in_evaluation(call: Call) -> bool:
    """Return whether the call is outside training."""
    return not call.training


def cut_or_repeated(call: Call) -> dict[str, Any]:
    """Return options whose per-sample arguments are resized, if their batch divides the other."""
    batch = call.x.shape[call.options.get("axis", 0)]
    sizes = [len(w) for w in call.options.get("per_sample", ())]
    fits = all(n and max(n, batch) % min(n, batch) == 0 for n in sizes)
    return resized(call) if fits else dict(call.options)


MUTANTS = (
    mutant(
        "a block of batch mode without the factor",
        "RES-1",
        **changed(lambda c: c.options.get("mode") == "batch", scale_by_keep=False),
    ),
    mutant(
        "a block of another axis without the factor",
        "RES-1",
        **changed(has_axis, scale_by_keep=False),
    ),
    mutant("a block not scaled in evaluation", "RES-1", **changed(in_evaluation, scale_at="train")),
    mutant(
        "a block scaled in training whatever scale_at says",
        "RES-1 RES-7",
        **changed(lambda c: c.training, scale_at="train"),
    ),
    mutant(
        "a block without the factor where the mask is given",
        "RES-1 RES-7",
        **changed(lambda c: c.keep is not None, scale_by_keep=False),
    ),
    mutant("a given mask that drops in evaluation", "RES-1", forward=dropping_outside),
    mutant("a branch cleaned of NaN", "RES-1", forward=felt(np.nan_to_num)),
    mutant("+0 added to dropped rows", "RES-2", forward=positive_zero),
    mutant("a block in the wider dtype", "RES-3", forward=in_the_dtype_of_both),
    mutant(
        "a block promoted in evaluation",
        "RES-3",
        run=answering(
            dtype=lambda c, o: "float32" if c.op == "residual" and not c.training else o.dtype
        ),
    ),
    mutant(
        "runs all rows of large batches",
        "RES-4",
        rows=lambda c, keep: np.ones_like(keep) if len(keep) > 64 else REFERENCE.rows(c, keep),
    ),
    mutant(
        "runs all rows of a given mask",
        "RES-4",
        rows=lambda c, keep: REFERENCE.rows(c, keep | (c.keep is not None)),
    ),
    mutant("skips all but 64 rows", "RES-5", draw=at_most_64),
    mutant(
        "skips without the offset",
        "RES-5",
        run=calling(
            options=lambda c: {
                **c.options,
                "offset": c.options.get("offset", 0) * (not is_skipping(c)),
            }
        ),
    ),
    mutant(
        "skips in float16 without the factor",
        "RES-5",
        **changed(lambda c: is_skipping(c) and c.dtype == "float16", scale_by_keep=False),
    ),
    mutant(
        "arguments of any batch in evaluation",
        "RES-6",
        run=calling(options=lambda c: resized(c) if in_evaluation(c) else c.options),
    ),
    mutant(
        "arguments cut or repeated where that fits", "RES-6", run=calling(options=cut_or_repeated)
    ),
    mutant("arguments in float32", "RES-6", forward=in_float32_arguments),
    mutant("the gradient of a block cleaned of NaN", "RES-7", backward=zeros_where),
    mutant(
        "the gradient of a block not scaled in evaluation",
        "RES-7",
        backward=changed(in_evaluation, scale_at="train")["backward"],
    ),
    mutant(
        "the gradient of another axis without the factor",
        "RES-7",
        backward=changed(has_axis, scale_by_keep=False)["backward"],
    ),
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
    mutant(
        "drops blocks by a given keep in evaluation",
        "RES-1 RES-7",
        run=calling(training=lambda c: c.training or (c.keep is not None and c.op == "residual")),
    ),
)
