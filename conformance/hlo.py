"""Reads the text of a program that XLA compiled (HLO): what devices exchange, its arrays.

Names differ with the target: an exchange may be asynchronous, as `all-reduce-start`, and a result
may be a tuple. Not here: compiling, and what is allowed.

Source: https://openxla.org/xla/operation_semantics.
"""

import re
from collections import Counter

OPERATION = re.compile(r"^ *(?:ROOT )?%?[\w.-]+ = (?P<type>.*?) (?P<name>[a-z][\w-]*)\(", re.M)
ARRAY = re.compile(r"\b(?P<dtype>[a-z]+\d*\w*)\[(?P<shape>[\d,]*)\]")
COLLECTIVES = (
    "all-gather",
    "all-reduce",
    "all-to-all",
    "collective-broadcast",
    "collective-permute",
    "ragged-all-to-all",
    "reduce-scatter",
)
FLOATING = ("f64", "f32", "f16", "bf16")


def collectives(text: str) -> Counter[str]:
    """Return how many operations of each kind exchange data between devices."""
    names = (match["name"].removesuffix("-start") for match in OPERATION.finditer(text))
    return Counter(name for name in names if name in COLLECTIVES)


def sees(text: str, batch: int, share: int) -> int:
    """Return the largest batch that an operation of one device sees: its share, or all of it.

    An array holds all of the batch if it has an axis of that size where another array has
    the share: [128, 32, 32, 16] beside [32, 32, 32, 16]. An axis that only happens
    to be as long has no such twin. One number for each sample is no batch of them.
    """
    shapes = floating_shapes(text)
    for shape in (shape for shape in shapes if len(shape) > 1):
        for axis, size in enumerate(shape):
            if size == batch and (*shape[:axis], share, *shape[axis + 1 :]) in shapes:
                return batch
    return share


def floating_shapes(text: str) -> set[tuple[int, ...]]:
    """Return the shapes of all floating arrays that an operation gives, tuples' parts too."""
    results = "\n".join(match["type"] for match in OPERATION.finditer(text))
    arrays = (match for match in ARRAY.finditer(results) if match["dtype"] in FLOATING)
    return {tuple(map(int, filter(None, match["shape"].split(",")))) for match in arrays}
