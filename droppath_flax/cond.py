"""lax.cond, for a side that is dear to run: its gradient keeps no more than an ordinary one would.

`lax.cond` hands over all that the gradient of either side may want: copies of the operands, weights
too, and each value on the way. XLA forms most of them anew where it sees the whole program, which
it does not across two conditions: 2.8 times the memory. Here operands stay where they are, and of
what is computed the products and kernels are kept; the rest is formed anew. Not here: modules.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import ClosedJaxpr, jaxpr_as_fun

Function = Callable[..., Any]
Arrays: TypeAlias = list[jax.Array]

DEAR = (  # primitives that a backward should not run again
    "dot_general",
    "ragged_dot_general",
    "conv_general_dilated",
    "dot_product_attention_fwd",  # cuDNN's
    "dot_product_attention_fwd_wrapper",
    "pallas_call",
    "ffi_call",
)


def is_dear(primitive: Any, *_: Any, **__: Any) -> bool:
    """Return whether a primitive's result is kept: a policy of jax.checkpoint."""
    return primitive.name in DEAR


def cond(runs: jax.Array, run: Function, stay: Function, *operands: Any) -> Any:
    """Return run(*operands) if `runs`, bool [], else stay(*operands), which costs next to nothing.

    Pytrees of arrays go in and out; `run` may close over others. Differentiated in reverse only,
    where `runs` is traced; an eager call reads it, for JAX compiles a condition anew at each call.
    """
    if not isinstance(runs, jax.core.Tracer):
        return run(*operands) if runs else stay(*operands)
    flat, tree = jax.tree.flatten(operands)
    program, result = jax.make_jaxpr(run, return_shape=True)(*operands)  # traced once
    given = [*map(jnp.asarray, program.consts), *flat]
    floating = [jnp.issubdtype(array.dtype, jnp.inexact) for array in given]

    def run_given(floats: Arrays, others: Arrays) -> Any:
        both = merged(floats, others)
        consts, flat = both[: len(program.consts)], both[len(program.consts) :]
        y = jaxpr_as_fun(ClosedJaxpr(program.jaxpr, consts))(*flat)
        return jax.tree.unflatten(jax.tree.structure(result), y)

    def stay_given(floats: Arrays, others: Arrays) -> Any:
        return stay(*jax.tree.unflatten(tree, merged(floats, others)[len(program.consts) :]))

    def merged(floats: Arrays, others: Arrays) -> Arrays:
        parts = {True: iter(floats), False: iter(others)}
        return [next(parts[is_float]) for is_float in floating]

    pairs = list(zip(given, floating, strict=True))
    floats = [array for array, is_float in pairs if is_float]
    others = [array for array, is_float in pairs if not is_float]
    return _cond(run_given, stay_given, runs, floats, others)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _cond(run: Function, stay: Function, runs: jax.Array, *given: Arrays) -> Any:
    return lax.cond(runs, run, stay, *given)


def _cond_fwd(run: Function, stay: Function, runs: jax.Array, *given: Arrays) -> Any:
    def run_side(*given: Arrays) -> tuple[Any, Arrays]:
        y, kept, _ = _differentiated(run, *given)
        return y, kept

    def stay_side(*given: Arrays) -> tuple[Any, Arrays]:
        return stay(*given), jax.tree.map(jnp.zeros_like, like)

    _, like = jax.eval_shape(run_side, *given)
    y, kept = lax.cond(runs, run_side, stay_side, *given)
    return y, (runs, given, kept)


def _cond_bwd(run: Function, stay: Function, saved: Any, dy: Any) -> tuple[None, Arrays, None]:
    def run_side(floats: Arrays, others: Arrays, kept: Arrays, dy: Any) -> Arrays:
        *_, pull = _differentiated(run, floats, others)  # XLA drops what is not used of it
        return pull(kept, dy)

    def stay_side(floats: Arrays, others: Arrays, kept: Arrays, dy: Any) -> Arrays:
        return jax.vjp(lambda floats: stay(floats, others), floats)[1](dy)[0]

    runs, given, kept = saved
    return None, lax.cond(runs, run_side, stay_side, *given, kept, dy), None


_cond.defvjp(_cond_fwd, _cond_bwd)


def _differentiated(run: Function, floats: Arrays, others: Arrays) -> tuple[Any, Arrays, Function]:
    """Return run's value, what of it the gradient keeps, and the gradient of (kept, dy)."""
    lean = jax.checkpoint(run, policy=is_dear, prevent_cse=False)  # a cond between: no common part
    y, pull = jax.vjp(lambda floats: lean(floats, others), floats)
    leaves, tree = jax.tree.flatten(pull)
    operands = {id(array) for array in floats}

    def pull_with(kept: Arrays, dy: Any) -> Arrays:
        new = iter(kept)
        filled = [leaf if id(leaf) in operands else next(new) for leaf in leaves]
        return jax.tree.unflatten(tree, filled)(dy)[0]

    return y, [leaf for leaf in leaves if id(leaf) not in operands], pull_with
