"""What an adapter implements: one verb, NumPy in and out.

Arrays travel as float64, which holds every number of the dtypes that SPEC.md knows; the dtype
itself travels as text. So an adapter needs no bfloat16 of its own, and no framework is seen here.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

# What an adapter may claim. Unclaimed is "not tested"; a claim that fails is a failure.
CAPABILITIES = {
    "gradient": "Call.dy is answered by Outcome.dx",
    "recompute": "Call.recompute runs the forward again for the gradient (checkpointing, remat)",
    "keyed": "Call.key draws the mask of the KEY clauses, at Call.options['offset']",
    "stateless": "there is no generator of its own: without key and keep it refuses to train",
    "keep": "Call.keep is the mask itself",
    "batch": "options: mode='batch'",
    "balanced": "options: mode='balanced', groups",
    "axis": "options: axis",
    "scale_by_keep": "options: scale_by_keep",
    "scale_at": "options: scale_at",
    "model": "op 'model': the masks of a model's layers: y is [L, B], 1 where kept; from Call.key, "
    "or from the seed where keyed is not claimed",
    "unkeyed": "op 'model' also without Call.key where keyed is claimed: from the seed, or from "
    "the generator as it is",
    "calls": "op 'model': options: calls, how often a forward calls each layer: y is [calls, L, B]",
    "residual": "op 'residual': options['branch'] maps arrays by operators alone",
    "skip": "op 'residual': options: skip; Outcome.ran, in training",
    "compile": "Call.compiled runs the call in a program that a compiler made; Outcome.built",
    "scan": "op 'layers': a program whose layers' rates are data; Outcome.built",
    "vmap": "op 'mapped': drop_path mapped over x and keys",
    "shard": "Call.shards splits the batch, over devices or into calls at their offsets",
    "collectives": "Outcome.collectives, for residual calls of several shards",
    "random": "ops 'key', 'fold_in', 'split', 'random_bits'",
    "plan": "ops 'layer_plan', 'planned_depth'",
    "stack": "op 'stack': layers of which a plan runs some; Outcome.ran counts them, in training",
    "schedule": "ops 'drop_path_rates', 'ramp', 'expected_depth', 'kept_capacity'",
}


class BrokenAdapter(Exception):
    """The adapter, not the implementation behind it, does not do what the protocol says."""


class NotTaken(ValueError):
    """An option was given that the adapter's function does not take."""


@dataclass(frozen=True)
class Info:
    """What is tested: its name and version as the report prints it, and what it claims.

    compiles: whether shapes and dtypes are compiled one by one, eager calls too: then fewer are
    combined.
    """

    name: str
    claims: frozenset[str] = frozenset()
    dtypes: tuple[str, ...] = ("float32",)
    compiles: bool = False


@dataclass(frozen=True)
class Call:
    """One call of the implementation.

    x: float64 [..., B, ...], each number one of `dtype`. dy: the gradient of y, if dx is wanted.
    seed: what to seed the implementation's generator with, or to make its key from; None leaves the
    generator as it is and gives no key. key: uint32 [2], keep: bool [B], each instead of the seed.
    options: further keyword arguments, named as in SPEC.md; only what is claimed is asked for. The
    mode is "row" unless named. compiled: run a program, made once for all calls alike but in their
    arrays and keys. shards: how many equal contiguous parts the batch is split into; for balanced
    masks they divide the groups.

    Further ops with x: "residual", whose options hold `branch`, a function of a module, and perhaps
    `per_sample`, a list of float64 [B, ...] of `dtype`; where dy is given the branch is linear in
    x, element by element, so that it is its own vjp. "layers": drop_prob is a list; y[l] is
    drop_path of x at drop_prob[l] with fold_in(key, l). "mapped": x is [N, B, ...] and key [N, 2];
    y[i] is drop_path of x[i] with key[i]. "stack": drop_prob is a list, the rates of the layers;
    options hold `branch`, a function of a module of (x, w), linear as above, and `params`, float64
    [L] of `dtype`, the w of each layer; Call.keep is the plan itself, bool [L]. "model": drop_prob
    is a list; see CAPABILITIES.

    Ops without x: "drop_path_rates" of a list of depths: y holds the rates of all stages in order,
    and Outcome.stages how many each stage has, and so does "layer_plan" of rates in stages, 1 where
    a layer runs. The ops of "random", "plan" and "schedule" have the arguments of droppath's
    functions of these names as options.
    """

    x: Array = field(default_factory=lambda: np.ones(1))
    drop_prob: Any = 0.0
    dtype: str = "float32"
    op: str = "drop_path"
    training: bool = True
    seed: int | None = 0
    key: Any = None
    keep: Any = None
    dy: Array | None = None
    recompute: bool = False
    compiled: bool = False
    shards: int = 1
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """What came back. y, dx, x_after (x as it is after the call): float64. dtype: that of y.

    Each field below is None if the adapter cannot observe it. drew: whether the state of a
    generator outside the call moved. ran: how many rows the branch ran on; of a "stack", how many
    layers ran. built: whether a program had to be made for this call. collectives: how many of its
    program's operations exchange data between devices. stages: see Call.
    """

    y: Array
    dtype: str = "float64"
    dx: Array | None = None
    dx_dtype: str | None = None
    x_after: Array | None = None
    drew: bool | None = None
    ran: int | None = None
    built: bool | None = None
    collectives: int | None = None
    stages: tuple[int, ...] | None = None


