"""stack_layers: layers of one form as one, whose arrays have a leading axis for the layers.

It is what `drop_path_stack` and `lax.scan` take. Not here: running them (stacks.py).
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from droppath_flax.functional import as_array


def stack_layers(layers: Sequence[Any]) -> Any:
    """Return layers of one form as one, which holds an array [L, ...] for each of a layer's.

    Args:
      layers: L pytrees of arrays, such as the variables of Linen's modules; or L `nnx.Module`s.

    Returns: a pytree of arrays [L, ...]; of modules, a module as `nnx.vmap` makes it. The arrays
      are copies.
    Raises: ValueError without a layer, and for one that is not of the first one's form.

    >>> stack_layers([{"w": jnp.zeros(2)}, {"w": jnp.ones(2)}])["w"].tolist()
    [[0.0, 0.0], [1.0, 1.0]]
    """
    if not isinstance(layers, Sequence) or not layers:
        raise ValueError(f"layers must be a list of one or more, got {layers!r}")
    each = [nnx.split(m) if isinstance(m, nnx.Module) else (None, m) for m in layers]
    graphdef, arrays = each[0]
    for index, (its_graphdef, its_arrays) in enumerate(each):
        if different := unlike(arrays, its_arrays):
            raise ValueError(f"layers must be of one form, {different} at {index}")
        if its_graphdef != graphdef:
            raise ValueError(f"layers must have equal attributes, got others at {index} than at 0")
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *[arrays for _, arrays in each])
    return stacked if graphdef is None else nnx.merge(graphdef, stacked)


def unlike(arrays: Any, others: Any) -> str:
    """Return where the second of two pytrees has another form: what was wanted, and what it has."""
    ours, theirs = _leaves(arrays), _leaves(others)
    for path in [*ours, *theirs]:
        if ours.get(path) != theirs.get(path):
            return f"{path} {ours.get(path)}, got {theirs.get(path)}".lstrip()
    tree, other = str(jax.tree.structure(arrays)), str(jax.tree.structure(others))
    return "" if tree == other else f"{tree}, got {other}"


def _leaves(arrays: Any) -> dict[str, str]:
    """Return the dtype and shape of each array by its path."""
    found = {}
    for path, leaf in jax.tree.leaves_with_path(arrays):
        array = as_array(leaf, "each must be")
        found[jax.tree_util.keystr(path)] = f"{array.dtype.name}{[*array.shape]}"
    return found
