"""On CUDA no call waits for the device: each mode, source of the mask, kind of rate, and capture.

The devices are fake_devices_test.py's, so that no GPU is needed. Not tested here: numbers.
"""

from contextlib import nullcontext
from functools import partial
from itertools import product

import pytest
import torch
from torch import nn

import droppath
from droppath_torch import (
    DropPath,
    DropPathResidual,
    drop_path,
    drop_path_residual,
    drop_path_stack,
    keyed,
    skip_dropped,
)
from droppath_torch.fake_devices_test import (
    FakeDevices,
    FakeGenerator,
    finding,
    in_a_process_of_its_own,
    main,
)
from droppath_torch.rows import _AddRows, _TakeRows

pytest.importorskip("triton", reason="it comes with PyTorch's CUDA build, or by itself")

KEY = droppath.key(7)  # keeps in batch mode
MODES = "row", "balanced", "batch"
CUDA, LAST = torch.device("cuda:0"), torch.channels_last
RATES = {
    "float": lambda: 0.4,
    "on the host": lambda: torch.tensor(0.4),
    "there": lambda: torch.full((), 0.4, device=CUDA),
}
SOURCES = {
    "key of NumPy": lambda: {"key": KEY},
    "key on the host": lambda: {"key": torch.tensor([0, 7])},
    "key there": lambda: {"key": torch.zeros(2, dtype=torch.int64, device=CUDA)},
    "generator of the host": lambda: {"generator": torch.Generator()},
    "generator there": lambda: {"generator": FakeGenerator()},
    "keep on the host": lambda: {"keep": torch.arange(8) % 3 == 1},
    "keep there": lambda: {"keep": torch.ones(8, dtype=torch.bool, device=CUDA)},
    "nothing": dict,
}
OF_HOST = "key of NumPy", "key on the host", "generator of the host", "keep on the host"


def images(dtype=torch.float32, device=CUDA):
    x = torch.empty(8, 4, 3, 5, dtype=dtype, device=device).to(memory_format=LAST)
    return x.requires_grad_()


def is_last(*tensors) -> bool:
    return all(x.is_contiguous(memory_format=LAST) for x in tensors)


def backward(y, x) -> list[torch.Tensor]:
    """What the functions' own backward makes of a gradient: of the rows that ran, and of x."""
    node, found = y.grad_fn, []
    with torch.no_grad():
        if type(node).__name__ == "_AddRowsBackward":
            found.append(_AddRows.backward(node, torch.empty_like(y))[1])
            nodes = [after for after, _ in node.next_functions]
            [node] = [n for n in nodes if type(n).__name__ == "_TakeRowsBackward"]
            found.append(_TakeRows.backward(node, found[0], torch.empty_like(y))[0])
    return found


def copies_stated(call: str, mode: str, source: str, rate: str, capturing: bool) -> tuple[int, ...]:
    """How many copies to the device a call may make."""
    if source in OF_HOST:
        known = call == "residual" and rate != "there"
        return (0,) if known and mode == "batch" and source != "keep on the host" else (1,)
    drawn_there = call == "drop_path" or rate == "there" or capturing
    if source != "nothing" or drawn_there:
        return (0,)
    return (1,) if mode == "balanced" else (0, 1)  # by whether all are kept


def refusal(name: str) -> str:
    return f"ValueError: {name} must be on cuda:0 within a CUDA graph"


def run(call, mode, source, rate, capturing, devices: FakeDevices) -> str:
    x, options = images(), {"mode": mode, **SOURCES[source]()}
    if call == "drop_path":
        y = drop_path(x, RATES[rate](), **options)
    else:
        y = drop_path_residual(x, torch.neg, RATES[rate](), **options)
    if not is_last(y, *backward(y, x)):
        return "a layout is lost"
    stated = copies_stated(call, mode, source, rate, capturing)
    if len(devices.pinned) not in stated:
        return f"{len(devices.pinned)} copies, stated {stated}"
    if not {(1, 0)} >= {launch[1:] for launch in devices.launches}:
        return f"a grid of several axes, or another device: {devices.launches}"
    return ""


def want(call, mode, source, rate, capturing) -> str:
    return refusal(source.split()[0]) if capturing and source in OF_HOST else ""


