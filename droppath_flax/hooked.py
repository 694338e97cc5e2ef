"""Modules whose calls go through hooks.py: NNX has no hooks, so that a subclass stands in.

One for each class, of the same name, made once: equal modules stay equal, and programs that were
compiled for one serve the other. Nothing but the class of a module changes. Not here: what a call
does then (hooks.py).
"""

import copyreg
from collections.abc import Callable
from contextvars import ContextVar
from functools import cache, wraps
from typing import Any

from flax import nnx

from droppath_flax.hooks import Run, Skipped, run_module, skipped_of

Watch = Callable[[nnx.Module, Run, tuple[Any, ...], dict[str, Any]], Any]
WATCH: ContextVar[Watch | None] = ContextVar("WATCH", default=None)  # what a trial sees calls with


class Remade(type(nnx.Module)):  # type: ignore[misc]  # the metaclass has no public name
    """The class of these classes: a pickle names the class that one was made of."""


@cache
def hooked_class(of: type[nnx.Module]) -> type[nnx.Module]:
    """Return the subclass of a module's class whose calls go through hooks.py."""

    @wraps(of.__call__)
    def __call__(self: nnx.Module, *args: Any, **kwargs: Any) -> Any:  # noqa: N807
        def run(*args: Any, **kwargs: Any) -> Any:
            return run_module(self, own, args, kwargs)

        own, watch = super(made, self).__call__, WATCH.get()
        return run(*args, **kwargs) if watch is None else watch(self, run, args, kwargs)

    names = {"__module__": of.__module__, "__qualname__": of.__qualname__, "__doc__": of.__doc__}
    meta = Remade if type(of) is type(nnx.Module) else type(of)
    made = meta(
        of.__name__,
        (of,),
        {**names, "__call__": __call__, "hooked_of": of},
        pytree=of._pytree__is_pytree,
    )
    return made


copyreg.pickle(Remade, lambda made: (hooked_class, (vars(made)["hooked_of"],)))


def hook(module: nnx.Module) -> None:
    """Let the calls of a module go through hooks.py."""
    if not is_hooked(module):
        object.__setattr__(module, "__class__", hooked_class(type(module)))


def is_hooked(module: nnx.Module) -> bool:
    """Return whether the calls of a module go through hooks.py."""
    return "hooked_of" in vars(type(module))


def set_skipped(block: nnx.Module, skipped: Skipped) -> None:
    """Let the modules of a block do this before their calls; nothing undoes it."""
    if skipped_of(block):
        del block.skipped_branches
    if skipped:
        block.skipped_branches = skipped


def unhook(model: nnx.Module) -> None:
    """Take all of this off a model."""
    for _, module in nnx.iter_modules(model, graph=True):
        set_skipped(module, ())
        if is_hooked(module):
            object.__setattr__(module, "__class__", vars(type(module))["hooked_of"])
