"""Argument checks and their error texts, shared by the reference and by every backend.

Each check returns the value in the form that the caller computes with, or raises ValueError: what
must hold, then what was given. Arrays are described by shape and dtype text, so that no framework
is needed here. Nothing is drawn or changed before these checks have passed (clauses ARG-1 to
ARG-5).
"""

import math
import operator
from collections.abc import Callable, Iterable, Sequence
from numbers import Real
from typing import Any, Literal, SupportsIndex, TypeVar, cast

import numpy as np

Mode = Literal["row", "balanced", "batch"]
ScaleAt = Literal["train", "eval"]
F = TypeVar("F", bound=Callable[..., Any])

FLOATS = "float64", "float32", "float16", "bfloat16"  # the types of SPEC.md
FLOAT_TEXT = f"{', '.join(FLOATS[:-1])} or {FLOATS[-1]}"
KEY_TEXT = "uint32 of shape (2,), such as droppath.key(7)"
WORD = 1 << 32  # a key word is uint32
COUNTERS = 1 << 64  # a Threefry-2x32 counter is two words
ROWS = 1 << 31  # the backends index rows by int32


def check_drop_prob(drop_prob: object, name: str = "drop_prob") -> float:
    """Return drop_prob as a float. `not 0 <= p <= 1` also refuses NaN.

    >>> check_drop_prob(0.1)
    0.1
    >>> check_drop_prob(float("nan"))
    Traceback (most recent call last):
    ValueError: drop_prob must be a number in [0, 1], got nan
    """
    if type(drop_prob) is float and 0 <= drop_prob <= 1:  # at once: every forward comes by
        return drop_prob
    value = drop_prob[()] if isinstance(drop_prob, np.ndarray) and not drop_prob.ndim else drop_prob
    real = isinstance(value, Real) and not isinstance(value, bool)
    if not (real and 0 <= cast(float, value) <= 1):
        raise ValueError(f"{name} must be a number in [0, 1], got {_shown(value)}")
    return float(cast(float, value))


def check_mode(mode: object) -> None:
    """Raise unless mode is one of the three of SPEC.md."""
    check_choice("mode", mode, ("row", "balanced", "batch"))


def check_scale_at(scale_at: object) -> None:
    """Raise unless scale_at is "train" or "eval"."""
    check_choice("scale_at", scale_at, ("train", "eval"))


def check_flags(**flags: object) -> None:
    """Raise unless each flag is a bool: the text "False" is not, and would count as true."""
    for name, value in flags.items():
        # a tuple, since Dynamo traces no union of types in PyTorch 2.9
        if not isinstance(value, (bool, np.bool_)):
            given = type(value).__name__ if hasattr(value, "shape") else repr(value)
            raise ValueError(f"{name} must be True or False, got {given}")


def check_axis(axis: SupportsIndex, shape: Sequence[int], dtype: str, name: str = "x") -> int:
    """Return the batch axis counted from the front, of an x of this shape and dtype."""
    if dtype not in FLOATS:
        raise ValueError(f"{name} must be {FLOAT_TEXT}, got {dtype}")
    index = check_integer(axis, "axis")
    if not -len(shape) <= index < len(shape):
        raise ValueError(f"{name} must have the batch axis {index}, got shape {tuple(shape)}")
    return index % len(shape)


def check_keep(shape: Sequence[int], dtype: str, batch: int, name: str = "keep") -> None:
    """Raise unless a keep of this shape and dtype is bool[batch]."""
    if dtype != "bool" or tuple(shape) != (batch,):
        raise ValueError(f"{name} must be bool of shape ({batch},), got {dtype} of {tuple(shape)}")


def check_key(shape: Sequence[int], dtype: str, several: bool = False, name: str = "key") -> None:
    """Raise unless a key of this shape and dtype is two words, or several are: uint32 [..., 2]."""
    if dtype != "uint32" or tuple(shape[-1:] if several else shape) != (2,):
        raise ValueError(f"{name} must be {KEY_TEXT}, got {dtype} of {tuple(shape)}")


def check_source(key: object, others: str = "keep") -> None:
    """Raise if there is nothing to draw from; others: what might have been given in its place."""
    if key is None:
        raise ValueError(f"key must be given to drop in training, or {others}, got none")


def check_one_source(key: object, keep: object) -> None:
    """Raise if both key and keep are given: which of the two decides would be a guess."""
    if key is not None and keep is not None:
        raise ValueError("key and keep must not both be given: keep is the mask, key draws one")


def check_skip(skip: object, why_not: str = "") -> None:
    """Raise unless skip is None, True or False; and if it is True where that cannot be, say why."""
    if not (skip is None or isinstance(skip, bool)):
        raise ValueError(f"skip must be None, True or False, got {skip!r}")
    if skip and why_not:
        raise ValueError(f"skip must be None or False here, got True: {why_not}")


def check_per_sample(shapes: Sequence[Sequence[int]], batch: int) -> None:
    """Raise unless the branch's further arguments, of these shapes, have the batch in front."""
    for shape in shapes:
        if tuple(shape[:1]) != (batch,):
            raise ValueError(
                f"per_sample must begin with the batch of {batch}, got shape {tuple(shape)}"
            )


