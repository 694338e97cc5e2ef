"""What the combinations combine: the factors, the values of each, and the call that a row makes.

The first value of a factor is its plain one. Not here: what a call must give (exact.py).
"""

from dataclasses import replace
from typing import Any

import numpy as np

import droppath
from conformance.blocks import scaled
from conformance.calls import KEY, minus_half
from conformance.check import Subject
from conformance.covering import Factors, Row, covering
from conformance.numerics import sample
from conformance.protocol import Array, Call


def wider(x: Any) -> Any:
    """Return a branch's output in a wider dtype, where NumPy, PyTorch or JAX would promote it."""
    return x * np.float32(-0.5) + (x == x) * 0.0


BRANCHES = {"block": minus_half, "block with factors": scaled, "block that runs all rows": scaled}
BRANCHES["block with a wider branch"] = wider
GROUPS = ("balanced, groups", "balanced, groups of 1")
SCALES: dict[str, dict[str, Any]] = {
    "factor": {},
    "no factor": {"scale_by_keep": False},
    "factor in evaluation": {"scale_at": "eval"},
    "no factor, in evaluation": {"scale_by_keep": False, "scale_at": "eval"},
}
SPECIAL = np.array([np.inf, np.nan, -0.0, -np.inf, 0.0])
NEXT_TO_1 = 1 - 2.0**-12  # exact in float32, and 1 in 16 bits
KEYS = droppath.split(KEY, 4)  # the last one draws the masks that are given

FACTORS: Factors = {
    "op": ("drop_path", *BRANCHES),
    "phase": ("training", "evaluation", "training with keep", "evaluation with keep"),
    "scale": (*SCALES,),
    "p": (0.37, 0.1, 0.9, 2.0**-24, NEXT_TO_1, 0.0, 1.0),
    "mode": ("row", "balanced, groups", "batch", "balanced", "balanced, groups of 1"),
    "axis": ("0 of 2", "1 of 3", "-1 of 2", "0 of 4", "-2 of 4"),
    "batch": (32, 1, 3, 65, 258),
    "offset": ("0", "3 units", "across 2^32", "beyond 2^32"),
    "dtype": ("float32", "float64", "float16", "bfloat16"),
    "gradient": ("no dy", "dy", "special dy", "dy, forward run again"),
    "x": ("plain", "special"),
    "key": (0, 1, 2),
    "how": ("eager", "compiled", "2 shards"),
}

# What must be claimed, or the value is left out.
NEEDS: dict[Any, tuple[str, ...]] = {
    **dict.fromkeys(BRANCHES, ("residual",)),
    "block that runs all rows": ("residual", "skip"),
    "batch": ("batch",),
    **dict.fromkeys(("balanced", *GROUPS), ("balanced",)),
    **dict.fromkeys(("1 of 3", "-1 of 2", "-2 of 4"), ("axis",)),
    **dict.fromkeys(("3 units", "across 2^32", "beyond 2^32"), ("keyed",)),
    **dict.fromkeys(("training with keep", "evaluation with keep"), ("keep",)),
    "no factor": ("scale_by_keep",),
    "factor in evaluation": ("scale_at",),
    "no factor, in evaluation": ("scale_by_keep", "scale_at"),
    **dict.fromkeys(("dy", "special dy"), ("gradient",)),
    "dy, forward run again": ("gradient", "recompute"),
    "compiled": ("compile", "keyed"),
    "2 shards": ("shard", "keyed"),
}

# Each part has coverings of its own: where nothing is drawn, mode and axis together tell little.
DRAWN: Factors = {"phase": ("training",), "p": FACTORS["p"][:5], "how": ("eager",)}
UNDRAWN: Factors = {
    "p": (1.0, 0.0, 0.37, NEXT_TO_1),
    "mode": ("row", "balanced, groups", "batch"),
    "batch": (32, 3, 65),
    "offset": ("0", "across 2^32"),
    "key": (0,),
    "how": ("eager",),
}
UNDRAWN_PHASES: tuple[Factors, ...] = (
    {"phase": ("training",), "p": (1.0, 0.0)},
    {"phase": ("training with keep",)},
    {"phase": ("evaluation", "evaluation with keep")},
)
ELSEWHERE: Factors = {
    "op": ("drop_path", "block with factors", "block"),
    "phase": ("training", "training with keep", "evaluation"),
    "p": (0.37, 0.9, 0.0, 1.0),
    "mode": ("row", "balanced, groups", "batch"),
    "axis": ("0 of 2", "1 of 3", "-1 of 2"),
    "batch": (32,),
    "offset": ("0", "across 2^32"),
    "gradient": ("no dy", "dy"),
    "key": (0, 1),
}
# Where each operation is compiled for each shape, a program takes less time than a call without.
COMPILED: Factors = {
    **DRAWN,
    "how": ("compiled",),
    "p": (0.37, 2.0**-24, NEXT_TO_1),
    "op": ("drop_path", "block with factors", "block that runs all rows"),
    "mode": ("row", "balanced, groups", "batch"),
    "axis": ("0 of 2", "1 of 3", "-1 of 2", "-2 of 4"),
    "batch": (65,),
}
FEW: Factors = {
    "p": (0.37, 0.0, 1.0),
    "axis": ("1 of 3", "0 of 2"),
    "dtype": ("float32", "bfloat16"),
}


def values(subject: Subject, part: Factors | None = None) -> Factors:
    """Return the values of each factor that a subject claims, of those that a part names."""
    found, part = {}, part or {}
    for factor, known in FACTORS.items():
        claimed = [v for v in known if subject.info.claims.issuperset(NEEDS.get(v, ()))]
        if factor == "dtype":
            claimed = [v for v in known if v in subject.info.dtypes]
        found[factor] = [v for v in claimed if v in part.get(factor, known)]
    return found


