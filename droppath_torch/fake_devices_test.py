"""Fake CUDA devices, for tests without a GPU: what a call asks of them is recorded, by no number.

Shapes, layouts, dtypes and devices are those of CUDA. A read of a device's value raises, a copy
that the host would wait for is noted, and kernels of Triton are noted in place of launched. Not
seen: what is computed, how long it takes, and what `.backward()` runs (call a function's own).
"""

import ctypes
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from droppath_torch import on_cuda

ROOT = Path(__file__).parents[1]
GUARD = Path(__file__).with_name("fake_cuda_guard.cpp")
COPIES = torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default
MADE_OF_NUMBERS = torch.tensor, torch.as_tensor, torch.asarray


class FakeGenerator(torch.Generator):
    """torch's own generator of a CUDA device, which a CPU build cannot make."""

    device = torch.device("cuda:0")


class FakeDevices(TorchFunctionMode):
    """Within it `torch.empty(..., device="cuda:1")` is a fake tensor; a real one is on the host."""

    def __init__(self, capturing: bool = False) -> None:
        self.mode, self.capturing = FakeTensorMode(allow_non_fake_inputs=True), capturing
        self.pinned: list[Tensor] = []  # copies that the host does not wait for
        self.waits: list[str] = []  # and those that it does
        self.operators: list[str] = []
        self.launches: list[tuple[str, int, int]] = []  # kernel, axes of its grid, device
        self.current, self.patches = 0, ExitStack()

    def __enter__(self):
        cuda = patch.multiple(
            torch.cuda,
            is_current_stream_capturing=lambda: self.capturing,
            _exchange_device=self.exchange,
            _maybe_exchange_device=self.exchange,
        )
        self.patches.enter_context(cuda)
        for name in ("_add_rows", "_take_rows"):
            self.patches.enter_context(patch.object(on_cuda, name, Kernel(self, name)))
        return super().__enter__()

    def __exit__(self, *error):
        super().__exit__(*error)
        self.patches.close()

    def exchange(self, device: int) -> int:
        before, self.current = self.current, device if device >= 0 else self.current
        return before

    def __torch_function__(self, f, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if f is Tensor.pin_memory:
            if torch._debug_has_internal_overlap(args[0]) == 1:
                raise RuntimeError("PyTorch pins no tensor whose elements share memory")
            self.pinned.append(args[0])
            return args[0]
        leaves = tree_leaves((args, kwargs))
        if not any(isinstance(leaf, FakeTensor) or is_cuda(leaf) for leaf in leaves):
            return f(*args, **kwargs)
        if f in MADE_OF_NUMBERS and not isinstance(args[0], FakeTensor):
            self.waits.append(f.__name__)
        if (generator := kwargs.pop("generator", None)) is not None:
            at = args[0].device if isinstance(args[0], Tensor) else torch.device(kwargs["device"])
            if generator.device != at:
                raise RuntimeError(f"a generator of {generator.device} draws on {at}")
        with self.mode, Operators(self):
            return f(*args, **kwargs)


class Operators(TorchDispatchMode):
    """Notes each operator of a device, and each copy to it or from it that the host waits for."""

    def __init__(self, devices: FakeDevices) -> None:
        super().__init__()
        self.devices = devices

    def __torch_dispatch__(self, f, types, args=(), kwargs=None):
        result = f(*args, **(kwargs or {}))
        self.devices.operators.append(f.overloadpacket.__name__)
        if f in COPIES:
            source = args[0] if f is COPIES[0] else args[1]
            sent = source.device.type == "cpu" and result.is_cuda
            read = source.is_cuda and result.device.type == "cpu"
            late = any(source is pinned for pinned in self.devices.pinned)
            asked = (kwargs or {}).get("non_blocking", f is not COPIES[0] and args[2:3] == (True,))
            if read or (sent and not (late and asked)):
                self.devices.waits.append(f"{f} from {source.device} to {result.device}")
        return result


class Kernel:
    """Stands for one of Triton's."""

    def __init__(self, devices: FakeDevices, name: str) -> None:
        self.devices, self.name = devices, name

    def __getitem__(self, grid):
        def launch(*args, **options):
            assert args[0].device.index == self.devices.current, "launched on another device"
            self.devices.launches.append((self.name, len(grid), self.devices.current))

        return launch


def is_cuda(leaf: object) -> bool:
    return isinstance(leaf, torch.device | str) and str(leaf).startswith("cuda")


def finding(call: Callable[[FakeDevices], str], capturing: bool = False) -> str:
    """What is wrong with a call: nothing if it neither raises, nor waits, nor says so itself."""
    with FakeDevices(capturing) as devices:
        try:
            said = call(devices)
        except Exception as error:
            return f"{type(error).__name__}: {error}"
    return "; ".join([*devices.waits, said] if said else devices.waits)


def in_a_process_of_its_own(module: str, folder: Path) -> dict[str, str]:
    """What `main` of a module prints: a process with the guard in it serves for nothing else."""
    if (compiler := shutil.which("c++")) is None:
        pytest.skip("needs a C++ compiler")
    guard, of_torch = folder / "guard.so", Path(torch.__file__).parent
    flags = ["-std=c++20", "-shared", "-fPIC", f"-I{of_torch / 'include'}"]
    made = [compiler, *flags, GUARD, f"-L{of_torch / 'lib'}", "-lc10", "-o", guard]
    subprocess.run(made, check=True)
    command = [sys.executable, "-m", module, guard]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=dict(os.environ))
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def main(cases: dict[str, Callable[[], str]]) -> None:
    """Print what each case finds, with the guard that the command line names."""
    ctypes.CDLL(sys.argv[1])
    print(json.dumps({name: case() for name, case in cases.items()}))


