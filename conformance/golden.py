"""The golden vectors: all files, their digest, and each clause's vectors as a check.

Not here: how a file is read (vector_file.py), and the clauses' own checks (clauses/), which find
the mask of a black box; a vector gives it.
"""

import hashlib
from copy import deepcopy
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import numpy as np

from conformance.check import Check, Finding, Results, Subject, equal
from conformance.vector_file import FOLDER, VERSION, Vector, read

FILES = ("apply", "gradient", "edge", "keys", "masks", "plans", "schedules", "residual")
ROUNDED = ("y", "dx")  # what is wanted in the dtype of x


def load(folder: Path = FOLDER / f"v{VERSION}") -> tuple[Vector, ...]:
    """Return the vectors of all files. Raises ValueError that names the file and what is wrong."""
    vectors = [vector for file in FILES for vector in read(folder / f"{file}.json")]
    twice = {v.id for v in vectors if sum(v.id == other.id for other in vectors) > 1}
    if twice:
        raise ValueError(f"ids must be unique, got twice {', '.join(sorted(twice))}")
    return tuple(vectors)


def digest(folder: Path = FOLDER / f"v{VERSION}") -> str:
    """Return the first 12 hex digits of SHA-256 over the files, in the order of FILES."""
    data = b"".join((folder / f"{file}.json").read_bytes() for file in FILES)
    return hashlib.sha256(data).hexdigest()[:12]


def checks() -> tuple[Check, ...]:
    """Return a check for each clause that has vectors, needing what all its vectors claim."""
    by_clause: dict[str, list[Vector]] = {}
    for vector in _vectors():
        by_clause.setdefault(vector.clause, []).append(vector)
    return tuple(
        Check(clause, partial(results, clause), _needs(vectors))
        for clause, vectors in by_clause.items()
    )


def results(clause: str, subject: Subject) -> Results:
    """Yield the outcome of a clause's vectors whose claims and dtype the subject has."""
    for vector in _vectors():
        mine = vector.claims <= subject.info.claims
        mine = mine and (vector.dtype in subject.info.dtypes or vector.kind not in ROUNDED)
        if vector.clause == clause and mine:
            yield compare(vector, subject)


def compare(vector: Vector, subject: Subject) -> Finding | None:
    """Run a vector; return a finding unless every value is within its tolerance."""
    call = deepcopy(vector.call)  # it may be written into
    want, dtype = vector.want, vector.dtype
    if vector.kind not in ROUNDED:  # masks, words and schedules depend on no dtype
        call, dtype = replace(call, dtype=subject.info.dtypes[0]), "float64"
    outcome = subject.run(call)
    got = outcome.dx if vector.kind == "dx" else outcome.y
    got = np.zeros(()) if got is None else got
    if vector.kind in ("keep", "dropped"):
        got = (got != 0) * 1.0
    if outcome.stages is not None and got.size == want.size:
        got = got.reshape(want.shape)
    if vector.absolute is not None and got.shape == want.shape:
        want = np.where(np.abs(got - want) <= vector.absolute, got, want)
    return equal(f"vector {vector.id}", want, got, dtype, vector.steps)


@cache
def _vectors() -> tuple[Vector, ...]:
    return load()


def _needs(vectors: list[Vector]) -> tuple[str, ...]:
    return tuple(sorted(frozenset.intersection(*(vector.claims for vector in vectors))))
