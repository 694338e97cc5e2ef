"""droppath_flax behind the protocol, eager or jitted, on one device or on several."""

from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import droppath
from conformance.hlo import collectives
from conformance.protocol import (
    Backend,
    Call,
    Info,
    Outcome,
    as_float64,
    joined,
    outcome_from,
    outcome_of_plan,
    parts,
)
from droppath_flax import (
    DropPath,
    DropPathResidual,
    drop_path,
    drop_path_residual,
    drop_path_stack,
    keyed,
    layer_plan,
)

CLAIMS = (
    "gradient recompute keyed stateless keep batch balanced axis scale_by_keep scale_at model "
    "unkeyed calls residual skip compile scan vmap shard plan stack"
)
DEVICES = 8  # the most that the checks ask for
DATA = "per_sample", "params"  # options that are data of a program
PROGRAMS = 64  # the most that are held

with suppress(RuntimeError):  # JAX has already counted its devices
    jax.config.update("jax_num_cpu_devices", DEVICES)

Function = Any  # of a call's data, giving y and dx; or that compiled


class Flax:
    """Calls droppath_flax.drop_path and drop_path_residual; `seed` makes the key."""

    def __init__(self, device: str | None = None, compiled: bool = False) -> None:
        self.devices = jax.devices(device)
        self.compiled = compiled
        self.programs: dict[str, Any] = {}  # by what is alike in the calls that each is for
        self.plan = jax.jit(layer_plan)
        self.traced = 0
        self.ran: list[int] = []

    def info(self) -> Info:
        """Return the claims of droppath_flax; collectives are counted where there are devices."""
        how = "jit" if self.compiled else "eager"
        name = f"droppath_flax {droppath.__version__}, jax {jax.__version__}, {how}"
        claims = {*CLAIMS.split(), *(["collectives"] if len(self.devices) >= DEVICES else [])}
        dtypes = ("float64", "float32", "float16", "bfloat16")
        name = f"{name}, {self.devices[0].platform}"
        return Info(name, frozenset(claims), dtypes, compiles=True)

    def run(self, call: Call) -> Outcome:
        """Return the outcome of one call."""
        if call.shards > len(self.devices):
            return joined([self.run(part) for part in parts(call)], call.options.get("axis", 0))
        traced, exchanges = self.traced, None
        self.ran.clear()
        with jax.enable_x64(True), jax.default_device(self.devices[0]):
            if call.op == "planned_depth":
                return Outcome(as_float64(droppath.planned_depth(**call.options)))
            if call.op == "layer_plan":
                return outcome_of_plan(self._plan(call, **call.options))
            if call.op == "model":
                return Outcome(self._model(call))
            f, x, arrays = self._function(call), *self._arrays(call)
            if self._is_compiled(call):
                f = self._compiled(call, f, x, *arrays)
            if call.shards > 1:
                exchanges = collectives(f.as_text()).total()
            y, dx = f(x, *arrays)
            if counts(call):
                jax.effects_barrier()
        outcome = outcome_from(y, dx, x, drew=False)
        ran = sum(self.ran) if counts(call) else None
        return replace(outcome, ran=ran, built=self.traced > traced, collectives=exchanges)

    def _is_compiled(self, call: Call) -> bool:
        """Return whether a call is one program; JAX makes one of a checkpoint and a scan anyway."""
        asked = call.compiled or self.compiled or call.recompute
        return asked or call.op in ("layers", "stack") or call.shards > 1

    def _arrays(self, call: Call) -> tuple[jax.Array, tuple[Any, ...]]:
        """Return x, and dy, what is for each sample or layer, key, keep and rates: what is data."""
        key, axis = call.key, call.options.get("axis", 0)
        if key is None and call.keep is None and call.seed is not None:
            key = droppath.key(call.seed)
        rates = jnp.asarray(call.drop_prob) if call.op == "layers" else None

        def spread(array: np.ndarray, axis: int) -> jax.Array:
            typed = array.astype(jnp.dtype(call.dtype))  # by NumPy, which compiles nothing
            if call.shards == 1:
                return jax.device_put(typed)
            mesh = Mesh(np.array(self.devices[: call.shards]), ("batch",))
            spec = PartitionSpec(*[None] * (axis % array.ndim), "batch")
            return jax.device_put(typed, NamedSharding(mesh, spec))

        dy = None if call.dy is None else spread(call.dy, axis)
        given = [call.options["params"]] if call.op == "stack" else ()
        per_sample = [spread(argument, 0) for argument in call.options.get("per_sample", given)]
        return spread(call.x, axis), (dy, per_sample, key, call.keep, rates)

    def _compiled(self, call: Call, f: Function, *arrays: Any) -> Any:
        """Return f compiled, or a program that is there if its call was alike in all but data."""
        options = {k: v for k, v in call.options.items() if k not in DATA}
        rate = None if call.op == "layers" else call.drop_prob
        plan = call.keep if call.op == "stack" else None
        how = call.training, call.recompute, call.shards, call.dy is None, plan
        shapes = jax.tree.map(np.shape, arrays) if call.shards > 1 else ()
        alike = repr((call.op, rate, *how, options, shapes, call.dtype))
        program = self.programs.pop(alike, None)
        if program is None:

            def noted(*arrays: Any) -> Any:
                self.traced += 1
                return f(*arrays)

            program = jax.jit(noted)
            program = program.lower(*arrays).compile() if call.shards > 1 else program
        self.programs[alike] = program  # the last of them
        if len(self.programs) > PROGRAMS:
            del self.programs[next(iter(self.programs))]
        return program

    def _function(self, call: Call) -> Function:
        """Return the function of a call's data that gives y and dx."""
        p = call.drop_prob
        options: dict[str, Any] = {k: v for k, v in call.options.items() if k not in DATA}
        options["deterministic"] = not call.training
        options = {"mode": "row", **options} if call.op == "residual" else options
        branch: Any = self._noted(call) if options.pop("branch", None) else None

        def apply(x: Any, per_sample: Any, key: Any, keep: Any) -> jax.Array:
            if call.op == "stack":  # a plan is part of its program, which runs as many layers
                layer, params = lambda w, x: branch(x, w), per_sample[0]
                return drop_path_stack(x, layer, params, p, key=key, plan=call.keep, **options)
            source = {"key": key, "keep": keep}
            if call.op == "residual":
                return drop_path_residual(x, branch, p, *per_sample, **source, **options)
            return drop_path(x, p, **source, **options)

        def f(x: Any, dy: Any, per_sample: Any, key: Any, keep: Any, rates: Any) -> Any:
            if call.op == "layers":
                return scanned(x, key, rates), None
            if call.op == "mapped":
                return jax.vmap(lambda x, key: apply(x, [], key, None))(x, jnp.asarray(key)), None

            def y(x: jax.Array) -> jax.Array:
                return apply(x, per_sample, key, keep)

            y = jax.checkpoint(y) if call.recompute else y
            if dy is None:
                return y(x), None
            value, vjp = jax.vjp(y, x)
            return value, vjp(dy)[0]

        return f

    def _noted(self, call: Call) -> Callable[..., jax.Array]:
        """Return the branch, which notes how many rows it ran on when it runs, not when traced."""
        branch, axis = call.options["branch"], call.options.get("axis", 0)
        if not counts(call):
            return branch

        def noted(x: jax.Array, *per_sample: jax.Array) -> jax.Array:
            note = partial(self.ran.append, 1 if call.op == "stack" else x.shape[axis])
            if isinstance(x, jax.core.Tracer):
                jax.debug.callback(note)
            else:
                note()
            return branch(x, *per_sample)

        return noted

    def _plan(self, call: Call, key: Any, rates: Any) -> Any:
        """Return the plan of a call; in a program that is asked for, rates are data."""
        if call.compiled:
            return self.plan(key, jnp.asarray(rates))
        if not self.compiled:
            return layer_plan(key, rates)
        draw = self.programs.setdefault(repr(rates), jax.jit(partial(layer_plan, rates=rates)))
        return draw(key)

    def _model(self, call: Call) -> np.ndarray:
        """Return the masks of layers of both modules, in turn, all from call.key: [L, B]."""
        model = nnx.Sequential(
            *(
                DropPathResidual(jnp.ones_like, p, mode="row") if i % 2 else DropPath(p)
                for i, p in enumerate(call.drop_prob)
            )
        )
        x = jnp.ones(call.x.shape)
        key = droppath.key(call.seed) if call.key is None and call.seed is not None else call.key
        with nullcontext() if key is None else keyed(model, key):
            ys = [
                [layer(x) - i % 2 for i, layer in enumerate(model.layers)]
                for _ in range(call.options.get("calls", 1))
            ]
        masks = (np.asarray(ys)[..., 0] != 0) * 1.0
        return masks if "calls" in call.options else masks[0]


def counts(call: Call) -> bool:
    """Return whether the rows that run are counted: by a callback, which JAX compiles each time."""
    asked = "skip" in call.options or call.op == "stack"
    return asked and call.dy is None and call.shards == 1


def scanned(x: jax.Array, key: jax.Array, rates: jax.Array) -> jax.Array:
    """Return y of each layer, [L, ...], by a scan over the layers' rates."""
    typed = jax.random.wrap_key_data(key, impl="threefry2x32")

    def layer(_: None, given: tuple[jax.Array, jax.Array]) -> tuple[None, jax.Array]:
        index, p = given
        return None, drop_path(x, p, key=jax.random.fold_in(typed, index))

    return lax.scan(layer, None, (jnp.arange(len(rates), dtype=jnp.uint32), rates))[1]


def backend(device: str | None = None, compiled: bool = False) -> Backend:
    """Return droppath_flax on the JAX devices of a platform."""
    return Flax(device, compiled)
