"""The maker of the vectors tested: reproducible, independent, and right by other arithmetic."""

import ast
import math
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import droppath
from conformance import make_golden
from conformance.make_golden import AREAS, FOLDER, FORMATS, nearest

MANY = settings(max_examples=500, derandomize=True, deadline=None)
ROOT = Path(make_golden.__file__).parents[1]
DTYPES = {name: np.dtype(getattr(ml_dtypes, name, name)) for name in FORMATS}
FILES = {f"{area}.json": (FOLDER / f"{area}.json").read_bytes() for area in AREAS}
VECTORS = [vector for _, make in AREAS.values() for vector in make()]


def vector(name):
    (found,) = [v for v in VECTORS if v["id"] == name]
    return found


def numbers(v, field):
    return [float.fromhex(value) for value in v[field]]


def wanted(v):
    ((_, want),) = v["want"].items()
    return [float.fromhex(value) for value in want]


def test_the_committed_files_are_what_the_maker_writes(tmp_path):
    make_golden.write(tmp_path)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == FILES


def test_the_command_writes_the_same_bytes(tmp_path):
    command = [sys.executable, "-m", "conformance.make_golden", str(tmp_path / "new")]
    subprocess.run(command, cwd=ROOT, check=True, env={"PYTHONHASHSEED": "1"})
    assert {file.name: file.read_bytes() for file in (tmp_path / "new").iterdir()} == FILES


def test_the_maker_imports_the_standard_library_only():
    tree = ast.parse(Path(make_golden.__file__).read_text(encoding="utf-8"))
    modules = {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
    froms = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    modules |= {f"{'.' * node.level}{node.module or ''}" for node in froms}
    assert "fractions" in modules
    assert {m.partition(".")[0] for m in modules} <= sys.stdlib_module_names
    assert not any(isinstance(n, ast.Name) and n.id == "__import__" for n in ast.walk(tree))


def test_a_wrong_threefry_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(make_golden, "ROTATIONS", (13, 15, 26, 6, 17, 29, 24, 16))
    with pytest.raises(ValueError) as caught:
        make_golden.write(tmp_path / "new")
    assert str(caught.value) == (
        "threefry must give ['0x6b200159', '0x99ba4efe'] for the key ['0x00000000', '0x00000000']"
    )
    assert not (tmp_path / "new").exists()


def test_pi_and_e_have_their_known_digits():
    # pi: the first words of Blowfish's P-array; e: TEA's and RC5's constant, and the word after it
    assert f"{make_golden.PI >> make_golden.BITS - 96:x}" == "243f6a8885a308d313198a2e"
    assert f"{make_golden.E >> make_golden.BITS - 64:x}" == "b7e151628aed2a6a"
    assert f"{make_golden.PI % 2**64:x}" == pi_by_a_series_of_ramanujans(make_golden.BITS)


def pi_by_a_series_of_ramanujans(bits):
    """The last 64 of so many bits of pi's fraction: 1914, equation 44, 8 digits a term."""
    total = sum(
        Fraction(
            math.factorial(4 * k) * (1103 + 26390 * k), math.factorial(k) ** 4 * 396 ** (4 * k)
        )
        for k in range(bits // 24)
    )
    scale = 1 << bits + 64
    root_of_8 = math.isqrt(8 * scale * scale)
    pi = scale * 9801 * total.denominator * scale // (root_of_8 * total.numerator)
    return f"{pi >> 64 & 2**64 - 1:x}"


@given(dtype=st.sampled_from([*FORMATS]), data=st.data())
@MANY
def test_rounding_is_that_of_the_library(dtype, data):
    # bfloat16 from float32, since ml_dtypes goes there from float64 by way of it
    width = 32 if dtype == "bfloat16" else 64
    value = data.draw(st.floats(allow_nan=False, allow_infinity=False, width=width))
    with np.errstate(over="ignore"):
        want = float(np.float64(value).astype(DTYPES[dtype]))
    assert nearest(Fraction(value), dtype) == want


@st.composite
def rows_and_rates(draw):
    """A dtype, 8 of its numbers that are not zero, and a rate below 1."""
    dtype = draw(st.sampled_from([*FORMATS]))
    integers = st.integers(1, 2 ** FORMATS[dtype][0] - 1)
    spread = st.integers(-30, 12) if dtype == "float16" else st.integers(-150, 120)
    x = [math.ldexp(draw(integers), draw(spread)) for _ in range(8)]
    x = [value for value in (nearest(Fraction(value), dtype) for value in x) if value]
    p = draw(st.floats(0, 1, exclude_max=True))
    return dtype, [value for value in x if math.isfinite(value)], p


@given(rows_and_rates())
@MANY
def test_the_fractions_round_as_the_reference_does(case):
    dtype, x, p = case
    array = np.array(x).astype(DTYPES[dtype])
    got = droppath.drop_path(array, np.ones(len(x), bool), p).astype(np.float64)
    s = make_golden.factor(p, dtype, True)
    assert got.tolist() == [make_golden.product(value, s, dtype) for value in x]


@given(
    key=st.tuples(*[st.integers(0, 2**32 - 1)] * 2),
    p=st.floats(0, 1),
    mode=st.sampled_from(["row", "batch", "balanced"]),
    group=st.integers(1, 9),
    groups=st.integers(1, 4),
    start=st.integers(0, 2**33),
)
@MANY
def test_the_masks_are_those_of_the_reference(key, p, mode, group, groups, start):
    options = {"mode": mode, "groups": groups, "offset": start * group}
    want = droppath.keep_mask(np.array(key, np.uint32), p, group * groups, **options)
    assert make_golden.keep_mask(key, p, group * groups, **options) == want.tolist()


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
    s = make_golden.factor(0.4, dtype, True)
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
    draw = make_golden.random_bits(make_golden.KEY, 1)[0] >> 9
    below, at, single = (
        float.fromhex(vector(f"masks/row/b1/{name}")["drop_prob"]) * 2**23
        for name in ("draw-below-t", "draw-is-t", "float32")
    )
    assert (math.floor(below), math.ceil(below), at) == (draw, draw + 1, draw)
    assert (single > draw, math.ceil(single)) == (True, draw + 1)
    kept = [vector(f"masks/row/b1/{name}")["want"] for name in ("draw-below-t", "draw-is-t")]
    assert kept == [{"keep": [0]}, {"keep": [1]}]


def test_bfloat16_overflows_in_the_last_rounding_only():
    v = vector("edge/bfloat16/overflow-in-rounding")
    s = make_golden.factor(0.003, "bfloat16", True)
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
        mask = make_golden.keep_mask(make_golden.KEY, 0.37, 12, mode="balanced", groups=3)
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
    assert all(20 <= len([*make()]) <= 45 for _, make in AREAS.values())
