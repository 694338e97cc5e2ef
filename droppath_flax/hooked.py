"""Modules whose calls do what hooks.py says: NNX has no hooks, so that a subclass stands in.

One for each class, of the same name, made once: equal modules stay equal, and programs that were
compiled for one serve the other. What a call has begun is held by its frame, in the thread that
calls, and by no module. Not here: which modules take part (branches.py).
"""

import copyreg
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from functools import cache, wraps
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from droppath.arguments import check_axis
from droppath.scaling import scales
from droppath_flax.functional import scale
from droppath_flax.hooks import SKIPPED, Frame, Run, Skipped, skipped_of
from droppath_flax.masks import check_rate
from droppath_flax.modules import DropPath
from droppath_flax.order import modules_of
from droppath_flax.spread import Begun

Watch = Callable[[nnx.Module, Run, tuple[Any, ...], dict[str, Any]], Any]
WATCH: ContextVar[Watch | None] = ContextVar("WATCH", default=None)  # what a trial sees calls with
FRAME: ContextVar[Frame | None] = ContextVar("FRAME", default=None)


def run_module(module: nnx.Module, run: Run, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run a module's forward as the frame of the block's call that it is in asks for."""
    frame = FRAME.get()
    if frame is not None:
        for role in frame.roles.get(id(module), ()):
            args, kwargs = role(frame, module, args, kwargs)
        begun = frame.begun.pop(frame.drops.get(id(module), ()), None)
        if begun is not None and isinstance(module, DropPath):
            return _end(module, *begun, args, kwargs)
    if not skipped_of(module):
        return run(*args, **kwargs)
    frame = Frame(module, run, (args, kwargs))
    token = FRAME.set(frame)
    try:
        y = run(*args, **kwargs)
    finally:
        FRAME.reset(token)
    if frame.begun:
        raise RuntimeError(
            f"{type(module).__name__} must take the way of skip_dropped's example: a branch "
            "began and did not come to its DropPath"
        )
    return y


def _enter_copy(block: nnx.Module) -> None:
    """Let a block's frame be that of its copy, if the call goes on in one, in a transform."""
    frame = FRAME.get()
    if frame is None or frame.block is block or type(frame.block) is not type(block):
        return
    if skipped_of(block) and _is_of_this_trace(block) and not _is_of_this_trace(frame.block):
        frame.enter(block)


def _is_of_this_trace(module: nnx.Module) -> bool:
    return module._pytree__state.trace_state.is_valid()


def _end(
    drop: DropPath,
    begun: Begun,
    named: Mapping[str, Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> jax.Array:
    """Return what a DropPath whose branch has begun makes of the rows that ran."""
    for name in {*kwargs, *named} - {"x"}:
        if kwargs.get(name) is not named.get(name):
            raise RuntimeError(
                f"{name} of DropPath must be what it was in skip_dropped's example: an argument of "
                "its block by the same name, or nothing"
            )
    f = jnp.asarray(args[0] if args else kwargs["x"])
    axis = check_axis(drop.axis, f.shape, f.dtype.name)
    scaled = scales(True, drop.scale_by_keep, drop.scale_at)  # SCALE-2, SCALE-3
    s = scale(check_rate(drop.drop_prob), f) if scaled else 1.0
    return begun.spread(f, float(s), axis)


class Remade(type(nnx.Module)):  # type: ignore[misc]  # the metaclass has no public name
    """The class of these classes: a pickle names the class that one was made of."""


@cache
def hooked_class(of: type[nnx.Module]) -> type[nnx.Module]:
    """Return the subclass of a module's class whose calls go through `run_module`."""

    @wraps(of.__call__)
    def __call__(self: nnx.Module, *args: Any, **kwargs: Any) -> Any:  # noqa: N807
        def run(*args: Any, **kwargs: Any) -> Any:
            return run_module(self, own, args, kwargs)

        own, watch = super(made, self).__call__, WATCH.get()
        return run(*args, **kwargs) if watch is None else watch(self, run, args, kwargs)

    def __getattribute__(self: nnx.Module, name: str) -> Any:  # noqa: N807
        value = super(made, self).__getattribute__(name)
        if isinstance(value, nnx.Module):
            _enter_copy(self)
        return value

    names = {"__module__": of.__module__, "__qualname__": of.__qualname__, "__doc__": of.__doc__}
    meta: Any = Remade if type(of) is type(nnx.Module) else type(of)
    made: type[nnx.Module] = meta(
        of.__name__,
        (of,),
        {**names, "__call__": __call__, "__getattribute__": __getattribute__, "hooked_of": of},
        pytree=of._pytree__is_pytree,
    )
    return made


def _reduce(made: Any) -> Any:
    return hooked_class, (vars(made)["hooked_of"],)


copyreg.pickle(Remade, _reduce)


def hook(module: nnx.Module) -> None:
    """Let the calls of a module go through `run_module`."""
    if not is_hooked(module):
        object.__setattr__(module, "__class__", hooked_class(type(module)))


def is_hooked(module: nnx.Module) -> bool:
    """Return whether the calls of a module go through `run_module`."""
    return "hooked_of" in vars(type(module))


def set_skipped(block: nnx.Module, skipped: Skipped) -> None:
    """Let the modules of a block do this before their calls, and nothing else; () undoes it."""
    if skipped_of(block):
        delattr(block, SKIPPED)
    if skipped:
        setattr(block, SKIPPED, skipped)


def unhook(model: nnx.Module) -> None:
    """Take all of this off a model."""
    for module in modules_of(model).values():
        set_skipped(module, ())
        if is_hooked(module):
            object.__setattr__(module, "__class__", vars(type(module))["hooked_of"])