def rows(subject: Subject) -> list[Row]:
    """Return the rows that a subject is called with."""
    found = values(subject)
    if subject.info.compiles:
        parts = [COMPILED, {**ELSEWHERE, **FEW, "how": ("eager",)}]
    else:  # for each mode and phase, so that modes, axes and offsets meet all three
        parts = [{**DRAWN, "mode": (mode,)} for mode in found["mode"]]
        parts += [{**UNDRAWN, **phase} for phase in UNDRAWN_PHASES]
        forms = [op for op in (("drop_path",), (*BRANCHES,)) if {*op} & {*found["op"]}]
        parts = [{**part, "op": op} for op in forms for part in parts]
    parts += [{**ELSEWHERE, "how": (how,)} for how in found["how"][1:]]
    each = [values(subject, part) for part in parts]
    return [row for part in each if all(part.values()) for row in covering(part, is_defined)]


def is_defined(row: Row) -> bool:
    """Return whether SPEC.md says what comes of a row: of 0 times a branch that is infinite, no."""
    times_0 = row.get("p") == 1 and row["phase"].startswith("evaluation")
    return not times_0 or row["op"] == "drop_path" or row["scale"] != "factor in evaluation"


def plain(subject: Subject) -> Row:
    """Return the plain row of a subject."""
    return {factor: found[0] for factor, found in values(subject).items()}


def named(subject: Subject, row: Row) -> str:
    """Return the values of a row that are not plain, as text."""
    first = plain(subject)
    told = [f"{factor}: {value}" for factor, value in row.items() if value != first[factor]]
    return "; ".join(told) or "all plain"


def call_of(subject: Subject, row: Row) -> Call:
    """Return the call that a row makes; of a block with factors, see with_factors."""
    axis, shape = axis_of(row), shape_of(row)
    x, dy = sample(shape, row["dtype"]), sample(shape, row["dtype"], first=9000)
    given = row["phase"].endswith("keep")
    drawing = not given and ("keyed" in subject.info.claims or row["phase"] == "training")
    keyed = drawing and "keyed" in subject.info.claims
    at = {"axis": axis} if axis else {}
    block = {"branch": BRANCHES[row["op"]]} if row["op"] in BRANCHES else {}
    skip = {"skip": False} if row["op"] == "block that runs all rows" else {}
    return Call(
        specially(x, axis) if row["x"] == "special" else x,
        row["p"],
        row["dtype"],
        "residual" if block else "drop_path",
        training=row["phase"].startswith("training"),
        seed=row["key"] if drawing and not keyed else None,
        key=KEYS[row["key"]] if keyed else None,
        keep=keep_of(row) if given else None,
        dy={"no dy": None, "special dy": specially(dy, axis)}.get(row["gradient"], dy),
        recompute=row["gradient"] == "dy, forward run again",
        compiled=row["how"] == "compiled",
        shards=2 if row["how"] == "2 shards" else 1,
        options={**block, **skip, **mask_of(row), **SCALES[row["scale"]], **at},
    )


def with_factors(call: Call, row: Row, keep: Array) -> Call:
    """Return the call with a factor for each sample: not finite where dropped if x is special."""
    if call.options.get("branch") is not scaled:
        return call
    i = np.arange(row["batch"])
    w = np.exp2((i * i // 3) % 4 - 1.0)  # differs between the groups and between the shards
    w = np.where(keep, w, np.inf) if row["x"] == "special" else w
    w = w.reshape(-1, *[1] * (call.x.ndim - 1 - axis_of(row) % call.x.ndim))
    return replace(call, options={**call.options, "per_sample": [w]})


def specially(x: Array, axis: int) -> Array:
    """Return x with special values in every row, but not in the first place of any."""
    moved = np.moveaxis(x.copy(), axis, 0)
    flat = moved.reshape(len(moved), -1)
    i, j = np.indices(flat.shape)
    flat = np.where(j % 2, SPECIAL[(i + j // 2) % len(SPECIAL)], flat)
    return np.ascontiguousarray(np.moveaxis(flat.reshape(moved.shape), 0, axis))


def keep_of(row: Row) -> Array:
    """Return the mask that a row with keep gives: one of its mode, some rows dropped."""
    p = row["p"] if row["mode"] not in ("row", "batch") and 0 < row["p"] < 1 else 0.37
    return droppath.keep_mask(KEYS[-1], p, row["batch"], **mask_of(row))


def mask_of(row: Row) -> dict[str, Any]:
    """Return mode, groups and offset of a row, each if it is not plain."""
    batch, mode = row["batch"], row["mode"]
    some = 8 if batch == 32 else next((n for n in range(2, batch) if batch % n == 0), batch)
    groups = {"balanced, groups": some, "balanced, groups of 1": batch}.get(mode, 1)
    unit = batch // groups if mode.startswith("balanced") else 1
    offset = {
        "0": 0,
        "3 units": 3 * unit,
        "across 2^32": (2**32 - 1 - batch // 2) // unit * unit,
        "beyond 2^32": (2**32 + 5) * unit,
    }[row["offset"]]
    return {
        **({} if mode == "row" else {"mode": mode.partition(",")[0]}),
        **({"groups": groups} if mode in GROUPS else {}),
        **({"offset": offset} if offset else {}),
    }


def axis_of(row: Row) -> int:
    """Return the batch axis of a row."""
    return int(row["axis"].split()[0])


def shape_of(row: Row) -> tuple[int, ...]:
    """Return the shape of x."""
    rank = int(row["axis"].split()[2])
    others = {2: [5], 3: [3, 2], 4: [2, 3, 2]}[rank]
    others.insert(axis_of(row) % rank, row["batch"])
    return tuple(others)
