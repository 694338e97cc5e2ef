"""The kernels give what plain PyTorch gives, in Triton's interpreter where there is no GPU.

And they compile for GPUs that are not here. Launches and devices are fake_cuda_test.py's.
"""

import os
import re
import subprocess
import sys

import pytest
import torch

from droppath_torch import on_cuda

triton = pytest.importorskip("triton", reason="it comes with PyTorch's CUDA build, or by itself")

# A process of its own: Triton reads TRITON_INTERPRET when it is imported.
PROGRAM = """
import numpy as np, torch
from droppath_torch import on_cuda
from droppath_torch.on_cuda import add_rows_fused, take_rows_fused
from droppath_torch.rows import pick_rows

def numbers(*shape, dtype, seed):
    x = torch.from_numpy(np.random.default_rng(seed).normal(size=shape)).to(dtype)
    return x.to(DEVICE)

def bits(x):
    return x.contiguous().view(torch.uint8)

def laid_out(x, order):
    return x.permute(order).contiguous().permute([order.index(i) for i in range(x.ndim)])

def check(dtype, other, shape, axis, order, capacity, groups):
    at = (slice(None),) * axis
    keep = torch.arange(8) % 3 == 1  # rows 1, 4, 7
    if capacity == 1:
        keep = torch.arange(8) == 8  # the one row that runs is a spare
    rows = pick_rows(keep.to(DEVICE), capacity, groups)
    x = laid_out(numbers(*shape, dtype=dtype, seed=0), order)
    ran = [*shape]
    ran[axis] = capacity * groups
    f = laid_out(numbers(*ran, dtype=other, seed=1), order)
    f[(*at, ~rows.real)] = torch.nan
    dropped = (*at, ~keep.to(DEVICE))
    x[dropped] *= -0.0
    y = add_rows_fused(x, f, rows.place, 1 / 0.7, axis)
    eps = torch.finfo(dtype).eps  # a multiply-add may be fused; the interpreter cuts bfloat16 off
    torch.testing.assert_close(y, rows.add(x, f, 1 / 0.7, axis), rtol=2 * eps, atol=2 * eps)
    assert torch.equal(bits(y[dropped]), bits(x[dropped]))
    bad = (*at, rows.taken[~rows.real])
    x[bad] = torch.nan
    df = take_rows_fused(x, rows.taken, rows.place, 1 / 0.7, other, axis)
    torch.testing.assert_close(df, rows.scaled(x, 1 / 0.7, other, axis))
    assert not df[(*at, ~rows.real)].any()
    x, f = x.mul_(4).round_(), f.mul_(4).round_()  # every sum and product is exact
    y = add_rows_fused(x, f, rows.place, 2.0, axis)
    assert torch.equal(bits(y), bits(rows.add(x, f, 2.0, axis)))
    df = take_rows_fused(x, rows.taken, rows.place, 2.0, other, axis)
    assert torch.equal(bits(df), bits(rows.scaled(x, 2.0, other, axis)))
    assert (y.stride(), df.stride()) == (x.stride(), f.stride())

PLAIN = ((0, 1, 2), (0, 1, 2), (0, 1))
SHAPES = (((8, 3, 5), 0), ((2, 8, 1100), 1), ((3, 8), 1))  # small rows, long ones, of one number
LAYOUTS = (((8, 3, 5, 4), 0, (0, 2, 3, 1)), ((2, 8, 40, 3), 1, (3, 1, 0, 2)))
cases = 0
for on_cuda.LONG in (1 << 31, 1):
    for dtype, other in ((torch.float32, torch.float32), (torch.bfloat16, torch.bfloat16),
                         (torch.float16, torch.float32), (torch.float32, torch.bfloat16)):
        for capacity, groups in ((5, 1), (3, 2), (1, 1)):
            for (shape, axis), order in zip(SHAPES, PLAIN, strict=True):
                check(dtype, other, shape, axis, order, capacity, groups)
                cases += 1
            for shape, axis, order in LAYOUTS:
                check(dtype, other, shape, axis, order, capacity, groups)
                cases += 1
print(cases)
"""


