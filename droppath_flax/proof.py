"""Whether a branch may run on the kept rows alone: the block's results are compared with masking's.

Compared are what the DropPaths and the block return, all gradients, and what the block keeps of a
call, for other parameters and noisy inputs, so that nothing is hidden by a zero or by samples that
are alike. Equal blocks share their programs. Not here: where a branch begins (branches.py).
"""

from functools import cache, partial
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from droppath_flax.branches import INDEX, Call, Start, is_drop, rows_of
from droppath_flax.hooked import WATCH, set_skipped
from droppath_flax.hooks import Run, skipped_of
from droppath_flax.modules import DropPath
from droppath_flax.order import GRAPH, modules_of
from droppath_flax.trial import other_parameters

NOISE = 0.5  # of the standard deviation: samples differ, and attention is not saturated

Results: TypeAlias = dict[str, list[jax.Array]]


class Outcome(NamedTuple):
    """What a run of a block gives, by what is compared on one scale."""

    results: Results
    rows: list[int] | tuple[()] = ()  # that each call of a DropPath was given


def inputs_of(call: Call) -> list[Any]:
    """Return what a block is run with: other parameters, noise over its arguments, and the rest."""
    _, params, given, rest = _split(call)
    leaves, tree = jax.tree.flatten(given)
    noisy = jax.tree.unflatten(tree, [_noisy(x, i) for i, x in enumerate(leaves)])
    return [other_parameters(params), noisy, rest]


def run(call: Call, inputs: list[Any]) -> Outcome:
    """Run a block forward and backward, on what `inputs_of` returns."""
    object.__setattr__(call.module, INDEX, -1)  # else what a transform has traced before is taken
    try:
        parts, rows = _program()(_split(call)[0], *inputs)
    finally:
        vars(call.module).pop(INDEX)
    results = {name: ys for part in parts for name, ys in part.items()}
    return Outcome(results, [int(n) for n in rows])


class Masked(NamedTuple):
    """The calls of a block, what they are run with, and what masking gives."""

    calls: list[Call]
    inputs: list[list[Any]]
    wants: list[Outcome]


def masked(calls: list[Call]) -> Masked:
    """Run a block for all of its calls, as it is."""
    inputs = [inputs_of(call) for call in calls]
    return Masked(calls, inputs, [run(*each) for each in zip(calls, inputs, strict=True)])


def _split(call: Call) -> list[Any]:
    """Return a block and its arguments as a graph, parameters, floating arguments, and the rest."""
    trained = nnx.All(nnx.Param, _is_floating)
    return [*nnx.split((call.module, *call.given), trained, _is_argument, ..., **GRAPH)]


