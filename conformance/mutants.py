"""Wrong DropPaths, each a few lines away from the reference: what the checks must reject.

A mutant replaces parts of the reference backend; it names the clauses that it breaks at least, and
the tests hold the checks to that. Every clause has a mutant: a check that nothing fails counts for
nothing. Most are found in public code; none is meant to be used.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

import droppath
from conformance.numerics import product, round_to
from conformance.protocol import Array, Backend, Call, Outcome
from conformance.runner import load

Part = Callable[..., Any]
REFERENCE: Any = load("reference")
TWO_23 = 1 << 23


@dataclass(frozen=True)
class Mutant:
    """A name, the clauses it breaks, and the methods of the reference adapter that it replaces."""

    name: str
    clauses: tuple[str, ...]
    parts: Mapping[str, Part]

    def backend(self) -> Backend:
        """Return the wrong backend. A part is called as the method is, without self."""
        mutant = load("reference")
        for method, part in self.parts.items():
            setattr(mutant, method, part)
        return mutant


def mutant(name: str, clauses: str, **parts: Part) -> Mutant:
    """Return a mutant; clauses are separated by spaces."""
    return Mutant(name, tuple(clauses.split()), parts)


def calling(**changes: Any) -> Part:
    """Return a `run` that runs the reference on a changed call: a value, or a function of it."""

    def run(call: Call) -> Outcome:
        given = {name: new(call) if callable(new) else new for name, new in changes.items()}
        return REFERENCE.run(replace(call, **given))

    return run


def answering(**changes: Callable[[Call, Outcome], Any]) -> Part:
    """Return a `run` that changes the reference's outcome: a function of call and outcome each."""

    def run(call: Call) -> Outcome:
        outcome = REFERENCE.run(call)
        return replace(outcome, **{name: new(call, outcome) for name, new in changes.items()})

    return run


def words(call: Call) -> Array:
    """Return the key of a call."""
    return droppath.key(call.seed or 0) if call.key is None else np.asarray(call.key)


def drops(call: Call) -> bool:
    """Return whether the call draws at all, with arguments that are right."""
    p = call.drop_prob
    right = isinstance(p, float) and 0 < p < 1 and call.x.ndim > 0
    return bool(call.op == "drop_path" and call.training and right and call.keep is None)


def drawing(draw: Callable[[Call, int], Array]) -> Part:
    """Return a `draw` that is the reference's unless the call drops in row mode along axis 0."""

    def part(call: Call, x: Array) -> Array:
        keep = REFERENCE.draw(call, x)
        plain = call.options.get("mode", "row") == "row" and not call.options.get("axis")
        return draw(call, len(keep)) if drops(call) and plain else keep

    return part


