"""The files: what each holds, how its text is laid out, and how all are written.

Nothing is written unless Threefry gives Random123's known answers.
"""

import json
from pathlib import Path

from conformance.make_golden.apply import apply_vectors
from conformance.make_golden.cipher import KNOWN, threefry
from conformance.make_golden.edge import edge_vectors
from conformance.make_golden.gradient import gradient_vectors
from conformance.make_golden.keys import key_vectors
from conformance.make_golden.masks import mask_vectors
from conformance.make_golden.plans import plan_vectors
from conformance.make_golden.residual import residual_vectors
from conformance.make_golden.schedules import schedule_vectors
from conformance.make_golden.vector import words

FOLDER = Path(__file__).parents[1] / "vectors" / "v1"
VERSION = 1

FILES = {
    "apply": ("kept rows, dropped rows, the factor, the batch axis", apply_vectors),
    "gradient": ("the gradient dx for a given dy", gradient_vectors),
    "edge": ("special values, rates near 0 and 1, overflow, rounding, shapes", edge_vectors),
    "keys": ("Threefry-2x32-20: key, fold_in, split, random_bits", key_vectors),
    "masks": ("the masks that a key draws, and how many rows they keep at most", mask_vectors),
    "plans": ("which layers run, how many at most, and stacks of them", plan_vectors),
    "schedules": ("rates over depth, ramps, the expected depth", schedule_vectors),
    "residual": ("residual blocks that skip, their arguments and gradients", residual_vectors),
}

# In the order in which they are written: what it is, the call, the tolerance, what is wanted.
FIELDS = (
    *("id", "clause", "why", "source", "claims"),
    *("op", "dtype", "shape", "drop_prob", "training", "options", "key", "keep"),
    *("x", "per_sample", "params", "dy", "steps", "absolute", "want"),
)


def text(file: str) -> str:
    """Return a file's text: a line for each field of each vector."""
    about, make = FILES[file]
    vectors = [*make()]
    head = {"version": VERSION, "area": file, "about": about, "count": len(vectors)}
    lines = [f" {json.dumps(name)}: {json.dumps(value)}" for name, value in head.items()]
    bodies = [
        ",\n".join(f"   {json.dumps(name)}: {json.dumps(v[name])}" for name in FIELDS if name in v)
        for v in vectors
    ]
    body = ",\n".join(f"  {{\n{body}\n  }}" for body in bodies)
    return "{\n" + ",\n".join(lines) + f',\n "vectors": [\n{body}\n ]\n}}\n'


def write(folder: Path = FOLDER) -> None:
    """Write all files. Raises ValueError if Threefry misses a known answer."""
    for key, counter, cipher in KNOWN:
        if threefry(key, counter) != cipher:
            raise ValueError(f"threefry must give {words(cipher)} for the key {words(key)}")
    folder.mkdir(parents=True, exist_ok=True)
    for file in FILES:
        (folder / f"{file}.json").write_bytes(text(file).encode("ascii"))