def test_the_kernels_are_plain_pytorch_in_every_layout_and_with_indices_of_either_size():
    device = "cuda" if torch.cuda.is_available() else "cpu"
    environment = {**os.environ, "TRITON_INTERPRET": "0" if device == "cuda" else "1"}
    done = subprocess.run(
        [sys.executable, "-c", f"DEVICE = {device!r}\n{PROGRAM}"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["120"]


ADDRESSES = {"place": "*i64", "taken": "*i64"}
# What ptxas says of the kernels for sm_80 and sm_90 stays below: 2,048 threads of an SM share
# 65,536 registers.
MOST_REGISTERS = 64


def compiled(kernel, dtype: str, capability: int, columns: int, index: str, divisible: bool):
    """The PTX of a kernel for a GPU that need not be here, its arguments as on_cuda gives them."""
    names, tile = kernel.arg_names, 1024 if dtype == "fp32" else 2048
    options = {
        "ROWS": tile // columns,
        "COLUMNS": columns,
        "INDEX": getattr(triton.language, index),
    }
    given = dict.fromkeys(("x", "f", "y", "dy", "df"), f"*{dtype}") | ADDRESSES | {"s": "fp32"}
    given |= dict.fromkeys(options, "constexpr")
    signature = {name: given.get(name, "i32") for name in names}
    aligned = [n for n in ("x", "f", "y", "dy", "df") if n in names] + ["inner"] * divisible
    source = triton.compiler.ASTSource(
        kernel,
        signature,
        constexprs={(names.index(name),): value for name, value in options.items()},
        attrs={(names.index(name),): [["tt.divisibility", 16]] for name in aligned},
    )
    gpu = triton.backends.compiler.GPUTarget("cuda", capability, 32)
    return triton.compile(source, target=gpu).asm["ptx"]


def accesses(ptx: str, kind: str) -> list[str]:
    return re.findall(rf"{kind}\.global\.(\S+)", ptx)


def assembled(ptx: str, tmp_path) -> str:
    """What ptxas says of registers and the stack."""
    (file := tmp_path / "kernel.ptx").write_text(ptx)
    arch = re.search(r"\.target (\w+)", ptx)[1]
    command = [triton.knobs.nvidia.ptxas.path, "-v", f"--gpu-name={arch}", file, "-o", os.devnull]
    return subprocess.run(command, capture_output=True, text=True, check=True).stderr


@pytest.mark.parametrize("index", ["int32", "int64"])
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("name", ["_add_rows", "_take_rows"])
def test_a_kernel_moves_16_bytes_at_once_and_needs_no_stack(
    name, dtype, index, tmp_path, monkeypatch
):
    monkeypatch.setattr(triton.knobs.cache, "dir", str(tmp_path))
    kernel = getattr(on_cuda, name)
    for capability in (80, 90, 100):
        for columns in (256, 1024):
            ptx = compiled(kernel, dtype, capability, columns, index, divisible=True)
            loads, stores = accesses(ptx, "ld"), accesses(ptx, "st")
            assert {*stores} == {"v4.b32"}
            assert {*loads} == {"v4.b32", "b64"}  # of x, f or dy; of place and taken
            assert ".local" not in ptx
            if capability < 100:  # Triton has another ptxas for those
                said = assembled(ptx, tmp_path)
                assert "0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads" in said
                assert 16 < int(re.search(r"Used (\d+) registers", said)[1]) < MOST_REGISTERS


def test_a_row_whose_size_16_does_not_divide_is_moved_number_by_number():
    ptx = compiled(on_cuda._add_rows, "fp32", 90, 1024, "int32", divisible=False)
    assert {*accesses(ptx, "st")} == {"b32"}


def test_x_is_loaded_before_what_it_does_not_wait_for():
    ptx = compiled(on_cuda._add_rows, "fp32", 90, 1024, "int32", divisible=True)
    assert accesses(ptx, "ld")[0] == "v4.b32"