def drawing_balanced(draw: Callable[[Call, int, int], Array]) -> Part:
    """Return a `draw` that is the reference's but in balanced mode; draw: (call, group, groups)."""

    def part(call: Call, x: Array) -> Array:
        keep = REFERENCE.draw(call, x)
        if not (drops(call) and call.options.get("mode") == "balanced" and keep.size):
            return keep
        groups = call.options.get("groups", 1)
        return draw(call, len(keep) // groups, groups).reshape(-1)

    return part


def scaling(scale: Callable[[float, str], float]) -> dict[str, Part]:
    """Return a forward and a backward with another factor on kept rows; scale: (p, dtype)."""

    def scaled(method: str) -> Part:
        def part(call: Call, x: Array, keep: Array) -> Array:
            y = getattr(REFERENCE, method)(call, x, keep)
            if not (drops(call) and call.options.keys() <= {"mode", "offset", "groups"}):
                return y
            s = scale(call.drop_prob, call.dtype)
            kept = product(x.astype(np.float64), s, call.dtype).astype(y.dtype)
            return np.where(keep.reshape(-1, *[1] * (x.ndim - 1)), kept, np.zeros((), y.dtype))

        return part

    return {"forward": scaled("forward"), "backward": scaled("backward")}


def ranks(call: Call, group: int, groups: int) -> Array:
    """Return for each group the rank of each row's word: int [groups, group]."""
    bits = droppath.random_bits(droppath.fold_in(words(call), 0), group * groups)
    return bits.reshape(groups, group).argsort(1).argsort(1)


def count(call: Call, group: int, groups: int) -> Array:
    """Return how many rows each group drops: int [groups, 1]."""
    scaled = group * int(np.ceil(np.float32(call.drop_prob) * np.float32(TWO_23)))
    up = droppath.random_bits(droppath.fold_in(words(call), 1), groups) >> 9
    return (scaled // TWO_23 + (up < scaled % TWO_23))[:, None]


def in_dtype(call: Call, batch: int) -> Array:
    """Return floor(1 - p + u) with u on the grid of x's dtype."""
    bits = {"bfloat16": 7, "float16": 10}.get(call.dtype, 23)
    u = (droppath.random_bits(words(call), batch) >> (32 - bits)) / 2.0**bits
    keep: Array = np.floor(round_to(1 - call.drop_prob + u, call.dtype)) == 1
    return keep


def clipped(call: Call) -> Any:
    """Return drop_prob made good in silence."""
    try:
        return float(np.clip(np.nan_to_num(float(call.drop_prob)), 0, 1))
    except TypeError:
        return 0.0


def no_floor(call: Call, outcome: Outcome) -> Array:
    """Return x * (keep_prob + u) / keep_prob: a mask that is none."""
    if not drops(call):
        return outcome.y
    u = droppath.random_bits(words(call), len(call.x)) / 2.0**32
    column = (1 - call.drop_prob + u).reshape(-1, *[1] * (call.x.ndim - 1))
    return call.x * column / (1 - call.drop_prob)


def multiplied(x: Any, outcome: Array) -> Array:
    """Return 0 * x where the outcome is 0."""
    with np.errstate(invalid="ignore"):
        return np.where(outcome == 0, x * 0.0, outcome)


def nan_at_1(call: Call, value: Array | None) -> Array | None:
    """Return NaN at p = 1 in training."""
    at_1 = call.training and call.drop_prob == 1 and value is not None
    return np.full_like(value, np.nan) if at_1 and value is not None else value


def fresh_mask(call: Call, dy: Array, keep: Array) -> Array:
    """Return the gradient under a mask of another key."""
    return REFERENCE.backward(call, dy, np.roll(keep, 1))


def op(name: str, wrong: Callable[..., Any]) -> Part:
    """Return a `compute` with one op replaced; wrong: its options."""

    def compute(call: Call) -> Any:
        return wrong(**call.options) if call.op == name else REFERENCE.compute(call)

    return compute


def ramp_that_stays(**options: Any) -> Array:
    """Return a ramp that is updated only while it lasts, in ten steps."""
    last = options["end"] - (options["end"] - options["begin"]) / 10
    return droppath.ramp(**options | {"step": np.minimum(options["step"], last)})


def flat_rates(**options: Any) -> list[float]:
    """Return rates that forget the stages."""
    return [p for stage in np.atleast_2d(droppath.drop_path_rates(**options)) for p in stage]


def swapped(key: Array, data: int) -> Array:
    """Return fold_in with the words of the counter swapped."""
    zero = np.zeros((), np.uint32)
    return np.stack(droppath.random.threefry2x32(key, np.asarray(data, np.uint32), zero), -1)


def leaking(call: Call, x: Array, keep: Array) -> Array:
    """Return x + keep * branch(x): a dropped branch that overflows is felt."""
    y = REFERENCE.forward(call, x, keep)
    if call.op == "residual":
        with np.errstate(invalid="ignore"):
            y[~keep] = x[~keep] + 0 * call.options["branch"](x[~keep])
    return y


def is_skipping(call: Call) -> bool:
    """Return whether the call is of a residual block that may skip."""
    return call.op == "residual" and call.options.get("skip") is not False


def floored(call: Call, x: Array) -> Array:
    """Return a balanced mask without the row that is kept for the fraction of b (1 - p)."""
    keep = REFERENCE.draw(call, x)
    if not (is_skipping(call) and call.options.get("mode") == "balanced" and keep.size):
        return keep
    rows = keep.reshape(call.options.get("groups", 1), -1)
    most = int(rows.shape[1] * (1 - call.drop_prob))
    return (rows & (rows.cumsum(1) <= most)).reshape(-1)


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


def several(name: str, **changes: Callable[[Call], Any]) -> Part:
    """Return a `compute` that runs the op of this name, of several masks, on a changed call."""

    def compute(call: Call) -> Any:
        given = {field: new(call) for field, new in changes.items()} if call.op == name else {}
        return REFERENCE.compute(replace(call, **given))

    return compute


def compiling(
    answer: Callable[[Call, Outcome], Outcome] = lambda call, outcome: outcome,
) -> dict[str, Part]:
    """Return the parts of a reference that claims a compiler and devices; answer: its fault.

    NumPy has neither: the program is the call itself, made at the first call, and says nothing.
    """
    info = REFERENCE.info()
    info = replace(info, claims=info.claims | {"compile", "collectives"})

    def run(call: Call) -> Outcome:
        return answer(call, replace(REFERENCE.run(call), built=False, collectives=0))

    return {"info": lambda: info, "run": run}


def frozen() -> Callable[[Call, Outcome], Outcome]:
    """Return an answer that has the mask of the first key that the program was called with."""
    first: dict[str, Any] = {}

    def answer(call: Call, outcome: Outcome) -> Outcome:
        if not call.compiled:
            return outcome
        key = first.setdefault(
            f"{call.op} {call.options.keys()} {call.options.get('mode')}", call.key
        )
        return replace(outcome, y=REFERENCE.run(replace(call, key=key)).y)

    return answer


def other_draws(call: Call, outcome: Outcome) -> Outcome:
    """Return the outcome of a program that draws by another rule."""
    if not call.compiled:
        return outcome
    return REFERENCE.run(replace(call, key=droppath.fold_in(words(call), 1)))


def without(**defaults: Any) -> Part:
    """Return a `run` that overwrites options that are given."""
    return calling(
        options=lambda call: {
            **call.options,
            **{k: v for k, v in defaults.items() if k in call.options},
        }
    )


def seed_truncated(seed: Any) -> Array:
    """Return the key of a seed modulo 2**32."""
    return np.array([0, int(seed) % 2**32], np.uint32)


MUTANTS = (
    mutant("accepts any rate", "ARG-1", run=calling(drop_prob=clipped)),
    mutant(
        "accepts integers",
        "ARG-2",
        run=calling(dtype=lambda c: c.dtype.replace("int32", "float32")),
    ),
    mutant(
        "an unknown mode is row",
        "ARG-3",
        run=calling(
            options=lambda c: {k: v for k, v in c.options.items() if v not in ("rows", None)}
        ),
    ),
    mutant(
        "keep of any dtype",
        "ARG-4",
        run=calling(keep=lambda c: None if c.keep is None else np.asarray(c.keep) != 0),
    ),
    mutant("truncates seeds", "ARG-5", compute=op("key", seed_truncated)),
    mutant("ignores training", "EVAL-1", run=calling(training=True, seed=lambda c: c.seed or 0)),
    mutant("draws in evaluation", "EVAL-1", run=answering(drew=lambda c, o: c.training is False)),
    mutant("draws at p = 0", "EVAL-2", run=answering(drew=lambda c, o: c.drop_prob == 0)),
    mutant(
        "masks the last axis",
        "MASK-1",
        run=calling(options=lambda c: {**c.options, "axis": -1}),
    ),
    mutant(
        "draws for each element",
        "MASK-1",
        run=answering(
            y=lambda c, o: (
                REFERENCE.run(replace(c, x=c.x.reshape(-1))).y.reshape(c.x.shape)
                if drops(c) and "axis" not in c.options
                else o.y
            )
        ),
    ),
    mutant(
        "masks of rank 4",
        "MASK-2 TYPE-2",
        run=answering(y=lambda c, o: o.y * np.ones((1, 1, 1, 1)) if drops(c) else o.y),
    ),
    mutant("draws in x's dtype", "MASK-3 MASK-4", draw=drawing(in_dtype)),
    mutant(
        "a mask that depends on x",
        "MASK-3",
        draw=lambda c, x: REFERENCE.draw(replace(c, seed=int(abs(c.x.sum())) % 99), x),
    ),
    mutant(
        "keep and drop swapped", "MASK-4 KEY-2", draw=drawing(lambda c, n: ~REFERENCE.draw(c, c.x))
    ),
    mutant(
        "drops nothing at small p",
        "MASK-4",
        draw=drawing(lambda c, n: REFERENCE.draw(c, c.x) | (c.drop_prob < 0.005)),
    ),
    mutant(
        "the first row is always kept",
        "MASK-4",
        draw=drawing(lambda c, n: REFERENCE.draw(c, c.x) | (np.arange(n) == 0)),
    ),
    mutant(
        "the second half repeats the first",
        "MASK-5",
        draw=drawing(lambda c, n: np.resize(REFERENCE.draw(c, c.x)[: (n + 1) // 2], n)),
    ),
    mutant("no floor", "MASK-4 SCALE-1 DROP-1", run=answering(y=no_floor)),
    mutant("one mask for every seed", "MASK-5", run=calling(seed=0)),
    mutant(
        "one mask for every key",
        "KEY-2 KEY-7",
        run=calling(
            key=lambda c: c.key if c.key is None or np.shape(c.key) != (2,) else droppath.key(0)
        ),
    ),
    mutant(
        "batch mode draws for each row",
        "MASK-5 KEY-3",
        run=calling(
            options=lambda c: {k: v for k, v in c.options.items() if v != "batch" or k != "mode"}
        ),
    ),
    mutant(
        "scale rounded to x's dtype",
        "SCALE-1 GRAD-1",
        **scaling(lambda p, dtype: float(round_to(np.asarray(1 / (1 - p)), dtype))),
    ),
    mutant(
        "1 - p in float32",
        "SCALE-1 GRAD-1",
        **scaling(lambda p, dtype: float(1 / (np.float32(1) - np.float32(p)))),
    ),
    mutant("keep_prob instead of its inverse", "SCALE-1", **scaling(lambda p, dtype: 1 - p)),
    mutant("always scales", "SCALE-2", run=without(scale_by_keep=True)),
    mutant("scales in training only", "SCALE-3", run=without(scale_at="train")),
    mutant(
        "multiplies instead of selecting",
        "DROP-1 GRAD-1",
        run=answering(
            y=lambda c, o: multiplied(c.x, o.y) if drops(c) else o.y,
            dx=lambda c, o: o.dx if o.dx is None or not drops(c) else multiplied(c.dy, o.dx),
        ),
    ),
    mutant("NaN at p = 1", "DROP-2", run=answering(y=lambda c, o: nan_at_1(c, o.y))),
    mutant(
        "identity at p = 1",
        "DROP-2",
        run=answering(y=lambda c, o: c.x if c.drop_prob == 1 else o.y),
    ),
    mutant("NaN gradient at p = 1", "GRAD-3", run=answering(dx=lambda c, o: nan_at_1(c, o.dx))),
    mutant("another mask backward", "GRAD-1 GRAD-2", backward=fresh_mask),
    mutant(
        "promotes bfloat16",
        "TYPE-1",
        run=answering(dtype=lambda c, o: "float32" if o.dtype == "bfloat16" else o.dtype),
    ),
    mutant("loses axes of size 1", "TYPE-2", run=answering(y=lambda c, o: o.y.squeeze())),
    mutant("modifies x", "PURE-1", run=answering(x_after=lambda c, o: o.y)),
    mutant("moves the global state", "PURE-2", run=answering(drew=lambda c, o: c.key is not None)),
    mutant("counter's words swapped", "KEY-1", compute=op("fold_in", swapped)),
    mutant(
        "a mask of another p is another mask",
        "KEY-5",
        draw=lambda c, x: (
            REFERENCE.draw(replace(c, key=droppath.fold_in(words(c), int(c.drop_prob * 1000))), x)
            if drops(c)
            else REFERENCE.draw(c, x)
        ),
    ),
    mutant(
        "offset ignored",
        "KEY-2 KEY-6",
        run=calling(options=lambda c: {k: v for k, v in c.options.items() if k != "offset"}),
    ),
    mutant(
        "one key for all layers",
        "KEY-7",
        compute=lambda c: (
            [droppath.keep_mask(c.key, p, len(c.x)) for p in c.drop_prob]
            if c.op == "model"
            else REFERENCE.compute(c)
        ),
    ),
    mutant(
        "keeps the largest words",
        "KEY-4",
        draw=drawing_balanced(lambda c, b, g: ranks(c, b, g) >= count(c, b, g)),
    ),
    mutant(
        "keeps max(int(b (1 - p)), 1)",
        "BAL-1 BAL-2 MASK-4",
        draw=drawing_balanced(lambda c, b, g: ranks(c, b, g) < max(int(b * (1 - c.drop_prob)), 1)),
    ),
    mutant(
        "never drops at b = 1",
        "BAL-2",
        draw=drawing_balanced(lambda c, b, g: ranks(c, b, g) < np.maximum(b - count(c, b, g), 1)),
    ),
    mutant(
        "keeps a run of rows",
        "BAL-3",
        draw=drawing_balanced(
            lambda c, b, g: (np.arange(b) + ranks(c, b, g)[:, :1]) % b < b - count(c, b, g)
        ),
    ),
    mutant(
        "capacity rounded to nearest",
        "BAL-4",
        compute=op(
            "kept_capacity", lambda drop_prob, batch, groups: round(batch * (1 - drop_prob))
        ),
    ),
    mutant(
        "residual without the factor",
        "RES-1",
        forward=lambda c, x, keep: REFERENCE.forward(
            replace(c, options={**c.options, "scale_by_keep": False}), x, keep
        ),
    ),
    mutant(
        "residual that takes any rate",
        "ARG-1",
        run=calling(drop_prob=lambda c: clipped(c) if c.op == "residual" else c.drop_prob),
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
        "linear is exclusive",
        "SCHED-1",
        compute=op(
            "drop_path_rates",
            lambda drop_path_rate, depth, rule: droppath.drop_path_rates(
                drop_path_rate, depth, rule="exclusive" if rule == "linear" else rule
            ),
        ),
    ),
    mutant(
        "one block is never dropped",
        "SCHED-2",
        compute=op(
            "drop_path_rates",
            lambda drop_path_rate, depth, rule: (
                [0.0] if depth == 1 else droppath.drop_path_rates(drop_path_rate, depth, rule=rule)
            ),
        ),
    ),
    mutant("stages are flattened", "SCHED-3", compute=op("drop_path_rates", flat_rates)),
    mutant("a ramp that never lands", "SCHED-4", compute=op("ramp", ramp_that_stays)),
    mutant(
        "depth of what is dropped",
        "SCHED-5",
        compute=op("expected_depth", lambda rates: sum(rates)),
    ),
    mutant("another mask when compiled", "COMP-1", **compiling(other_draws)),
    mutant("a coin frozen by the compiler", "COMP-2", **compiling(frozen())),
    mutant(
        "a program for each key",
        "COMP-2",
        **compiling(lambda c, o: replace(o, built=c.compiled)),
    ),
    mutant(
        "the first layer's rate for all",
        "COMP-3",
        compute=several("layers", drop_prob=lambda c: [c.drop_prob[0]] * len(c.drop_prob)),
    ),
    mutant(
        "one mask for all that is mapped",
        "COMP-4",
        compute=several("mapped", key=lambda c: c.key[:1].repeat(len(c.key), 0)),
    ),
    mutant(
        "a mask that depends on the number of devices",
        "DIST-1",
        run=calling(key=lambda c: c.key if c.shards == 1 else droppath.fold_in(words(c), c.shards)),
    ),
    mutant(
        "rows gathered from other devices",
        "DIST-2",
        **compiling(lambda c, o: replace(o, collectives=int(is_skipping(c)))),
    ),
)
