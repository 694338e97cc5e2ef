"""What a block's modules do so that a branch in another's code runs on the rows that are kept.

A block opens a frame for a call of its own; where a branch begins, its DropPath draws and rows are
gathered; the DropPath puts what came of them among zeros; the block closes. A block holds names
alone, relative to itself, so that equal blocks stay equal and each copy of a model finds its own
modules. Not here: how a call gets here, and how it ends (hooked.py); where a branch begins
(branches.py).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from inspect import signature
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from droppath.arguments import check_axis
from droppath.places import Arguments, Place, argument_at, replaced
from droppath_flax.functional import is_zero
from droppath_flax.masks import Draw, Offset, check_rate
from droppath_flax.modules import DropPath
from droppath_flax.order import Path
from droppath_flax.residual import rows_of_branch
from droppath_flax.spread import Begun

SKIPPED = "skipped_branches"  # the attribute of a block that says what its modules do
Array: TypeAlias = jax.Array | np.ndarray
Run: TypeAlias = Callable[..., Any]  # a module's own forward


@dataclass(frozen=True)
class Begins:
    """Before the module where a branch begins: draw, and gather x and per-sample arguments.

    at: the place of x. per_sample: the places of what is gathered with it, along axis 0. given: the
    keywords that the block hands to the DropPath, of its own arguments of these names.
    """

    drop: Path
    at: Place
    per_sample: tuple[Place, ...]
    given: tuple[str, ...]

    def __call__(
        self, frame: "Frame", module: nnx.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Arguments:
        drop, x = module_at(frame.block, self.drop), argument_at(args, kwargs, self.at)
        if not isinstance(drop, DropPath) or not isinstance(x, jax.Array | np.ndarray):
            return args, kwargs
        frame.begun.pop(self.drop, None)
        named = {name: frame.arguments().get(name) for name in self.given}
        begun = begin(drop, x, named)
        if begun is None:
            return args, kwargs
        frame.begun[self.drop] = begun, named
        args, kwargs = _gathered(begun, args, kwargs, self.per_sample)
        axis = check_axis(drop.axis, x.shape, x.dtype.name)
        return replaced(args, kwargs, self.at, begun.take(x, axis))


@dataclass(frozen=True)
class Follows:
    """Before a later module of a branch: gather its per-sample arguments.

    known: the places of arguments that the example had. Raises ValueError for another one that has
    the batch as its first axis, of which nothing was proven.
    """

    drop: Path
    per_sample: tuple[Place, ...]
    known: tuple[Place, ...]

    def __call__(
        self, frame: "Frame", module: nnx.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Arguments:
        begun, _ = frame.begun.get(self.drop, (None, {}))
        if begun is None:
            return args, kwargs
        for place, value in (*enumerate(args), *kwargs.items()):
            if place not in self.known and _is_batch(value, begun):
                raise ValueError(
                    f"{place} of {type(module).__name__} must be in skip_dropped's example to be "
                    f"given by sample, got {value.shape}"
                )
        return _gathered(begun, args, kwargs, self.per_sample)


Role: TypeAlias = Begins | Follows
Skipped: TypeAlias = tuple[tuple[Path, Role], ...]  # what the modules of a block do before a call


@dataclass
class Frame:
    """A call of a block: what its modules do, by their ids, and the branches that have begun.

    block: the one whose code runs, which is a copy within a transform of Flax.
    """

    block: nnx.Module
    run: Run
    given: Arguments
    roles: dict[int, list[Role]] = field(default_factory=dict)
    drops: dict[int, Path] = field(default_factory=dict)
    begun: dict[Path, tuple[Begun, dict[str, Any]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.enter(self.block)

    def enter(self, block: nnx.Module) -> None:
        """Take the modules of this block from now on, and of none before: ids return."""
        self.block, self.roles, self.drops = block, {}, {}
        for path, role in skipped_of(block):
            self.roles.setdefault(id(module_at(block, path)), []).append(role)
            self.drops[id(module_at(block, role.drop))] = role.drop

    def arguments(self) -> dict[str, Any]:
        """Return the block's arguments by their names."""
        return named_arguments(self.run, *self.given)


def begin(drop: DropPath, x: Array, given: Mapping[str, Any]) -> Begun | None:
    """Draw for a branch of x, [..., B, ...]. Returns None, undrawn, where all rows run."""
    p, evaluate = check_rate(drop.drop_prob), given.get("deterministic")
    if (drop.deterministic if evaluate is None else evaluate) or is_zero(p):
        return None
    first: Offset = 0 if given.get("offset") is None else given["offset"]
    source, first = drop._source(given.get("key"), None, first, False, given.get("rngs"))
    draw = Draw(source, None, drop.mode, drop.groups, first)
    axis = check_axis(drop.axis, x.shape, x.dtype.name)
    rows = rows_of_branch(draw, p, jnp.asarray(x), axis)
    return None if rows is None else Begun(rows, x.shape[axis])


def skipped_of(module: nnx.Module) -> Skipped:
    """Return what the modules of a block do before a call; nothing if it is not skipped."""
    found: Skipped = vars(module).get(SKIPPED, ())
    return found


def module_at(block: Any, path: Path) -> Any:
    """Return the module of a block that a path leads to."""
    for part in path:
        in_container = isinstance(part, int) or isinstance(block, Mapping)
        block = block[part] if in_container else getattr(block, str(part))
    return block


def named_arguments(run: Run, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of a call by their names, with those that have defaults."""
    bound = signature(run).bind(*args, **kwargs)
    bound.apply_defaults()
    return {**bound.arguments, **kwargs}


def _gathered(
    begun: Begun, args: tuple[Any, ...], kwargs: dict[str, Any], places: tuple[Place, ...]
) -> Arguments:
    """Return the arguments with the rows of those, at these places, that have the batch."""
    for place in places:
        value = argument_at(args, kwargs, place)
        if type(value) in (tuple, list):  # the tables of rotary embeddings, say
            each = (begun.take(v, 0) if _is_batch(v, begun) else v for v in value)
            args, kwargs = replaced(args, kwargs, place, type(value)(each))
        elif _is_batch(value, begun):
            args, kwargs = replaced(args, kwargs, place, begun.take(value, 0))
    return args, kwargs


def _is_batch(value: Any, begun: Begun) -> bool:
    """Return whether it is an array of all samples; what came of the branch has the kept ones."""
    return (
        isinstance(value, jax.Array | np.ndarray)
        and value.ndim > 0
        and value.shape[0] == begun.batch
    )
