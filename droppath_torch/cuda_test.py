"""On a CUDA device: no wait for it in a step, capture in a graph, the numbers of the host."""

import pytest
import torch
from torch import nn

import droppath
from droppath_torch import DropPathResidual, keyed

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

KEY = droppath.key(11)
MODES = ["row", "balanced", "batch"]


def block_of(mode, device):
    torch.manual_seed(0)
    branch = nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 8), nn.Tanh())
    return nn.Sequential(*[DropPathResidual(branch, 0.4, mode=mode) for _ in range(3)]).to(device)


@pytest.mark.parametrize("mode", MODES)
def test_a_step_does_not_wait_for_the_device(mode):
    block, x = block_of(mode, "cuda"), torch.randn(16, 4, 8, device="cuda", requires_grad=True)
    block(x).sum().backward()  # compiles the kernels
    torch.cuda.set_sync_debug_mode("error")
    try:
        block(x).sum().backward()
        with keyed(block, KEY):
            block(x).sum().backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")


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
        results.add(tuple((y != x).any(2).any(1).tolist()))
    assert len(results) > 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("mode", MODES)
def test_the_device_computes_what_the_host_does(mode, dtype):
    x = torch.randn(16, 4, 8)
    results = []
    for device in ("cpu", "cuda"):
        block = block_of(mode, device).to(dtype)
        leaf = x.to(device, dtype).requires_grad_()
        with keyed(block, KEY):
            y = block(leaf)
        y.float().square().sum().backward()
        results.append((y.detach().cpu(), leaf.grad.cpu()))
    loose = 1e-4 if dtype == torch.float32 else 0.05
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=loose, atol=loose)
