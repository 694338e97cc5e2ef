"""The network of parity training, trained in JAX; line by line beside torch.py.

The optimizers are optax's own, the masks those of droppath_flax.DropPath with a key a layer.
"""

import math

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax import Array as Tensor

from conformance.protocol import Array
from droppath_flax import DropPath

HEADS = 2
OPTIMIZERS = {
    "sgd": optax.sgd(0.03, momentum=0.9),
    "adamw": optax.adamw(0.003, b1=0.9, b2=0.999, eps=1e-8, weight_decay=0.01),
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
    with jax.enable_x64(dtype == "float64"), jax.default_device(jax.devices("cpu")[0]):
        model = Network(weights, rates, dtype)
        optimizer_ = nnx.Optimizer(model, OPTIMIZERS[optimizer], wrt=nnx.Param)
        x, y = jnp.asarray(images, dtype), jnp.asarray(labels)
        losses = []
        for step in range(steps):
            loss = update(model, optimizer_, x, y, layer_keys(key, step, len(rates)))
            losses.append(loss.item())
    return losses


def layer_keys(key: Array, step: int, layers: int) -> list[Tensor]:
    """Return KEY-7's fold_in(fold_in(key, step), l) of each layer l."""
    of_step = jax.random.fold_in(
        jax.random.wrap_key_data(jnp.asarray(key), impl="threefry2x32"), step
    )
    return [jax.random.fold_in(of_step, layer) for layer in range(layers)]


@nnx.jit
def update(
    model: "Network", optimizer: nnx.Optimizer, x: Tensor, y: Tensor, keys: list[Tensor]
) -> Tensor:
    """Return the loss, and take one step."""

    def loss_of(model: Network) -> Tensor:
        return optax.softmax_cross_entropy_with_integer_labels(model(x, keys), y).mean()

    loss, gradients = nnx.value_and_grad(loss_of)(model)
    optimizer.update(model, gradients)
    return loss


class Network(nnx.Module):
    """Pre-LayerNorm blocks of an attention and an MLP branch, each with a DropPath of its own."""

    def __init__(self, weights: dict[str, Array], rates: list[float], dtype: str) -> None:
        tensors = {name: nnx.Param(jnp.asarray(w, dtype)) for name, w in weights.items()}
        self.weights = nnx.Dict(tensors)
        self.drop_paths = nnx.List([DropPath(p) for p in rates])

    def __call__(self, images: Tensor, keys: list[Tensor]) -> Tensor:
        """Return the logits [B, K] of images [B, T, C]; layer l draws from keys[l]."""
        w = {name: param[...] for name, param in self.weights.items()}
        x = images @ w["embed"] + w["position"]  # [B, T, D]
        for layer, drop_path in enumerate(self.drop_paths):
            branch, block = (mlp if layer % 2 else attention), layer // 2
            h = layer_norm(x, w["norm_scale"][layer], w["norm_shift"][layer])
            x = x + drop_path(branch(h, w, block), key=keys[layer])
        h = layer_norm(x, w["norm_scale"][-1], w["norm_shift"][-1])
        return h.mean(1) @ w["head"] + w["head_bias"]


def layer_norm(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Return (x - mean) / sqrt(variance + 1e-5) * scale + shift over the last axis."""
    centred = x - x.mean(-1, keepdims=True)
    variance = (centred * centred).mean(-1, keepdims=True)  # not E[x^2] - E[x]^2, which cancels
    return centred / jnp.sqrt(variance + 1e-5) * scale + shift


def attention(x: Tensor, w: dict[str, Tensor], block: int) -> Tensor:
    """Return softmax(q k' / sqrt(d)) v out of x: [B, T, D]; d = D / HEADS."""
    batch, tokens, width = x.shape
    qkv = (x @ w["qkv"][block]).reshape(batch, tokens, 3, HEADS, -1)
    q, k, v = qkv.transpose(2, 0, 3, 1, 4)  # each [B, HEADS, T, d]
    # not jax.nn.dot_product_attention: it takes the softmax in float32, whatever the dtype
    y = jax.nn.softmax(q @ k.swapaxes(2, 3) / math.sqrt(q.shape[-1])) @ v
    y = y.swapaxes(1, 2).reshape(batch, tokens, width)
    return y @ w["out"][block] + w["out_bias"][block]


def mlp(x: Tensor, w: dict[str, Tensor], block: int) -> Tensor:
    """Return gelu(x up) down: [B, T, D]; gelu with erf, not the tanh that is JAX's default."""
    h = jax.nn.gelu(x @ w["up"][block] + w["up_bias"][block], approximate=False)
    return h @ w["down"][block] + w["down_bias"][block]
