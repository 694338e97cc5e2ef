"""A vector: its fields, numbers and words as text, and the vectors of op drop_path.

Not here: what each file holds (apply.py, gradient.py, edge.py, ...).
"""

import math
from collections.abc import Iterator
from typing import Any

from conformance.make_golden.cipher import Key
from conformance.make_golden.exact import factor, product
from conformance.make_golden.inputs import PI, E, numbers

Vector = dict[str, Any]
Vectors = Iterator[Vector]


def vector(name: str, clause: str, why: str, source: str, claims: str, **rest: Any) -> Vector:
    """Return a vector."""
    head = {"id": name, "clause": clause, "why": why, "source": source, "claims": claims.split()}
    return {**head, "op": "drop_path", "dtype": "float32", "steps": 0, "options": {}, **rest}


def call(
    name: str,
    clause: str,
    why: str,
    dtype: str,
    p: float,
    shape: tuple[int, ...] = (6, 2),
    *,
    x: list[float] | None = None,
    dy: list[float] | None = None,
    keep: list[int] | None = None,
    training: bool = True,
    **options: Any,
) -> Vector:
    """Return a vector of op drop_path; the wanted dx if dy is given, else the wanted y."""
    given = "x from pi" if x is None else "x by hand"
    if dy is not None:
        given += ", dy from e" if dy == numbers(E, shape, dtype) else ", dy by hand"
    claims = [*options, *["keep"] * (keep is not None), *["gradient"] * (dy is not None)]
    made = vector(
        name,
        clause,
        why,
        f"{clause} in exact fractions; {given}",
        " ".join(claims),
        dtype=dtype,
        shape=list(shape),
        drop_prob=p.hex(),
        training=training,
        options=options,
        **({} if keep is None else {"keep": keep}),
    )
    values = numbers(PI, shape, dtype) if x is None else x
    wanted = apply(made, values if dy is None else dy)
    made["x"] = hexes(values)
    made |= {} if dy is None else {"dy": hexes(dy)}
    return made | {"want": {"y" if dy is None else "dx": hexes(wanted)}}


def apply(vector: Vector, x: list[float]) -> list[float]:
    """Return the elements of y, or those of dx if x is dy: the clauses of SCALE and DROP."""
    p, training = float.fromhex(vector["drop_prob"]), vector["training"]
    options = dict(vector["options"])
    of = rows(tuple(vector["shape"]), options.pop("axis", 0))
    keep = vector.get("keep") or [1] * (max(of, default=0) + 1)
    s = factor(p, vector["dtype"], training, **options)
    if p == 1 and (training or options.get("scale_at") == "eval"):
        keep = [0] * len(keep)  # DROP-2, SCALE-3
    return [product(v, s, vector["dtype"]) if keep[i] else 0.0 for v, i in zip(x, of, strict=True)]


def rows(shape: tuple[int, ...], axis: int = 0) -> list[int]:
    """Return the row, the index on the batch axis, of each element in row-major order."""
    inner = math.prod(shape[axis % len(shape) + 1 :])
    return [i // inner % shape[axis] for i in range(math.prod(shape))]


def hexes(values: list[float]) -> list[str]:
    """Return numbers as text without loss."""
    return [value.hex() for value in values]


def words(values: list[int] | Key) -> list[str]:
    """Return words of 32 bits as text."""
    return [f"0x{value:08x}" for value in values]
