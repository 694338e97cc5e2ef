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
    mutant("residual that leaks", "RES-2", forward=leaking),
    mutant(
        "residual that promotes",
        "RES-3",
        run=answering(
            dtype=lambda c, o: "float32" if c.op == "residual" and c.dtype == "float16" else o.dtype
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
)
