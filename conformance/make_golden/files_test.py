"""The files: the same bytes each time, from nothing else of the project, of vectors that bite."""

import ast
import math
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from conformance.make_golden import cipher, exact, inputs
from conformance.make_golden.exact import FORMATS, nearest
from conformance.make_golden.files import FILES, FOLDER, write

PACKAGE = Path(exact.__file__).parent
SOURCES = [file for file in sorted(PACKAGE.glob("*.py")) if not file.name.endswith("_test.py")]
ROOT = PACKAGE.parents[1]
WRITTEN = {f"{name}.json": (FOLDER / f"{name}.json").read_bytes() for name in FILES}
VECTORS = [vector for _, make in FILES.values() for vector in make()]


def test_the_committed_files_are_what_the_maker_writes(tmp_path):
    write(tmp_path)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == WRITTEN


def test_the_command_writes_the_same_bytes(tmp_path):
    command = [sys.executable, "-m", "conformance.make_golden", str(tmp_path / "new")]
    subprocess.run(command, cwd=ROOT, check=True, env={"PYTHONHASHSEED": "1"})
    assert {file.name: file.read_bytes() for file in (tmp_path / "new").iterdir()} == WRITTEN


@pytest.mark.parametrize("file", SOURCES, ids=lambda file: file.name)
def test_the_maker_imports_the_standard_library_and_itself_only(file):
    tree = ast.parse(file.read_text(encoding="utf-8"))
    modules = {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
    froms = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    modules |= {f"{'.' * node.level}{node.module or ''}" for node in froms}
    others = {m for m in modules if not m.startswith("conformance.make_golden.")}
    assert {m.partition(".")[0] for m in others} <= sys.stdlib_module_names
    assert not any(isinstance(n, ast.Name) and n.id == "__import__" for n in ast.walk(tree))


def test_the_makers_files_are_found():
    assert {"__main__.py", "exact.py", "cipher.py"} < {file.name for file in SOURCES}


def test_a_wrong_threefry_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(cipher, "ROTATIONS", (13, 15, 26, 6, 17, 29, 24, 16))
    with pytest.raises(ValueError) as caught:
        write(tmp_path / "new")
    assert str(caught.value) == (
        "threefry must give ['0x6b200159', '0x99ba4efe'] for the key ['0x00000000', '0x00000000']"
    )
    assert not (tmp_path / "new").exists()


def vector(name):
    (found,) = [v for v in VECTORS if v["id"] == name]
    return found


def numbers(v, field):
    return [float.fromhex(value) for value in v[field]]


def wanted(v):
    ((_, want),) = v["want"].items()
    return [float.fromhex(value) for value in want]


def test_no_number_is_subnormal():
    of_rows = [v for v in VECTORS if "x" in v]
    assert len(of_rows) > 110
    for v in of_rows:
        values = [*numbers(v, "x"), *(numbers(v, "dy") if "dy" in v else []), *wanted(v)]
        smallest = 2.0 ** FORMATS[v["dtype"]][1]
        assert [x for x in values if 0 < abs(x) < smallest] == [], v["id"]


def test_every_number_is_one_of_its_dtype():
    for v in [v for v in VECTORS if "x" in v]:
        finite = [x for x in numbers(v, "x") + wanted(v) if math.isfinite(x)]
        assert [nearest(Fraction(x), v["dtype"]) for x in finite] == finite, v["id"]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_the_vector_of_the_product_needs_the_rounding_to_float32(dtype):
    v = vector(f"edge/{dtype}/product")
    s = exact.factor(0.4, dtype, True)
    at_once = [nearest(Fraction(x) * Fraction(s), dtype) for x in numbers(v, "x")]
    assert [abs(want) > abs(y) for want, y in zip(wanted(v), at_once, strict=True)] == [True, True]


@pytest.mark.parametrize("dtype", [*FORMATS])
def test_the_ties_are_ties_and_go_both_ways(dtype):
    v = vector(f"edge/{dtype}/tie")
    exact = [Fraction(x) * Fraction(5, 4) for x in numbers(v, "x")]
    unit = Fraction(2) ** (1 - FORMATS[dtype][0])
    assert [value / unit % 1 for value in exact] == [Fraction(1, 2)] * 4
    up = [abs(w) > abs(value) for w, value in zip(wanted(v), exact, strict=True)]
    assert up == [False, True, False, True]


def test_the_vectors_at_the_threshold_stand_at_it():
    draw23 = cipher.random_bits(inputs.KEY, 1)[0] >> 9
    below, at, single = (
        float.fromhex(vector(f"masks/row/b1/{name}")["drop_prob"]) * 2**23
        for name in ("draw-below-t", "draw-is-t", "float32")
    )
    assert (math.floor(below), math.ceil(below), at) == (draw23, draw23 + 1, draw23)
    assert (single > draw23, math.ceil(single)) == (True, draw23 + 1)
    kept = [vector(f"masks/row/b1/{name}")["want"] for name in ("draw-below-t", "draw-is-t")]
    assert kept == [{"keep": [0]}, {"keep": [1]}]


def test_bfloat16_overflows_in_the_last_rounding_only():
    v = vector("edge/bfloat16/overflow-in-rounding")
    s = exact.factor(0.003, "bfloat16", True)
    assert math.isfinite(nearest(Fraction(numbers(v, "x")[0]) * Fraction(s), "float32"))
    assert wanted(v)[0] == math.inf


def test_both_outcomes_of_the_batch_draw_are_there():
    seeds = [vector(f"masks/batch/b3/seed{seed}")["want"]["keep"] for seed in range(4)]
    assert {tuple(keep) for keep in seeds} == {(0, 0, 0), (1, 1, 1)}


def test_the_vectors_of_a_spare_row_have_one_and_nan_in_every_dropped_row():
    spare = [v for v in VECTORS if v["id"].startswith("residual/") and v["id"].endswith("/spare")]
    assert len(spare) == 4
    for v in spare:
        kept = [not math.isnan(w) for w in numbers(v, "per_sample")]
        mask = cipher.keep_mask(inputs.KEY, 0.37, 12, mode="balanced", groups=3)
        assert kept == mask
        # b p = 4 * 0.37 = 1.48: a group has room for 3 rows, and keeps 3 or 2
        assert sorted(sum(kept[i : i + 4]) for i in (0, 4, 8)) == [2, 3, 3]


def test_a_residual_is_summed_and_rounded_once():
    v = vector("residual/float16/p0.37/argument")
    s = float(np.float32(1 / (1 - 0.37)))  # times a power of 2, times 11 digits: exact in float64
    x, w = numbers(v, "x"), numbers(v, "per_sample")
    assert v["keep"] == [1, 0, 1, 1, 0, 1]
    want = [
        float(np.float16(x[i] + s * w[i // 2] * x[i])) for i in range(12) if i // 2 not in (1, 4)
    ]
    assert [y for i, y in enumerate(wanted(v)) if i // 2 not in (1, 4)] == want


def test_there_are_few_enough_vectors_to_read():
    assert all(20 <= len([*make()]) <= 45 for _, make in FILES.values())