@cache
def _program() -> Any:
    """Return `_results`, to be compiled quickly: a program of it runs once or twice."""
    options = {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else None
    return jax.jit(_results, static_argnums=0, compiler_options=options)


def _results(graphdef: Any, params: Any, given: Any, rest: Any) -> tuple[Any, list[int]]:
    rows = list[int]()

    def forward(params: Any, given: Any) -> tuple[list[jax.Array], Any]:
        states = jax.tree.map(lambda leaf: leaf, (params, given, rest))  # variables of this trace
        block, args, kwargs = nnx.merge(graphdef, *states)
        seen = list[jax.Array]()
        known = {id(module) for module in modules_of(block).values()}
        token = WATCH.set(partial(_see, known, seen, rows))
        try:
            y = block(*args, **kwargs)
        finally:
            WATCH.reset(token)
        kept = nnx.state(block, nnx.Not(nnx.Any(nnx.Param, nnx.RngState)))
        return _floating(y), (seen, _floating(kept))

    ys, pull, (seen, kept) = jax.vjp(forward, params, given, has_aux=True)
    # weights of either sign: the sum of a norm's output is constant
    keys = [jax.random.fold_in(jax.random.key(1), i) for i in range(len(ys))]
    dys = [jax.random.normal(k, y.shape, y.dtype) for k, y in zip(keys, ys, strict=True)]
    dparams, dgiven = pull(dys)
    grads = {f"gradient of argument {i}": [dx] for i, dx in enumerate(jax.tree.leaves(dgiven))}
    grads |= {"gradient of a parameter": jax.tree.leaves(dparams)}
    of_drops = _numbered("result {} of drop_path", seen)
    return (_numbered("output {}", ys), of_drops, grads, _numbered("state {}", kept)), rows


def _numbered(name: str, ys: list[jax.Array]) -> Results:
    return {name.format(i): [y] for i, y in enumerate(ys)}


def _see(
    known: set[int],
    seen: list[jax.Array],
    rows: list[int],
    module: nnx.Module,
    run: Run,
    args: tuple[Any, ...],
    kwargs: Any,
) -> Any:
    y = run(*args, **kwargs)
    if is_drop(module):
        rows.append(rows_of(Call(module, (args, kwargs))))
        if id(module) in known:  # what a copy gives, in a transform, is out of reach
            seen.append(y)
    return y


def _is_floating(path: Any, value: Any) -> bool:
    leaves = jax.tree.leaves(value)
    return bool(leaves) and len(_floating(leaves)) == len(leaves)


def _is_argument(path: Any, value: Any) -> bool:
    raw = isinstance(value, jax.Array)
    return raw and path[0] != 0 and _is_floating(path, value)  # 0 is the block


def _floating(tree: Any) -> list[jax.Array]:
    leaves = [leaf for leaf in jax.tree.leaves(tree) if isinstance(leaf, jax.Array)]
    return [leaf for leaf in leaves if jnp.issubdtype(leaf.dtype, jnp.floating)]


def _noisy(x: jax.Array, index: int) -> jax.Array:
    """Return an array with noise, but a mask as it is."""
    values = np.asarray(x).astype(np.float64)
    if not values.size or not abs(values).max() < 1e4:  # a mask of -inf
        return x
    random = np.random.default_rng(index)
    noise = random.standard_normal(x.shape)
    for axis in (1, -1) if x.ndim > 1 else ():
        # a pattern of each sample, along the first and the last axis
        shape = [n if i in (0, axis % x.ndim) else 1 for i, n in enumerate(x.shape)]
        noise = noise + random.standard_normal(shape)
    return jnp.asarray(values + NOISE * (values.std() or 1.0) * noise, x.dtype)


def difference(got: Outcome, want: Outcome, eps: float) -> str:
    """Return where two runs differ, nothing if they agree. By how much is not told.

    Allowed is sqrt(eps) of the largest number: sums of another shape round otherwise (3.5e-4 in
    float32, 1.5e-8 in float64, 0.09 in bfloat16). One sample in a mean over all moves it by more.
    """
    if got.results.keys() != want.results.keys():
        return "the block returns other outputs"
    for name, ys in want.results.items():
        shapes = [y.shape for y in got.results[name]], [y.shape for y in ys]
        if shapes[0] != shapes[1]:
            return f"{name} has the shape {shapes[0][0]}, masking's {shapes[1][0]}"
        pairs = zip(got.results[name], ys, strict=True)
        both = [(_double(a), _double(b)) for a, b in pairs if b.size]
        largest = max((abs(b).max() for _, b in both), default=0.0)
        if name.startswith("result") and not largest > 0:
            return f"{name} is zero, which shows nothing"
        furthest = max((abs(a - b).max() for a, b in both), default=0.0)
        if not furthest <= eps**0.5 * largest:  # NaN fails it
            return f"{name} differs from masking's"
    return ""


def _double(x: jax.Array) -> Any:
    return np.asarray(x).astype(np.float64)


def precision(outcome: Outcome) -> float:
    """Return the eps of the coarsest dtype that a run computes in."""
    return max(float(jnp.finfo(y.dtype).eps) for ys in outcome.results.values() for y in ys)


def why_not(start: Start, masked: Masked) -> str:
    """Return why a branch that begins there may not be skipped; nothing if it may.

    The block skips it if it may.
    """
    block = masked.calls[0].module
    before = skipped_of(block)
    set_skipped(block, before + start.skipped)
    for call, given, want in zip(*masked, strict=True):
        try:
            got = run(call, given)
            why = difference(got, want, precision(want)) or _why_all_rows(start, got, want)
        except Exception as error:  # whatever the block's code raises for fewer rows
            why = first_line(error)
        if why:
            set_skipped(block, before)
            return _named(masked.calls[0], start) + why
    return ""


def _why_all_rows(start: Start, got: Outcome, want: Outcome) -> str:
    at = start.drop_call
    is_seen = at < len(got.rows) and at < len(want.rows)
    return "" if is_seen and got.rows[at] < want.rows[at] else "its rows are not left out"


def first_line(error: Exception) -> str:
    """Return an error's kind and the first line of its text."""
    return f"{type(error).__name__}: {error}".split("\n")[0]


def _named(call: Call, start: Start) -> str:
    """Return what in the branch is known to mix samples, for the text of a refusal."""
    modules = [c.module for c in call.calls]
    at = next(i for i, module in enumerate(modules) if module is start.begin)
    later = [module for module in modules[at:] if not is_drop(module)]
    for module in (m for one in later for m in modules_of(one).values()):
        if isinstance(module, DropPath):
            return "the branch holds another DropPath: "
        if isinstance(module, nnx.BatchNorm) and not module.use_running_average:
            return "BatchNorm mixes the samples: "
    return ""


def model_output(model: nnx.Module, args: Any, kwargs: Any) -> Outcome:
    """Return what the whole model returns; a copy of it runs."""
    model, args, kwargs = nnx.clone((model, args, kwargs), **GRAPH)
    ys = _floating(model(*args, **kwargs))
    return Outcome(_numbered("output {} of the model", ys))