CALLS = list(product(("drop_path", "residual"), MODES, SOURCES, RATES, (False, True)))


def block(mode, rate="float", index=0, device=CUDA):
    branch = nn.Conv2d(4, 4, 1, device=device)
    make = (DropPathResidual, lambda _, p, **o: DropPath(p, **o))[index % 2]
    return make(branch, RATES[rate](), mode=mode)


def model_of(rate="float", device=CUDA) -> nn.Module:
    """Blocks and plain DropPaths of all modes, one of groups that this batch does not divide by."""
    layers = [block(mode, rate, i, device) for i in range(2) for mode in MODES for _ in range(2)]
    other = DropPath(0.1, mode="balanced", groups=3)
    return nn.Sequential(nn.Conv2d(4, 4, 1, device=device), *layers, other.eval())


def run_keyed(rate, key, capturing, devices: FakeDevices) -> str:
    key = KEY if key == "host" else torch.zeros(2, dtype=torch.int64, device=CUDA)
    model, x = model_of(rate), images()
    with keyed(model, key):
        y = model(x)
        backward(y, x)
    # of the key, which a compiled program would need; of all masks and rows
    stated = 0 if isinstance(key, torch.Tensor) else 2 if rate == "float" else 1
    return "" if len(devices.pinned) == stated else f"{len(devices.pinned)} copies, stated {stated}"


def run_keyed_outside(devices: FakeDevices) -> str:
    """A block that a graph is recorded within: what is made of the key before would stay in it."""
    model, x = nn.Sequential(block("row"), block("row")), images()
    key = torch.zeros(2, dtype=torch.int64, device=CUDA)
    devices.operators.clear()
    with keyed(model, key):
        before = {*devices.operators} - {"device"}
        x = model[0](x)
        devices.operators.clear()
        devices.capturing = True
        model[1](x)
        drawn = "bitwise_xor" in devices.operators
        return f"made before: {before}" if before or not drawn else ""


class Block(nn.Module):
    def __init__(self, mode):
        super().__init__()
        self.branch, self.drop_path = nn.Linear(5, 5), DropPath(0.4, mode=mode)

    def forward(self, x):
        return x + self.drop_path(self.branch(x))


def run_skipped(mode, source, devices: FakeDevices) -> str:
    """Hooked blocks: tried on the host, where numbers are, and run on the device."""
    model = skip_dropped(nn.Sequential(Block(mode), Block(mode)), torch.randn(8, 5))
    model.load_state_dict(on_cuda(model.state_dict()), assign=True)
    rows = []
    for block in model:
        block.branch.register_forward_hook(lambda _, __, y: rows.append(len(y)))
    key = torch.zeros(2, dtype=torch.int64, device=CUDA) if source == "key there" else KEY
    with keyed(model, key) if source != "nothing" else nullcontext():
        y = model(torch.empty(8, 5, device=CUDA).requires_grad_())
    ran = [8] if mode == "row" and source == "key there" else [droppath.kept_capacity(0.4, 8)]
    ran = [4, 5] if source == "nothing" else ran
    if y.shape != (8, 5) or any(block.drop_path.why_masked for block in model):
        return "a block is not skipped"
    if (mode == "balanced" or source == "key there") and not set(rows) <= set(ran):
        return f"ran {rows} rows, not {ran}"
    stated = {"key of NumPy": 2, "key there": 0, "nothing": 2}[source]
    return "" if len(devices.pinned) == stated else f"{len(devices.pinned)} copies, stated {stated}"


def on_cuda(state):
    return {name: nn.Parameter(torch.empty(p.shape, device=CUDA)) for name, p in state.items()}


def run_launches(mode, dtype, of_branch, stated, devices: FakeDevices) -> str:
    x = images(dtype)
    y = drop_path_residual(x, lambda x: x.to(of_branch) * 2, 0.4, key=KEY, mode=mode)
    found = backward(y, x)
    names = [name for name, *_ in devices.launches]
    if found[0].dtype != of_branch or found[1].dtype != dtype:
        return f"gradients of {[each.dtype for each in found]}"
    return "" if names == stated.split() else f"launches {names}, stated {stated}"