def numbers(*shape: int) -> Tensor:
    return torch.empty(shape, device="cuda:0")


TWO = "at least two devices|two different devices"  # by the version of PyTorch
WRONG: dict[str, tuple[Callable[[], object], str]] = {
    "item": (lambda: numbers(3).sum().item(), "DataDependentOutputException"),
    "tolist": (lambda: numbers(3).tolist(), "DataDependentOutputException"),
    "if": (lambda: 1 if numbers(3).sum() > 0 else 2, "DataDependentOutputException"),
    "nonzero": (lambda: numbers(3).nonzero(), "DynamicOutputShapeException"),
    "index by a mask": (lambda: numbers(3)[numbers(3) > 0], "DynamicOutputShapeException"),
    "cpu": (lambda: numbers(3).cpu(), "from cuda:0 to cpu"),
    "to": (lambda: torch.ones(3).to("cuda:0"), "from cpu to cuda:0"),
    "not pinned": (lambda: torch.ones(3).to("cuda:0", non_blocking=True), "from cpu to cuda:0"),
    "blocking": (lambda: torch.ones(3).pin_memory().to("cuda:0"), "from cpu to cuda:0"),
    "copy_": (lambda: numbers(3).copy_(torch.ones(3)), "from cpu to cuda:0"),
    "tensor": (lambda: torch.tensor([1, 2], device="cuda:0"), "tensor"),
    "as_tensor": (lambda: torch.as_tensor(5, device="cuda:0"), "as_tensor"),
    "two devices": (lambda: numbers(3) + torch.ones(3), TWO),
    "a scalar there": (lambda: torch.ones(3) * numbers(3).sum(), TWO),
    "generator": (
        lambda: torch.rand(3, generator=torch.Generator(), device="cuda:0"),
        "a generator of cpu draws on cuda:0",
    ),
}  # fmt: skip
RIGHT: dict[str, Callable[[], object]] = {
    "pinned": lambda: torch.ones(3).pin_memory().to("cuda:0", non_blocking=True),
    "a number of the host": lambda: numbers(3) * torch.tensor(2.0),
    "made there": lambda: torch.arange(3, device="cuda:0") + torch.full((), 2, device="cuda:0"),
    "generator": lambda: torch.rand(3, generator=FakeGenerator(), device="cuda:0"),
}


@pytest.fixture(scope="module")
def findings(tmp_path_factory):
    return in_a_process_of_its_own("droppath_torch.fake_devices_test", tmp_path_factory.mktemp("a"))


@pytest.mark.parametrize("name", WRONG)
def test_what_waits_for_a_device_is_found(findings, name):
    assert re.search(WRONG[name][1], findings[f"wrong {name}"])


@pytest.mark.parametrize("name", RIGHT)
def test_what_does_not_is_not(findings, name):
    assert findings[f"right {name}"] == ""


def case(call: Callable[[], object]) -> Callable[[], str]:
    def run(devices: FakeDevices) -> str:
        call()
        return ""

    return lambda: finding(run)


if __name__ == "__main__":
    main(
        {f"wrong {name}": case(call) for name, (call, _) in WRONG.items()}
        | {f"right {name}": case(call) for name, call in RIGHT.items()}
    )
