"""The counters of KEY-1 in the code that Inductor writes for a GPU, run by Triton's interpreter."""

import os
import subprocess
import sys

import pytest

pytest.importorskip("triton", reason="it comes with PyTorch's CUDA build, or by itself")

# A process of its own: Triton reads TRITON_INTERPRET when it is imported.
PROGRAM = """
import importlib.util, sys, tempfile
from pathlib import Path

import torch, torch.utils._triton, triton
from torch._inductor import config
from torch._inductor.async_compile import AsyncCompile

from droppath_torch.masks import counters

class Interpreted:
    def __init__(self, source):
        path = Path(tempfile.mkdtemp(), "kernel.py")
        imports = "import triton\\nimport triton.language as tl\\n"
        path.write_text(imports + source[source.index("@triton.jit"):])
        spec = importlib.util.spec_from_file_location("kernel", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        (self.kernel,) = (f for f in vars(module).values() if hasattr(f, "run"))

    def run(self, *arguments, stream):
        size = arguments[-1]
        self.kernel[(triton.cdiv(size, 4),)](*arguments, XBLOCK=4)

ran = []

def interpreted(self, name, source, device_str):
    ran.append(name)
    return Interpreted(source)

AsyncCompile.triton = interpreted
torch.utils._triton.triton_hash_with_backend = lambda: ""  # there is no GPU to ask
config.cpu_backend = "triton"
config.compile_threads = 1
config.force_disable_caches = True

for offset in (0, 2**16 - 3, 2**31 - 4, 2**32 - 4, 2**33, 2**63 - 4, 2**64 - 8):
    high, low = torch.compile(counters, dynamic=False)(7, offset, torch.device("cpu"))
    want = [divmod(offset + i, 1 << 32) for i in range(7)]
    print(offset, list(zip(high.tolist(), low.tolist())) == want)
assert len(ran) >= 7, ran
"""


def test_offsets_that_32_bits_do_not_hold():
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 7
    assert all(line.endswith("True") for line in lines), lines
