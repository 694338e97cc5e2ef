"""A branch that is run or not, as a value of the program says (cond.py), be it a module or not.

What a branch that is a module holds stays as it is where the branch is not run. A program that
closes over an NNX module may read it; it may write it only where Flax lets it, so that only what
the branch has changed is written. Not here: what is drawn, and what is added.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
from flax import linen, nnx
from jax.custom_batching import custom_vmap

from droppath.arguments import check_skip
from droppath_flax.cond import cond, is_dear

Add = Callable[..., jax.Array]  # of a branch, x and the branch's further arguments


def add_if(runs: jax.Array, add: Add, branch: Any, x: jax.Array, *per_sample: Any) -> jax.Array:
    """Return add(branch, x, *per_sample) if `runs`, bool [], else x.

    Raises: ValueError where the branch is an `nnx.Module` and changes its parameters, or what it
      consists of; Flax's TraceContextError where it changes other variables in a transform that
      does not know of them, as `jax.jit` does not. The module is as it was then.
    """

    def stay(branch: Any, x: jax.Array, *per_sample: Any) -> jax.Array:
        return x

    if isinstance(branch, nnx.Module):
        return _add_if_nnx(runs, add, branch, x, *per_sample)
    if isinstance(branch, linen.Module) and isinstance(runs, jax.core.Tracer):
        lean = linen.checkpoint(add, policy=is_dear, prevent_cse=False)
        return linen.cond(runs, lean, stay, branch, x, *per_sample)
    return cond(runs, partial(add, branch), partial(stay, branch), x, *per_sample)


def _add_if_nnx(
    runs: jax.Array, add: Add, branch: nnx.Module, x: jax.Array, *per_sample: Any
) -> jax.Array:
    graphdef, *states = nnx.split(branch, nnx.Param, ...)
    leaves, tree = jax.tree.flatten(states)
    first = len(jax.tree.leaves(states[0]))  # the index of the first leaf that is not a parameter
    changed: list[bool] = []  # for each leaf, known once `run` is traced

    def run(leaves: list[Any], x: jax.Array, *per_sample: Any) -> tuple[jax.Array, list[Any]]:
        copy = nnx.merge(graphdef, *jax.tree.unflatten(tree, leaves))
        y = add(copy, x, *per_sample)
        after_graphdef, *after_states = nnx.split(copy, nnx.Param, ...)
        alike = after_graphdef == graphdef
        _check_stays(alike, "hold the same variables and attributes after a call")
        after = jax.tree.leaves(after_states)
        changed[:] = [new is not old for new, old in zip(after, leaves, strict=True)]
        _check_stays(not any(changed[:first]), "not change its parameters")
        return y, after[first:]

    def stay(leaves: list[Any], x: jax.Array, *per_sample: Any) -> tuple[jax.Array, list[Any]]:
        return x, leaves[first:]

    y, after = cond(runs, run, stay, leaves, x, *per_sample)
    _write(branch, states[1], after, changed[first:])
    return y


def _check_stays(holds: bool, what: str) -> None:
    if not holds:
        raise ValueError(f"branch must {what} in mode='batch', which may skip it: use skip=False")


def _write(branch: nnx.Module, state: Any, leaves: list[Any], changed: list[bool]) -> None:
    """Give the branch's variables of this state their new leaves, but only those that changed."""
    if not any(changed):
        return
    tree = jax.tree.structure(state)
    values, marks = (
        nnx.to_flat_state(jax.tree.unflatten(tree, given)) for given in (leaves, changed)
    )
    pairs = zip(values, marks, strict=True)
    new = [value for value, (_, mark) in pairs if any(jax.tree.leaves(mark))]
    nnx.update(branch, nnx.from_flat_state(new))


@custom_vmap
def unmapped(runs: jax.Array) -> jax.Array:
    """Return runs, one for all; refuse one for each element of a vmap."""
    return runs


@unmapped.def_vmap
def _(size: int, batched: Any, runs: jax.Array) -> Any:
    check_skip(True, "under a vmap of the draw both sides of a condition run")
