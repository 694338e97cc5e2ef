"""The network of parity training, trained in PyTorch; line by line beside flax.py.

The optimizers are torch.optim's own, the masks those of droppath_torch.keyed.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn, optim

import droppath
from conformance.protocol import Array
from droppath_torch import DropPath, keyed

HEADS = 2
OPTIMIZERS = {
    "sgd": lambda weights: optim.SGD(weights, 0.03, momentum=0.9),
    "adamw": lambda weights: optim.AdamW(
        weights, 0.003, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01
    ),
}


def train(
    weights: dict[str, Array],
    images: Array,
    labels: Array,
    rates: list[float],
    key: Array,
    optimizer: str,
    dtype: str,
    steps: int,
) -> list[float]:
    """Return the loss of each step, before the step is taken.

    weights: as training.make_weights. images: [B, T, C]. labels: int [B].
    rates: drop_prob of each branch, in order. key: uint32 [2].
    """
    with one_thread():
        model = Network(weights, rates, getattr(torch, dtype))
        optimizer_ = OPTIMIZERS[optimizer](model.parameters())
        x, y = torch.tensor(images, dtype=getattr(torch, dtype)), torch.tensor(labels)
        losses = []
        for step in range(steps):
            loss = update(model, optimizer_, x, y, droppath.fold_in(key, step))
            losses.append(loss.item())
    return losses


@contextmanager
def one_thread() -> Iterator[None]:
    """Within the block, compute in one thread: tensors this small make others wait for seconds."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def update(
    model: "Network", optimizer: optim.Optimizer, x: Tensor, y: Tensor, key: Array
) -> Tensor:
    """Return the loss, and take one step; by KEY-7, layer l draws from fold_in(key, l)."""
    with keyed(model, key):
        loss = nn.functional.cross_entropy(model(x), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss


class Network(nn.Module):
    """Pre-LayerNorm blocks of an attention and an MLP branch, each with a DropPath of its own."""

    def __init__(self, weights: dict[str, Array], rates: list[float], dtype: torch.dtype) -> None:
        super().__init__()
        tensors = {name: torch.tensor(w, dtype=dtype) for name, w in weights.items()}
        self.weights = nn.ParameterDict(tensors)
        self.drop_paths = nn.ModuleList([DropPath(p) for p in rates])

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits [B, K] of images [B, T, C]."""
        w = self.weights
        x = images @ w["embed"] + w["position"]  # [B, T, D]
        for layer, drop_path in enumerate(self.drop_paths):
            branch, block = (mlp if layer % 2 else attention), layer // 2
            h = layer_norm(x, w["norm_scale"][layer], w["norm_shift"][layer])
            x = x + drop_path(branch(h, w, block))
        h = layer_norm(x, w["norm_scale"][-1], w["norm_shift"][-1])
        return h.mean(1) @ w["head"] + w["head_bias"]


def layer_norm(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Return (x - mean) / sqrt(variance + 1e-5) * scale + shift over the last axis."""
    return nn.functional.layer_norm(x, x.shape[-1:], scale, shift, eps=1e-5)


def attention(x: Tensor, w: nn.ParameterDict, block: int) -> Tensor:
    """Return softmax(q k' / sqrt(d)) v out of x: [B, T, D]; d = D / HEADS."""
    batch, tokens, width = x.shape
    qkv = (x @ w["qkv"][block]).reshape(batch, tokens, 3, HEADS, -1)
    q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each [B, HEADS, T, d]
    y = nn.functional.scaled_dot_product_attention(q, k, v)
    y = y.swapaxes(1, 2).reshape(batch, tokens, width)
    return y @ w["out"][block] + w["out_bias"][block]


def mlp(x: Tensor, w: nn.ParameterDict, block: int) -> Tensor:
    """Return gelu(x up) down: [B, T, D]; gelu with erf."""
    h = nn.functional.gelu(x @ w["up"][block] + w["up_bias"][block])
    return h @ w["down"][block] + w["down_bias"][block]
