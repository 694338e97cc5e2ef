"""The NumPy reference behind the protocol: it decides, this file translates."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import ml_dtypes
import numpy as np

import droppath
from conformance.protocol import (
    Array,
    Backend,
    Call,
    Info,
    Outcome,
    counting,
    joined,
    outcome_from,
    outcome_of_plan,
    parts,
)
from droppath.arguments import check_one_source, check_source
from droppath.decisions import mask_of_call, rows_that_run

DRAWS = ("mode", "groups", "offset")
APPLIES = ("scale_by_keep", "scale_at", "axis")
CLAIMS = (
    "gradient keyed stateless keep batch balanced axis scale_by_keep scale_at model unkeyed "
    "calls residual skip scan vmap shard random plan stack schedule"
)


class Reference:
    """Draws with droppath.keep_mask, applies with droppath.drop_path; mutants replace parts."""

    def info(self) -> Info:
        """Return all that NumPy can claim: it has no compiler, and a shard is a call of its own."""
        dtypes = ("float64", "float32", "float16", "bfloat16")
        return Info(f"droppath {droppath.__version__}", frozenset(CLAIMS.split()), dtypes)

    def run(self, call: Call) -> Outcome:
        """Return the outcome of one call."""
        if call.shards > 1:
            return joined([self.run(part) for part in parts(call)], call.options.get("axis", 0))
        if call.op == "layer_plan":
            return outcome_of_plan(self.compute(call))
        if call.op == "drop_path_rates" and np.ndim(call.options["depth"]):
            stages = self.compute(call)
            flat = np.array([p for stage in stages for p in stage], np.float64)
            return Outcome(flat, stages=tuple(map(len, stages)))
        if call.op == "stack":
            return self.run_stack(call)
        if call.op not in ("drop_path", "residual"):
            return Outcome(np.asarray(self.compute(call), np.float64))
        dtype = np.dtype(getattr(ml_dtypes, call.dtype, call.dtype))
        x, ran = call.x.astype(dtype), list[int]()
        keep = self.draw(call, x)
        with np.errstate(over="ignore", invalid="ignore"):  # branches that overflow are asked for
            y = self.forward(self.counted(call, ran), x, keep)
            dx = None if call.dy is None else self.backward(call, call.dy.astype(dtype), keep)
        return replace(outcome_from(y, dx, x, drew=False), ran=sum(ran))

    def run_stack(self, call: Call) -> Outcome:
        """Return the outcome of a stack, whose gradient is the stack of dy from its end."""
        dtype, ran = np.dtype(getattr(ml_dtypes, call.dtype, call.dtype)), list[int]()
        x = call.x.astype(dtype)
        noted = counting(call.options["branch"], None, ran)
        with np.errstate(over="ignore", invalid="ignore"):
            y, count = self.stack(call, x, noted, slice(None)), sum(ran)
            dy = None if call.dy is None else call.dy.astype(dtype)
            dx = None if dy is None else self.stack(call, dy, noted, slice(None, None, -1))
        return replace(outcome_from(y, dx, x, drew=False), ran=count)

    def stack(self, call: Call, x: Array, branch: Callable[..., Array], order: slice) -> Array:
        """Return x after the layers in this order."""
        rates, params = call.drop_prob, call.options["params"].astype(x.dtype)
        layers = [partial(branch, w=w) for w in params][order]
        options = {"training": call.training, **only(call.options, APPLIES)}
        return droppath.drop_path_stack(x, layers, self.plan(call)[order], rates[order], **options)

    def plan(self, call: Call) -> Array:
        """Return the plan of a stack: that of the call, or the one of its key."""
        check_one_source(call.key, call.keep)
        if call.keep is not None:
            return call.keep
        if not call.training:
            return np.ones(len(call.drop_prob), bool)
        check_source(call.key, "plan")  # ARG-5
        return droppath.layer_plan(call.key, call.drop_prob)

    def counted(self, call: Call, ran: list[int]) -> Call:
        """Return the call with a branch that notes how many rows it ran on."""
        if call.op != "residual":
            return call
        noted = counting(call.options["branch"], call.options.get("axis", 0), ran)
        return replace(call, options={**call.options, "branch": noted})

    def draw(self, call: Call, x: Array) -> Array:
        """Return the mask: that of the call, or one drawn from its key, or from its seed."""
        axis = call.options.get("axis", 0)
        batch = x.shape[axis] if -x.ndim <= axis < x.ndim else 0  # which drop_path refuses
        seeded = call.seed is not None and call.key is None and call.keep is None
        key = droppath.key(call.seed or 0) if seeded else call.key
        options = {"training": call.training, "key": key, "keep": call.keep}
        return mask_of_call(batch, call.drop_prob, **options, **only(call.options, DRAWS))

    def forward(self, call: Call, x: Array, keep: Array) -> Array:
        """Return y, of a residual block if the call is for one."""
        return self._apply(call, x, keep, droppath.drop_path, droppath.drop_path_residual)

    def backward(self, call: Call, dy: Array, keep: Array) -> Array:
        """Return dx."""
        vjps = droppath.drop_path_vjp, droppath.drop_path_residual_vjp
        return self._apply(call, dy, keep, *vjps)

    def _apply(self, call: Call, x: Array, keep: Array, plain: Any, residual: Any) -> Array:
        options = {"training": call.training, **only(call.options, APPLIES)}
        if call.op != "residual":
            return plain(x, keep, call.drop_prob, **options)
        per_sample = [argument.astype(x.dtype) for argument in call.options.get("per_sample", ())]
        options["run"] = self.rows(call, keep)
        return residual(x, call.options["branch"], keep, call.drop_prob, *per_sample, **options)

    def rows(self, call: Call, keep: Array) -> Array:
        """Return the rows that the branch runs on: bool [B]."""
        return rows_that_run(keep, call.drop_prob, **only(call.options, ("mode", "skip")))

    def compute(self, call: Call) -> Any:
        """Return the result of an op of several masks, of keys or of schedules."""
        if call.op in ("layers", "mapped"):
            return np.stack([self.run(each).y for each in alone(call)])
        if call.op != "model":
            return getattr(droppath, call.op)(**call.options)
        if call.key is None and call.seed is None:  # ARG-5
            return [mask_of_call(len(call.x), p) for p in call.drop_prob]
        key = droppath.key(call.seed or 0) if call.key is None else call.key
        keys = droppath.split(key, len(call.drop_prob))
        if "calls" not in call.options:
            return masks(keys, call)
        later = range(1, call.options["calls"])
        return [masks(keys, call), *[masks(droppath.fold_in(keys, c + 1), call) for c in later]]


def masks(keys: Array, call: Call) -> list[Array]:
    """Return the masks of a model's layers from a key each."""
    pairs = zip(keys, call.drop_prob, strict=True)
    return [droppath.keep_mask(key, p, len(call.x)) for key, p in pairs]


def alone(call: Call) -> list[Call]:
    """Return the calls of drop_path that the ops "layers" and "mapped" are."""
    call = replace(call, op="drop_path")
    if np.ndim(call.drop_prob):
        keys = droppath.split(call.key, len(call.drop_prob))
        pairs = zip(call.drop_prob, keys, strict=True)
        return [replace(call, drop_prob=p, key=key) for p, key in pairs]
    return [replace(call, x=x, key=key) for x, key in zip(call.x, call.key, strict=True)]


def only(options: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    """Return the options of these names."""
    return {name: value for name, value in options.items() if name in names}


def backend() -> Backend:
    """Return the reference."""
    return Reference()
