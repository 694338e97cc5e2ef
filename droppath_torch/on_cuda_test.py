"""The kernels give what plain PyTorch gives, in Triton's interpreter where there is no GPU."""

import os
import subprocess
import sys

import pytest
import torch

pytest.importorskip("triton", reason="Triton comes with PyTorch's CUDA build, or by itself")

# A process of its own: Triton reads TRITON_INTERPRET when it is imported.
PROGRAM = """
import numpy as np, torch
from droppath_torch.on_cuda import add_rows_fused, take_rows_fused
from droppath_torch.rows import pick_rows

def numbers(*shape, dtype, seed):
    x = torch.from_numpy(np.random.default_rng(seed).normal(size=shape)).to(dtype)
    return x.to(DEVICE)

cases = 0
for dtype, other in ((torch.float32, torch.float32), (torch.bfloat16, torch.bfloat16),
                     (torch.float16, torch.float32), (torch.float32, torch.bfloat16)):
    for shape, axis in (((8, 3, 5), 0), ((2, 8, 1100), 1), ((3, 8), 1)):
        for capacity, groups in ((5, 1), (3, 2), (1, 1)):
            keep = torch.arange(8) % 3 == 1  # rows 1, 4, 7
            if capacity == 1:
                keep = torch.arange(8) == 8  # the one row that runs is a spare
            rows = pick_rows(keep.to(DEVICE), capacity, groups)
            x = numbers(*shape, dtype=dtype, seed=0)
            ran = [*shape]
            ran[axis] = capacity * groups
            f = numbers(*ran, dtype=other, seed=1)
            f[(slice(None),) * axis + (~rows.real,)] = torch.nan
            x[(slice(None),) * axis + (~keep.to(DEVICE),)] *= -0.0
            y = add_rows_fused(x, f, rows.place, rows.keep, 1 / 0.7, axis)
            want = rows.add(x, f, 1 / 0.7, axis)
            eps = torch.finfo(dtype).eps
            torch.testing.assert_close(y, want, rtol=2 * eps, atol=2 * eps)
            dropped = (slice(None),) * axis + (~keep.to(DEVICE),)
            assert torch.equal(y[dropped].view(torch.uint8), x[dropped].view(torch.uint8))
            x[(slice(None),) * axis + (rows.taken[~rows.real],)] = torch.nan
            df = take_rows_fused(x, rows.taken, rows.real, 1 / 0.7, other, axis)
            torch.testing.assert_close(df, rows.scaled(x, 1 / 0.7, other, axis))
            assert not df[(slice(None),) * axis + (~rows.real,)].any()
            cases += 1
print(cases)
"""


def test_the_kernels_are_plain_pytorch():
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
    assert done.stdout.split() == ["36"]
