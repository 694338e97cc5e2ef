"""On a CUDA device: no wait for it in a step, capture in a graph, the numbers of the host.

What needs no numbers is tested without a GPU too, in fake_cuda_test.py.
"""

import pytest
import torch
from torch import nn

import droppath
from droppath_torch import (
    DropPathResidual,
    drop_path,
    drop_path_residual,
    drop_path_stack,
    keyed,
)

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

KEY = droppath.key(11)
MODES = ["row", "balanced", "batch"]


RATES = {
    "float": lambda: 0.4,
    "on the host": lambda: torch.tensor(0.4),
    "there": lambda: torch.tensor(0.4, device="cuda"),
}
SOURCES = {
    "key of NumPy": lambda: {"key": KEY},
    "key on the host": lambda: {"key": torch.tensor([0, 11])},
    "key there": lambda: {"key": torch.tensor([0, 11], device="cuda")},
    "generator of the host": lambda: {"generator": torch.Generator()},
    "generator there": lambda: {"generator": torch.Generator("cuda")},
    "keep on the host": lambda: {"keep": torch.arange(16) % 3 == 1},
    "keep there": lambda: {"keep": torch.arange(16, device="cuda") % 3 == 1},
}


def block_of(mode, device, p=0.4):
    torch.manual_seed(0)
    branch = nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 8), nn.Tanh())
    return nn.Sequential(*[DropPathResidual(branch, p, mode=mode) for _ in range(3)]).to(device)


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("mode", MODES)
def test_a_step_does_not_wait_for_the_device(mode, rate):
    block = block_of(mode, "cuda", RATES[rate]())
    x = torch.randn(16, 4, 8, device="cuda", requires_grad=True)
    block(x).sum().backward()  # compiles the kernels
    torch.cuda.set_sync_debug_mode("error")
    try:
        block(x).sum().backward()
        with keyed(block, KEY):
            block(x).sum().backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("zero_gradients", [False, True])
def test_a_stack_waits_for_nothing_and_is_that_of_the_host(zero_gradients):
    rates = droppath.drop_path_rates(0.5, 6, whole=True)
    torch.manual_seed(0)
    layers = nn.ModuleList(nn.Linear(8, 8) for _ in rates)
    x = torch.randn(16, 8)
    want = drop_path_stack(x, layers, rates, key=KEY)
    layers, x = layers.to("cuda"), x.to("cuda")
    drop_path_stack(x, layers, rates, key=KEY).sum().backward()
    layers.zero_grad()
    torch.cuda.set_sync_debug_mode("error")
    try:
        y = drop_path_stack(x, layers, rates, key=KEY, zero_gradients=zero_gradients)
        y.sum().backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    torch.testing.assert_close(y.cpu(), want, rtol=1e-4, atol=1e-4)
    ran = [layer.weight.grad is not None for layer in layers]
    assert ran == [zero_gradients or run for run in droppath.layer_plan(KEY, rates).tolist()]


@pytest.mark.parametrize("mode", MODES)
def test_a_graph_draws_anew_at_each_replay(mode):
    block, x = block_of(mode, "cuda"), torch.randn(16, 4, 8, device="cuda")
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream), torch.no_grad():
        block(x)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.no_grad(), torch.cuda.graph(graph):
        y = block(x)
    results = set()
    for _ in range(16):
        graph.replay()
        results.add(y.sum().item())
    assert len(results) > 1  # all 16 alike: once in millions of runs


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("mode", MODES)
def test_the_device_computes_what_the_host_does(mode, dtype):
    x = torch.randn(16, 4, 8)

    def computed(device, dtype):
        block = block_of(mode, device).to(dtype)
        leaf = x.detach().to(device, dtype).requires_grad_()
        with keyed(block, KEY):
            y = block(leaf)
        (dx,) = torch.autograd.grad(y.double().square().sum(), leaf)
        return torch.stack([y, dx]).detach().double().cpu()

    exact = computed("cpu", torch.float64)
    there, here = (computed(device, dtype) - exact for device in ("cuda", "cpu"))
    assert there.abs().mean() <= 2 * here.abs().mean()
    assert there.abs().max() <= (1e-4 if dtype == torch.float32 else 0.5)


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("mode", MODES)
def test_no_source_of_a_mask_and_no_kind_of_rate_waits(mode, source, rate):
    x = torch.randn(16, 8, device="cuda", requires_grad=True)
    given, p = {"mode": mode, **SOURCES[source]()}, RATES[rate]()

    def step():
        y = drop_path_residual(drop_path(x, p, **given), torch.tanh, p, **given)
        y.sum().backward()

    step()  # compiles the kernels
    torch.cuda.set_sync_debug_mode("error")
    try:
        step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert x.grad.isfinite().all()


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("mode", MODES)
def test_a_graph_draws_from_the_key_of_each_replay(mode, rate):
    x, key = torch.ones(16, 8, device="cuda"), torch.tensor([0, 1], device="cuda")
    layer = DropPathResidual(torch.ones_like, RATES[rate](), mode=mode)
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream), torch.no_grad(), keyed(layer, key):
        layer(x)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.no_grad(), keyed(layer, key), torch.cuda.graph(graph):
        y = layer(x)
    seen = set()
    for seed in range(8):
        key.copy_(torch.tensor([0, seed]))
        graph.replay()
        of_layer = droppath.fold_in(droppath.key(seed), 0)
        want = droppath.keep_mask(of_layer, 0.4, 16, mode=mode).tolist()
        assert (y[:, 0] != 1).tolist() == want
        seen.add(str(want))
    assert len(seen) > 1


