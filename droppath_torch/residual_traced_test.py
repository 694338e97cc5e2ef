"""A residual block under transforms, compilers and checkpointing, and in a transformer."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import droppath
from droppath_torch import DropPathResidual, drop_path_residual, keyed
from droppath_torch.residual_test import KEY, MODES, branch, numbers, with_gradients


@pytest.mark.parametrize("mode", MODES)
def test_functional_transforms_give_the_same(mode):
    x, c = numbers(6, 3), numbers(6, seed=1)

    def loss(x):
        return drop_path_residual(x, branch, 0.4, True, c, key=KEY, mode=mode).square().sum()

    leaf = x.clone().requires_grad_()
    loss(leaf).backward()
    torch.testing.assert_close(torch.func.grad(loss)(x), leaf.grad)
    _, tangent = torch.func.jvp(loss, (x,), (x,))
    torch.testing.assert_close(tangent, (leaf.grad * x).sum())
    many = torch.func.vmap(torch.func.grad(loss))(torch.stack([x, 2 * x]))
    torch.testing.assert_close(many[0], leaf.grad)


@pytest.mark.parametrize(
    ("mode", "rate"), [("balanced", 0.4), ("row", 0.4), ("batch", 0.4), ("balanced", 1.0)]
)
def test_compiled_is_eager_in_one_graph(mode, rate):
    x, c, dy = numbers(7, 3), numbers(7, seed=1), numbers(7, 3, seed=2)
    compiles = []

    def backend(graph, inputs):
        compiles.append(graph)
        return graph.forward

    def block(x, c, key):
        return drop_path_residual(x, branch, rate, True, c, key=key, mode=mode)

    compiled = torch.compile(block, fullgraph=True, backend=backend)
    masks = set()
    for seed in range(4):
        key = torch.from_numpy(droppath.key(seed).astype(np.int64))
        eager = with_gradients(lambda x, c, key=key: block(x, c, key), x, c, dy=dy)
        once = with_gradients(lambda x, c, key=key: compiled(x, c, key), x, c, dy=dy)
        for a, b in zip(eager, once, strict=True):
            torch.testing.assert_close(a, b)
        masks.add(tuple((once[0] != x).any(1).tolist()))
    assert len(compiles) == 1  # another key is no other program
    assert len(masks) > 1 or rate == 1


def test_compiled_balanced_runs_kept_capacity_rows():
    seen = []

    def counting(x):
        seen.append(len(x))
        return x

    run = torch.compile(
        lambda x: drop_path_residual(x, counting, 0.4, skip=True), fullgraph=True, backend="eager"
    )
    run(torch.ones(10, 2))
    assert seen == [6]


@pytest.mark.parametrize("mode", MODES)
def test_checkpointing_changes_nothing(mode):
    layer, x = nn.Linear(3, 3), numbers(8, 3)
    results = []
    for how in (lambda f, x: f(x), lambda f, x: checkpoint(f, x, use_reentrant=False)):
        torch.manual_seed(3)  # unkeyed: the mask of the second run is torch's to restore
        layer.zero_grad()
        leaf = x.clone().requires_grad_()
        how(lambda x: drop_path_residual(x, layer, 0.5, mode=mode), leaf).square().sum().backward()
        results.append((leaf.grad, layer.weight.grad))
    for a, b in zip(*results, strict=True):
        assert a is b is None or torch.equal(a, b)


class Block(nn.Module):
    """Attention with a mask for each sample, a layer-scaled MLP: each with its own draw."""

    def __init__(self, width, drop_prob, **options):
        super().__init__()
        self.qkv, self.mlp = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.gamma = nn.Parameter(torch.full((width,), 0.1))
        self.paths = nn.ModuleList(
            [
                DropPathResidual(self.attend, drop_prob, **options),
                DropPathResidual(lambda x: self.gamma * self.mlp(x).tanh(), drop_prob, **options),
            ]
        )

    def attend(self, x, mask):
        q, k, v = self.qkv(x).chunk(3, -1)
        return nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)

    def forward(self, x, mask):
        return self.paths[1](self.paths[0](x, mask))


@pytest.mark.parametrize("mode", MODES)
def test_a_transformer_block_skips_with_its_attention_mask_and_layer_scale(mode):
    torch.manual_seed(0)
    block = Block(4, 0.4, mode=mode)
    x, mask = numbers(10, 5, 4), torch.rand(10, 5, 5) > 0.3
    mask |= torch.eye(5, dtype=torch.bool)
    results = []
    for skip in (None, False):
        block.zero_grad()
        for path in block.paths:
            path.skip = skip
        with keyed(block, KEY):
            y = block(x, mask)
        y.square().sum().backward()
        results.append((y.detach(), [p.grad for p in block.parameters()]))
    (skipped, gradients), (masked, wanted) = results
    torch.testing.assert_close(skipped, masked)
    for a, b in zip(gradients, wanted, strict=True):
        a, b = (torch.zeros(()) if g is None else g for g in (a, b))
        torch.testing.assert_close(a + torch.zeros_like(b), b, rtol=1e-4, atol=1e-5)


def test_keyed_draws_for_residual_blocks_too_eager_and_compiled():
    layers = nn.Sequential(*[DropPathResidual(torch.ones_like, p, mode=m) for p, m in zip(
        (0.5, 0.4, 0.3), ("balanced", "row", "balanced"), strict=True)])  # fmt: skip
    x = torch.zeros(8, 2)
    want = [
        droppath.keep_mask(droppath.fold_in(KEY, i), layer.drop_prob, 8, mode=layer.mode, offset=8)
        for i, layer in enumerate(layers)
    ]
    total = sum(k / (1 - layer.drop_prob) for k, layer in zip(want, layers, strict=True))
    compiled = torch.compile(layers, fullgraph=True, backend="eager")
    for run in (layers, compiled):
        with keyed(layers, KEY, offset=8):
            np.testing.assert_allclose(run(x)[:, 0], total, rtol=1e-6)


def saved_bytes(block, x):
    """Bytes that autograd keeps for the backward pass, parameters aside."""
    held = {}

    def pack(t):
        if not any(t.data_ptr() == p.data_ptr() for p in block.parameters()):
            held[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        y = block(x)
    assert y.requires_grad
    return sum(held.values())


def test_activation_memory_falls_with_the_rate():
    mlp = nn.Sequential(nn.LayerNorm(32), nn.Linear(32, 128), nn.GELU(), nn.Linear(128, 32))
    x = numbers(32, 16, 32).requires_grad_()
    masked = saved_bytes(DropPathResidual(mlp, 0.4, skip=False), x)
    for drop_prob in (0.4, 0.5):
        skipped = saved_bytes(DropPathResidual(mlp, drop_prob), x)
        assert skipped <= (1 - drop_prob + 0.1) * masked
