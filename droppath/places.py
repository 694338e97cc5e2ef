"""The arguments of a call by their places, for hooks that look at them and replace them.

Not here: which of them are replaced, and by what.
"""

from collections.abc import Mapping
from typing import Any, TypeAlias

Place: TypeAlias = int | str  # of an argument: an index, or the keyword
Arguments: TypeAlias = tuple[tuple[Any, ...], dict[str, Any]]


def by_place(given: Arguments) -> dict[Place, Any]:
    """Return the arguments by their places.

    >>> by_place((("x",), {"mask": "m"}))
    {0: 'x', 'mask': 'm'}
    """
    args, kwargs = given
    return dict([*enumerate(args), *kwargs.items()])


def argument_at(args: tuple[Any, ...], kwargs: Mapping[str, Any], at: Place) -> Any:
    """Return the argument at a place, None if the call has none there."""
    if isinstance(at, str):
        return kwargs.get(at)
    return args[at] if at < len(args) else None


def replaced(args: tuple[Any, ...], kwargs: dict[str, Any], at: Place, value: Any) -> Arguments:
    """Return the arguments with another value at a place."""
    if isinstance(at, str):
        return args, {**kwargs, at: value}
    return (*args[:at], value, *args[at + 1 :]), kwargs