def check_branch(
    returned: Sequence[int], dtype: str, given: Sequence[int], name: str = "branch"
) -> None:
    """Raise unless the branch returned the shape that it was given, in some floating dtype."""
    if tuple(returned) != tuple(given):
        raise ValueError(
            f"{name} must return the shape it is given, {tuple(given)}, got {tuple(returned)}"
        )
    if dtype not in FLOATS:
        raise ValueError(f"{name} must return {FLOAT_TEXT}, got {dtype}")


def check_callable(branch: object, name: str = "branch") -> None:
    """Raise unless branch can be called."""
    if not callable(branch):
        raise ValueError(f"{name} must be callable, got {branch!r}")


def check_branches(branches: Iterable[F]) -> list[F]:
    """Return the branches of a stack, each of which can be called, as a list."""
    if not isinstance(branches, Iterable):
        raise ValueError(f"branches must be callables in a list, got {branches!r}")
    called = [*branches]
    for branch in called:
        check_callable(branch, "branches")
    return called


def check_options(mode: object, scale_at: object, axis: SupportsIndex, groups: object) -> None:
    """Raise unless a module may have these options; x is not known yet."""
    check_mode(mode)
    check_scale_at(scale_at)
    check_integer(axis, "axis")
    check_groups(cast(SupportsIndex, groups), 0)  # whether it divides is seen when the batch is


def check_scalar(name: str, kind: str, fits: bool, dtype: str, shape: Sequence[int]) -> None:
    """Raise unless an array is a scalar of this kind, "floating" or "integer": its dtype fits."""
    if not fits or tuple(shape):
        article = "an" if kind == "integer" else "a"
        got = f"{dtype} of shape {tuple(shape)}"
        raise ValueError(f"{name} must be {article} {kind} scalar, got {got}")


def check_number(value: object, name: str) -> float:
    """Return value, a finite real number, as a float."""
    real = isinstance(value, Real) and not isinstance(value, bool)
    if not (real and math.isfinite(cast(float, value))):
        raise ValueError(f"{name} must be a finite number, got {_shown(value)}")
    return float(cast(float, value))


def check_word(value: SupportsIndex, name: str) -> int:
    """Return value, an integer in [0, 2**32)."""
    return check_below(value, name, WORD, "2**32")


def check_batch(batch: SupportsIndex) -> int:
    """Return batch, an integer in [0, 2**31)."""
    return check_below(batch, "batch", ROWS, "2**31")


def check_groups(groups: SupportsIndex, batch: int) -> int:
    """Return groups, a positive divisor of batch."""
    count = check_integer(groups, "groups")
    if count < 1 or batch % count:
        raise ValueError(f"groups must divide the batch, got groups={count} for batch={batch}")
    return count


def check_shards(groups: int, devices: int) -> None:
    """Raise unless each of the devices that share a batch holds whole groups of it."""
    if groups % devices:
        raise ValueError(
            f"groups must be a multiple of the {devices} devices that share the batch, "
            f"got {groups}: else rows travel between devices, which costs more than skipping saves "
            "(or take skip=False)"
        )


def check_offset(offset: SupportsIndex, batch: int, group_size: int = 1) -> int:
    """Return offset, a multiple of the group's size, such that all counters fit in 64 bits."""
    index = check_integer(offset, "offset")
    # in two steps: a tracing compiler that follows the batch has no integers of 64 bits and more
    if not 0 <= index < COUNTERS // 2 and not 0 <= index <= COUNTERS - max(batch, 1):
        limit = f"2**64 - {max(batch, 1)} + 1"
        raise ValueError(f"offset must be an integer in [0, {limit}), got {index}")
    if group_size > 1 and index % group_size:
        raise ValueError(
            f"offset must be a multiple of the group's {group_size} rows, got offset={index}"
        )
    return index


def check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    if not (isinstance(value, str) and value in choices):
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}")


def check_below(value: SupportsIndex, name: str, limit: int, text: str) -> int:
    index = check_integer(value, name)
    if not 0 <= index < limit:
        raise ValueError(f"{name} must be an integer in [0, {text}), got {index}")
    return index


def check_integer(value: SupportsIndex, name: str) -> int:
    if type(value) is int:  # at once: every forward comes by, also in a tracing compiler
        return value
    dtype = str(getattr(value, "dtype", ""))  # operator.index takes a tensor of bool for 0 or 1
    if isinstance(value, bool) or dtype.endswith("bool"):
        raise ValueError(f"{name} must be an integer, got {value!r}")
    try:
        return operator.index(value)
    except (TypeError, RuntimeError):  # PyTorch's, of a tensor that is no integer
        raise ValueError(f"{name} must be an integer, got {value!r}") from None


def _shown(value: object) -> str:
    """Return repr, without NumPy's type name around a scalar."""
    return repr(value.item() if isinstance(value, np.generic) else value)