@pytest.mark.parametrize("source", ["key of NumPy", "key on the host", "keep on the host"])
def test_what_a_graph_would_hold_is_refused(source):
    x, given = torch.ones(16, 8, device="cuda"), SOURCES[source]()
    name = source.split()[0]
    for call in (drop_path, lambda x, p, **o: drop_path_residual(x, torch.neg, p, **o)):
        with (
            pytest.raises(ValueError, match=f"^{name} must be on cuda:0 within a CUDA graph"),
            torch.cuda.graph(torch.cuda.CUDAGraph()),
        ):
            call(x + 1, 0.4, **given)  # PyTorch warns of a graph that holds nothing


@pytest.mark.parametrize("axis", [0, 2])
@pytest.mark.parametrize("of_branch", [torch.float32, torch.float64, torch.bfloat16])
def test_any_layout_and_any_dtype_of_a_branch_give_the_numbers_of_the_host(axis, of_branch):
    x = torch.randn(16, 6, 16, 5).to(memory_format=torch.channels_last)
    results = []
    for device in ("cpu", "cuda"):
        leaf = x.to(device).requires_grad_()
        y = drop_path_residual(leaf, lambda x: x.to(of_branch).sin(), 0.4, key=KEY, axis=axis)
        (dx,) = torch.autograd.grad(y, leaf, torch.ones_like(y))
        assert y.is_contiguous(memory_format=torch.channels_last)
        assert dx.is_contiguous(memory_format=torch.channels_last)
        results.append((y.detach().cpu(), dx.cpu()))
    loose = 0.05 if of_branch == torch.bfloat16 else 1e-5
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=loose, atol=loose)


def test_a_row_may_be_longer_than_67_million_numbers():
    x = torch.ones(2, 70_000_000, dtype=torch.bfloat16, device="cuda")  # 280 MB
    with torch.no_grad():
        y = drop_path_residual(x, torch.neg, 0.5, keep=torch.tensor([False, True]))
    assert torch.equal(y[0], x[0])
    assert y[1].eq(-1).all()  # 1 - 2 * 1


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
@pytest.mark.parametrize("mode", MODES)
def test_a_block_runs_on_the_device_of_x_whichever_is_the_current_one(mode):
    x = torch.randn(16, 4, 8)
    block = block_of(mode, "cuda:1")
    assert torch.cuda.current_device() == 0
    with keyed(block, KEY):
        y = block(x.to("cuda:1"))
    with keyed(block.cpu(), KEY):
        want = block(x)
    torch.testing.assert_close(y.cpu(), want, rtol=1e-4, atol=1e-4)


def test_keyed_sends_its_key_and_then_all_masks_at_once():
    layers = [m for mode in MODES for m in block_of(mode, "cuda")]
    model, x = nn.Sequential(*layers), torch.randn(16, 4, 8, device="cuda")
    with keyed(model, KEY):
        model(x)  # compiles the kernels
    with torch.profiler.profile() as seen, keyed(model, droppath.key(3)):
        model(x)
    copies = [e for e in seen.events() if e.name.startswith("Memcpy HtoD")]
    assert len(copies) == 2
