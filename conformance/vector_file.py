"""A file of golden vectors: all of it is valid, or it is refused with what is wrong.

docs/vectors.md says what the fields mean, make_golden/ where the numbers come from.
"""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, cast

import numpy as np
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError

from conformance.blocks import scaled
from conformance.branches import scaled_by
from conformance.protocol import Array, Call

FOLDER = Path(__file__).with_name("vectors")
VERSION = 1


@dataclass(frozen=True)
class Vector:
    """One call with what must come of it.

    kind: which field of the file's `want` it is. steps: how far each value may be off, in steps of
    dtype; absolute: float64 of want's shape, where the clause grants a distance instead.
    """

    id: str
    clause: str
    why: str
    source: str
    claims: frozenset[str]
    dtype: str
    call: Call
    kind: str
    want: Array
    steps: int = 0
    absolute: Array | None = None


def read(file: Path) -> Iterator[Vector]:
    """Yield the vectors of one file once all of it is valid."""
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{file.name}: must be JSON to its end, got {error}") from None
    except FileNotFoundError:
        raise ValueError(f"{file.name}: must exist, is missing") from None
    version = data.get("version") if isinstance(data, dict) else None
    if version != VERSION:
        raise ValueError(f"{file.name}: version must be {VERSION}, got {version!r}")
    for invalid in _schema().iter_errors(data):
        raise ValueError(f"{file.name}: {_reason(invalid)}")
    if data["area"] != file.stem or data["count"] != len(data["vectors"]):
        got = f"area {data['area']!r} and {len(data['vectors'])} vectors"
        raise ValueError(f"{file.name}: must hold {data['count']} of {file.stem!r}, got {got}")
    for entry in data["vectors"]:
        try:
            yield _vector(entry)
        except ValueError as mismatch:  # of lengths and shapes, which a schema cannot relate
            raise ValueError(f"{file.name}: {entry['id']}: {mismatch}") from None


@cache
def _schema() -> Draft202012Validator:
    return Draft202012Validator(json.loads((FOLDER / "schema.json").read_text(encoding="utf-8")))


def _reason(error: ValidationError) -> str:
    place = error.json_path.removeprefix("$").lstrip(".") or "the file"
    if error.validator == "additionalProperties":
        known = cast(Mapping[str, Any], error.schema)["properties"]
        unknown = [name for name in cast(Mapping[str, Any], error.instance) if name not in known]
        return f"{place}: unknown key {', '.join(map(repr, unknown))}"
    return f"{place}: {error.message}"


def _vector(entry: Mapping[str, Any]) -> Vector:
    ((kind, want),) = entry["want"].items()
    shape = tuple(entry["shape"])
    if entry["op"] == "keep_mask":
        shape = (*shape, 1)  # the mask is found on ones of this shape
    absolute = entry.get("absolute")
    return Vector(
        **{name: entry[name] for name in ("id", "clause", "why", "source", "dtype", "steps")},
        claims=frozenset(entry["claims"]),
        call=_call(entry, shape),
        kind=kind,
        want=_wanted(kind, want, shape),
        absolute=None if absolute is None else _array(absolute, shape),
    )


def _wanted(kind: str, want: Any, shape: tuple[int, ...]) -> Array:
    if kind == "words":
        return np.reshape([float(int(word, 16)) for word in want], shape)
    if kind == "dropped":
        keep = np.ones(math.prod(shape))
        keep[want] = 0
        return keep.reshape(shape)
    if kind in ("keep", "count"):
        return np.reshape(np.asarray(want, np.float64), shape)
    return _array(want, shape)


def _call(entry: Mapping[str, Any], shape: tuple[int, ...]) -> Call:
    """Return the call that an entry describes; its dtype counts where x does."""
    op, key, keep = entry["op"], entry.get("key"), entry.get("keep")
    words = None if key is None else np.array([int(word, 16) for word in key], np.uint32)
    options = {name: _option(value) for name, value in entry["options"].items()}
    p = _option(entry.get("drop_prob", "0x0.0p+0"))
    if op in ("fold_in", "split", "random_bits", "layer_plan"):
        return Call(op=op, options={"key": words, **options})
    if op == "kept_capacity":
        return Call(op=op, options={"drop_prob": p, **options})
    if op in ("keep_mask", "model"):
        x = np.ones((options.pop("batch"), 1))
        p = p.tolist() if isinstance(p, np.ndarray) else p
        op = "drop_path" if op == "keep_mask" else op
        return Call(x, p, op=op, seed=None, key=words, options=options)
    if op not in ("drop_path", "residual", "stack"):
        return Call(op=op, options=options)
    seed = 0 if op != "stack" and p != 0 and entry["training"] else None
    if op == "stack":
        options |= {"branch": scaled_by, "params": _array(entry["params"], p.shape)}
        p = p.tolist()
    if op == "residual":
        w = _array(entry["per_sample"], (shape[0], *[1] * (len(shape) - 1)))
        options |= {"branch": scaled, "per_sample": [w]}
    return Call(
        _array(entry["x"], shape),
        p,
        entry["dtype"],
        op,
        training=entry["training"],
        seed=seed,
        key=words,
        keep=None if keep is None else np.array(keep, bool),
        dy=_array(entry["dy"], shape) if "dy" in entry else None,
        options=options,
    )


def _option(value: Any) -> Any:
    """Return hex text as a float, a counter's as an int, a list of hex text as float64 [n]."""
    if isinstance(value, str) and value.startswith(("0x", "-0x")):
        return float.fromhex(value) if "p" in value else int(value, 16)
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return np.array([float.fromhex(item) for item in value])
    return value


def _array(values: list[str], shape: tuple[int, ...]) -> Array:
    return np.reshape(np.array([float.fromhex(value) for value in values]), shape)
