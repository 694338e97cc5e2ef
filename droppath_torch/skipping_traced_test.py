"""A model that skips what it drops, under compilers, checkpointing, transforms and DDP."""

import copy
import warnings

import pytest
import torch
from torch import distributed, fx, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

import droppath
from droppath_torch import drop_path, keyed, skip_dropped
from droppath_torch.functional_test import same_bits
from droppath_torch.skipping_test import (
    CLOSE,
    KEY,
    Block,
    InPlace,
    assert_agree,
    example,
    made,
    reasons,
    results,
    rows_in,
)
from droppath_torch.trial import fixed_masks


class Recomputed(nn.Module):
    """Each block is run again in the backward."""

    def __init__(self, blocks, reentrant):
        super().__init__()
        self.blocks, self.reentrant = blocks, reentrant

    def forward(self, x):
        for block in self.blocks:
            x = checkpoint(block, x, use_reentrant=self.reentrant)
        return x


class RecomputedWithin(Block):
    """As blocks that run a half of themselves again: the block's own forward is not."""

    def forward(self, x):
        x = checkpoint(self.first, x, use_reentrant=False)
        return x + self.drop_path2(self.out(self.mlp(self.norm2(x))))

    def first(self, x):
        return x + self.drop_path1(self.ls1(self.attn(self.norm1(x))))


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("key", [KEY, None])
def test_a_recomputed_block_runs_the_same_rows(reentrant, key):
    masked = Recomputed(made(Block), reentrant)
    skipped, x = copy.deepcopy(masked), example(Block())
    skip_dropped(skipped, x)
    assert reasons(skipped) == [""] * 4
    if key is None:
        rows = rows_in(skipped.blocks[0].attn, lambda: results(skipped, x))
        assert len(rows) == 2  # in the forward, and again
        assert rows[0] == rows[1] < len(x)
        return
    both = []
    for model in (skipped, masked):
        with keyed(model, key):
            both.append(results(model, x))
    for got, want in zip(*both, strict=True):
        torch.testing.assert_close(got, want, **CLOSE)


def test_a_recomputed_half_of_a_block_is_skipped_too():
    masked = made(RecomputedWithin)
    skipped, x = copy.deepcopy(masked), example(Block())
    skip_dropped(skipped, x)
    assert reasons(skipped) == [""] * 4
    assert_agree(skipped, masked, x)
    rows = rows_in(skipped[0].attn, lambda: results(skipped, x))
    assert len(rows) == 2
    assert rows[0] == rows[1] < len(x)


@pytest.mark.parametrize("make", [Block, InPlace])
@pytest.mark.parametrize("key", [KEY, None])
def test_compiled_it_is_one_graph_that_runs_kept_capacity_rows(make, key):
    masked = made(make)
    skipped, x = copy.deepcopy(masked), example(masked[0])
    skip_dropped(skipped, x)
    compiles = []

    def backend(graph, inputs):
        compiles.append(graph)
        return graph.forward

    torch._dynamo.reset()
    compiled = torch.compile(skipped, fullgraph=True, backend=backend, dynamic=False)
    for seed in range(3):
        if key is None:
            results(compiled, x)
            continue
        with keyed(skipped, droppath.key(seed)):
            got = results(compiled, x)
        with keyed(masked, droppath.key(seed)):
            want = results(masked, x)
        for a, b in zip(got, want, strict=True):
            torch.testing.assert_close(a, b, **CLOSE)
    assert len(compiles) == 1
    shapes = {n.meta["example_value"].shape[0] for n in compiles[0].graph.nodes if is_x(n)}
    assert droppath.kept_capacity(0.4, len(x)) in shapes


def is_x(node):
    value = node.meta.get("example_value")
    return isinstance(value, torch.Tensor) and value.ndim > 2


def test_transforms_give_the_gradient_of_backward():
    model, x = made(Block), example(Block())
    skip_dropped(model, x)
    parameters = dict(model.named_parameters())

    def loss(parameters):
        with keyed(model, KEY):
            return torch.func.functional_call(model, parameters, (x,)).square().sum()

    got = torch.func.grad(loss)(parameters)
    model.zero_grad()
    loss(parameters).backward()
    for name, p in parameters.items():
        torch.testing.assert_close(got[name], p.grad, **CLOSE)


def test_torch_fx_traces_the_block_as_one_that_masks():
    model = made(InPlace)
    x = example(model[0])
    skip_dropped(model, x)
    graph = fx.symbolic_trace(model)
    called = [node.target for node in graph.graph.nodes if node.op == "call_function"]
    assert called.count(drop_path) == 2
    assert not model[0].stochastic_depth.is_open
    with torch.random.fork_rng():
        want = skip_dropped(model, undo=True)(x)
    assert same_bits(graph(x), want)  # by the same draw


def test_a_second_derivative_is_that_of_masking():
    masked = made(InPlace)
    skipped, x = copy.deepcopy(masked), example(masked[0]).requires_grad_()
    skip_dropped(skipped, x.detach())
    both = []
    for model in (skipped, masked):
        with fixed_masks(model):
            (dx,) = torch.autograd.grad(model(x).square().sum(), x, create_graph=True)
            both.append(torch.autograd.grad(dx.square().sum(), x)[0])
    torch.testing.assert_close(*both, rtol=1e-11, atol=1e-11)
    assert both[0].ne(0).any()


def test_under_DistributedDataParallel_the_gradients_are_the_same(tmp_path):
    model, x = made(Block), example(Block())
    skip_dropped(model, x)
    with keyed(model, KEY):
        want = results(model, x)
    distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path}/group", rank=0, world_size=1
    )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            parallel = DistributedDataParallel(model)
        with keyed(model, KEY):
            got = results(parallel, x)
    finally:
        distributed.destroy_process_group()
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b, **CLOSE)