def as_float64(array: Any) -> Array:
    """Return the numbers of an array that NumPy can read, in an array of their own."""
    return np.array(array, np.float64)


def outcome_from(
    y: Any, dx: Any, x: Any, drew: bool, to_float64: Callable[[Any], Array] = as_float64
) -> Outcome:
    """Return the outcome of a framework's arrays: y, dx or None, and x as it is after the call.

    to_float64: how one of them becomes NumPy's. The other fields of Outcome are None; an adapter
    that observes them sets them by dataclasses.replace.
    """
    return Outcome(
        to_float64(y),
        dtype_text(y),
        None if dx is None else to_float64(dx),
        None if dx is None else dtype_text(dx),
        to_float64(x),
        drew,
    )


def dtype_text(array: Any) -> str:
    """Return "float32" for NumPy's, JAX's and PyTorch's float32; PyTorch's says "torch.float32"."""
    return str(array.dtype).rpartition(".")[2]


def parts(call: Call) -> list[Call]:
    """Return the calls that a call of several shards is split into, each at its offset."""
    n, options = call.shards, call.options
    axis = options.get("axis", 0)
    rows, first = call.x.shape[axis] // n, options.get("offset", 0)
    per_sample = [np.split(argument, n) for argument in options.get("per_sample", ())]

    def part(i: int) -> Call:
        mine = {**options, "offset": first + i * rows, "per_sample": [a[i] for a in per_sample]}
        mine |= {"groups": options["groups"] // n} if "groups" in options else {}
        return replace(
            call,
            x=np.split(call.x, n, axis)[i],
            dy=None if call.dy is None else np.split(call.dy, n, axis)[i],
            keep=None if call.keep is None else np.split(call.keep, n)[i],
            shards=1,
            options={k: v for k, v in mine.items() if k in options or k == "offset"},
        )

    return [part(i) for i in range(n)]


def joined(outcomes: list[Outcome], axis: int = 0) -> Outcome:
    """Return the outcome of a call from those of its parts: y and dx."""
    dx = [outcome.dx for outcome in outcomes if outcome.dx is not None]
    return replace(
        outcomes[0],
        y=np.concatenate([outcome.y for outcome in outcomes], axis),
        dx=np.concatenate(dx, axis) if dx else None,
        x_after=None,
    )


def outcome_of_plan(drawn: Any) -> Outcome:
    """Return the outcome of "layer_plan": an array, or a list of one for each stage."""
    if not isinstance(drawn, list):
        return Outcome(as_float64(drawn))
    flat = [runs for stage in drawn for runs in as_float64(stage)]
    return Outcome(as_float64(flat), stages=tuple(len(stage) for stage in drawn))


def counting(branch: Callable[..., Any], axis: int | None, ran: list[int]) -> Callable[..., Any]:
    """Return a branch that notes how many rows it runs on, or that it runs, for Outcome.ran.

    axis: the batch axis; None notes 1 at each call.
    """

    def noted(x: Any, *others: Any, **params: Any) -> Any:
        ran.append(1 if axis is None else x.shape[axis])
        return branch(x, *others, **params)

    return noted


class Backend(Protocol):
    """An implementation under test. `run` lets the implementation's own exceptions through."""

    def info(self) -> Info:
        """Return what is tested, and what it claims."""
        ...

    def run(self, call: Call) -> Outcome:
        """Return the outcome of one call."""
        ...