F32, F64, BF16 = torch.float32, torch.float64, torch.bfloat16
LAUNCHES = {
    "float32": (F32, F32, "_add_rows _take_rows _add_rows"),
    "bfloat16": (BF16, BF16, "_add_rows _take_rows _add_rows"),
    "a branch of bfloat16": (F32, BF16, "_add_rows _take_rows _add_rows"),
    "a branch of float64": (F32, F64, ""),
    "float64": (F64, F64, ""),
}  # fmt: skip


def run_elsewhere(devices: FakeDevices) -> str:
    x = images(device=torch.device("cuda:1"))
    backward(drop_path_residual(x, torch.neg, 0.4, key=KEY), x)
    at = [device for *_, device in devices.launches]
    return "" if at == [1, 1, 1] and devices.current == 0 else f"launched on {at}"


def run_evaluation(call, rate, devices: FakeDevices) -> str:
    x, how = images(), {"scale_at": "eval"}
    if call == "drop_path":
        y = drop_path(x, RATES[rate](), False, **how)
    else:
        y = drop_path_residual(x, torch.neg, RATES[rate](), False, **how)
    return "" if is_last(y) and not devices.pinned else f"{len(devices.pinned)} copies"


def run_long(devices: FakeDevices) -> str:
    x = torch.empty(4, 70_000_000, dtype=torch.bfloat16, device=CUDA)
    with torch.no_grad():
        drop_path_residual(x, torch.neg, 0.4, keep=torch.arange(4) < 2)
    return "" if devices.launches == [("_add_rows", 1, 0)] else f"{devices.launches}"


def run_kept(mode, devices: FakeDevices) -> str:
    """Where the host knows that all is kept, x + s * f is all there is to compute."""
    keep, x = torch.ones(8, dtype=torch.bool), images()
    devices.operators.clear()
    drop_path_residual(x, torch.neg, 0.4, keep=keep, mode=mode)
    ran = [name for name in devices.operators if name not in ("detach", "device")]
    return "" if ran == ["neg", "add"] and not devices.pinned else f"ran {ran}"


def run_stack(devices: FakeDevices) -> str:
    y = drop_path_stack(images(), [torch.neg] * 4, [0.5] * 4, key=KEY)
    return "" if y.is_cuda and not devices.pinned else f"{len(devices.pinned)} copies"


CASES = {
    **{" | ".join(map(str, c)): partial(finding, partial(run, *c), c[-1]) for c in CALLS},
    **{
        f"keyed | {rate} | {key} | {capturing}": partial(
            finding, partial(run_keyed, rate, key, capturing), capturing
        )
        for rate, key, capturing in product(RATES, ("host", "there"), (False, True))
    },
    **{
        f"launches | {mode} | {name}": partial(finding, partial(run_launches, mode, *how))
        for mode, (name, how) in product(("row", "balanced"), LAUNCHES.items())
    },
    **{f"kept | {mode}": partial(finding, partial(run_kept, mode)) for mode in MODES},
    **{
        f"evaluation | {call} | {rate}": partial(finding, partial(run_evaluation, call, rate))
        for call, rate in product(("drop_path", "residual"), RATES)
    },
    **{
        f"skipped | {mode} | {source}": partial(finding, partial(run_skipped, mode, source))
        for mode, source in product(("row", "balanced"), ("key of NumPy", "key there", "nothing"))
    },
    "keyed outside": partial(finding, run_keyed_outside),
    "stack": partial(finding, run_stack),
    "elsewhere": partial(finding, run_elsewhere),
    "long": partial(finding, run_long),
}
WANTED = {" | ".join(map(str, c)): want(*c) for c in CALLS} | {
    f"keyed | {rate} | host | True": refusal("key") for rate in RATES
}


@pytest.fixture(scope="module")
def findings(tmp_path_factory):
    return in_a_process_of_its_own("droppath_torch.fake_cuda_test", tmp_path_factory.mktemp("a"))


@pytest.mark.parametrize("name", CASES)
def test_no_call_waits_for_the_device_or_copies_more_than_stated(findings, name):
    wanted = WANTED.get(name, "")
    assert findings[name][: len(wanted) or None] == wanted


if __name__ == "__main__":
    main(CASES)
