"""Whether a branch may run on the kept rows alone: the block's results are compared with masking's.

Compared are what the DropPaths and the block return, all gradients, and what the block keeps of a
call, for other parameters and noisy inputs, so that nothing is hidden by a zero or by samples that
are alike. Equal blocks share their programs. Not here: where a branch begins (branches.py).
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from droppath_flax.branches import Call, Start, is_drop, rows_of
from droppath_flax.hooked import WATCH, set_skipped
from droppath_flax.hooks import Arguments, Run, modules_of, skipped_of
from droppath_flax.modules import DropPath
from droppath_flax.trial import other_parameters

NOISE = 0.5  # of the standard deviation: samples differ, and attention is not saturated


class Outcome(NamedTuple):
    """What a run of a block gives, by what is compared on one scale."""

    results: dict[str, list[jax.Array]]
    rows: Any = ()  # that each call of a DropPath was given, int [calls]


def run(call: Call) -> Outcome:
    """Run a block forward and backward, on noise over what it was given."""
    args, kwargs = _noisy(call.given)
    whole = call.module, args, kwargs
    trained = nnx.All(nnx.Param, _is_floating)
    graphdef, params, given, rest = nnx.split(whole, trained, _is_argument, ..., graph=True)
    results, rows = _results(graphdef, other_parameters(params), given, rest)
    return Outcome(results, np.asarray(rows))


@partial(jax.jit, static_argnums=0)
def _results(graphdef: Any, params: Any, given: Any, rest: Any) -> tuple[Any, jax.Array]:
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
    results = {f"output {i}": [y] for i, y in enumerate(ys)}
    results |= {f"result {i} of drop_path": [y] for i, y in enumerate(seen)}
    results |= {f"gradient of argument {i}": [dx] for i, dx in enumerate(jax.tree.leaves(dgiven))}
    results |= {f"state {i}": [value] for i, value in enumerate(kept)}
    results |= {"gradient of a parameter": jax.tree.leaves(dparams)}
    return results, jnp.array(rows)


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
    return bool(leaves) and all(jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in leaves)


def _is_argument(path: Any, value: Any) -> bool:
    raw = isinstance(value, jax.Array)
    return raw and path[0] != 0 and _is_floating(path, value)  # 0 is the block


def _floating(tree: Any) -> list[jax.Array]:
    leaves = [leaf for leaf in jax.tree.leaves(tree) if isinstance(leaf, jax.Array)]
    return [leaf for leaf in leaves if jnp.issubdtype(leaf.dtype, jnp.floating)]


def _noisy(given: Arguments) -> Arguments:
    """Return arguments with noise on each floating array that holds no mask."""
    leaves, tree = jax.tree.flatten(given, is_leaf=lambda v: isinstance(v, nnx.Pytree))
    for i, x in enumerate(leaves):
        if isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jnp.floating) and x.size:
            leaves[i] = _with_noise(x, jax.random.fold_in(jax.random.key(0), i))
    noisy: Arguments = jax.tree.unflatten(tree, leaves)
    return noisy


def _with_noise(x: jax.Array, key: jax.Array) -> jax.Array:
    if not bool(jnp.abs(x).max() < 1e4):  # a mask of -inf
        return x
    std = float(x.astype(jnp.float32).std()) or 1.0
    keys = jax.random.split(key, 3)
    noise = jax.random.normal(keys[0], x.shape, x.dtype)
    if x.ndim > 1:  # a pattern of each sample, along the first and the last axis
        for axis, key in zip((1, -1), keys[1:], strict=True):
            shape = [n if i in (0, axis % x.ndim) else 1 for i, n in enumerate(x.shape)]
            noise = noise + jax.random.normal(key, shape, x.dtype)
    return x + NOISE * std * noise


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


def why_not(start: Start, calls: list[Call], wants: list[Outcome]) -> str:
    """Return why a branch that begins there may not be skipped; nothing if it may.

    The block skips it if it may.
    """
    block = calls[0].module
    before = skipped_of(block)
    set_skipped(block, before + start.skipped)
    for call, want in zip(calls, wants, strict=True):
        try:
            got = run(call)
            why = difference(got, want, precision(want))
            if not why and not got.rows[start.drop_call] < want.rows[start.drop_call]:
                why = "its rows are not left out"
        except Exception as error:  # whatever the block's code raises for fewer rows
            why = first_line(error)
        if why:
            set_skipped(block, before)
            return _named(calls[0], start) + why
    return ""


def first_line(error: Exception) -> str:
    """Return an error's kind and the first line of its text."""
    return f"{type(error).__name__}: {error}".split("\n")[0]


def _named(call: Call, start: Start) -> str:
    """Return what in the branch is known to mix samples, for the text of a refusal."""
    modules = [c.module for c in call.calls]
    at = next(i for i, module in enumerate(modules) if module is start.begin)
    later = [module for module in modules[at:] if not is_drop(module)]
    for module in (m for one in later for _, m in nnx.iter_modules(one, graph=True)):
        if isinstance(module, DropPath):
            return "the branch holds another DropPath: "
        if isinstance(module, nnx.BatchNorm) and not module.use_running_average:
            return "BatchNorm mixes the samples: "
    return ""


def model_output(model: nnx.Module, args: Any, kwargs: Any) -> Outcome:
    """Return what the whole model returns; a copy of it runs."""
    model, args, kwargs = nnx.clone((model, args, kwargs), graph=True)
    ys = _floating(model(*args, **kwargs))
    return Outcome({f"output {i} of the model": [y] for i, y in enumerate(ys)})
