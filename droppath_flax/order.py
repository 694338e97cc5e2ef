"""The order in which modules are defined, which Flax does not keep: it sorts attributes by name.

A module is numbered as it is made. The number is a static attribute, so that it goes along through
`nnx.split` and `nnx.merge`, and is equal to every other, so that models that are built alike still
are alike to `jax.jit` and `jax.tree.map`. Not here: which modules a model has (layers.py).
"""

import itertools
from typing import Any
from weakref import WeakKeyDictionary

MADE = itertools.count()


class Number:
    """The place of a module among all that were made."""

    def __init__(self) -> None:
        self.value = next(MADE)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Number)

    def __hash__(self) -> int:
        return hash(Number)


class OwnNumber:
    """The attribute `_number` of a module, which stays as it was first set.

    After `nnx.jit` Flax sets all attributes anew, from what it compiled, perhaps for another module
    that is alike.
    """

    def __init__(self) -> None:
        self.own: WeakKeyDictionary[Any, Number] = WeakKeyDictionary()

    def __get__(self, module: Any, owner: object = None) -> Any:
        if module is None:
            return self
        number: Number = vars(module)["_number"]  # set here by pickle and copy
        return self.own.setdefault(module, number)

    def __set__(self, module: Any, number: Number) -> None:
        vars(module)["_number"] = self.own.setdefault(module, number)
