"""`python -m examples.ported_vit`: a ViT of timm and the same one in Flax, trained side by side.

What it takes to port a model and get the same numbers: the weights by their names, and one `keyed`
on each side. Both start from timm's weights, see the same images of scikit-learn's digits, drop the
same paths and do not compute them, so that in float64 their losses differ by rounding alone. Needs
timm. Not here: dropout of another kind, which no key makes equal.

Source: Dosovitskiy et al. 2021, arXiv 2010.11929; the names are those of timm's VisionTransformer.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
from flax import nnx
from numpy.typing import NDArray
from sklearn.datasets import load_digits

import droppath
import droppath_flax
import droppath_torch

SIZE, PATCH, WIDTH, DEPTH, HEADS, CLASSES = 8, 4, 64, 4, 4, 10
RATES = droppath.drop_path_rates(0.3, DEPTH)  # one for each block, as timm has it
KEY, BATCH, STEPS = droppath.key(2), 32, 50
LEARNING_RATE = 1e-3  # of Adam
EPS = 1e-6  # of timm's LayerNorms


class Attention(nnx.Module):
    """[n, tokens, width] -> the same."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.qkv = nnx.Linear(WIDTH, 3 * WIDTH, rngs=rngs)
        self.proj = nnx.Linear(WIDTH, WIDTH, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        qkv = self.qkv(x).reshape(*x.shape[:2], 3, HEADS, -1)
        q, k, v = qkv.transpose(2, 0, 3, 1, 4)  # [n, heads, tokens, width / heads]
        weights = jax.nn.softmax(q @ k.mT * q.shape[-1] ** -0.5)  # jax.nn's own is in float32
        return self.proj((weights @ v).swapaxes(1, 2).reshape(x.shape))


class Mlp(nnx.Module):
    """[n, tokens, width] -> the same."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.fc1 = nnx.Linear(WIDTH, 4 * WIDTH, rngs=rngs)
        self.fc2 = nnx.Linear(4 * WIDTH, WIDTH, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.fc2(nnx.gelu(self.fc1(x), approximate=False))


class Block(nnx.Module):
    """[n, tokens, width] -> the same: two residual branches, each with a DropPath of its own."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.norm1 = nnx.LayerNorm(WIDTH, epsilon=EPS, rngs=rngs)
        self.attn = Attention(rngs)
        self.drop_path1 = droppath_flax.DropPath(mode="balanced")
        self.norm2 = nnx.LayerNorm(WIDTH, epsilon=EPS, rngs=rngs)
        self.mlp = Mlp(rngs)
        self.drop_path2 = droppath_flax.DropPath(mode="balanced")

    def __call__(self, x: jax.Array) -> jax.Array:
        x = x + self.drop_path1(self.attn(self.norm1(x)))
        return x + self.drop_path2(self.mlp(self.norm2(x)))


class ViT(nnx.Module):
    """images [B, 8, 8, 1] -> logits [B, 10], with timm's names."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        square = (PATCH, PATCH)
        self.patch_embed = nnx.Dict(proj=nnx.Conv(1, WIDTH, square, strides=square, rngs=rngs))
        self.cls_token = nnx.Param(jnp.zeros((1, 1, WIDTH)))
        self.pos_embed = nnx.Param(jnp.zeros((1, (SIZE // PATCH) ** 2 + 1, WIDTH)))
        self.blocks = nnx.List([Block(rngs) for _ in range(DEPTH)])
        self.norm = nnx.LayerNorm(WIDTH, epsilon=EPS, rngs=rngs)
        self.head = nnx.Linear(WIDTH, CLASSES, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = self.patch_embed.proj(x).reshape(len(x), -1, WIDTH)
        x = jnp.concatenate([jnp.tile(self.cls_token[...], (len(x), 1, 1)), x], axis=1)
        x = x + self.pos_embed[...]
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x)[:, 0])


def load_weights(model: ViT, weights: Mapping[str, NDArray[Any]]) -> None:
    """Give the Flax model the weights of a state dict of timm's, by their names."""
    left = dict(weights)
    for path, leaf in nnx.to_flat_state(nnx.state(model, nnx.Param)):
        names = {"kernel": "weight", "scale": "weight"}
        name = ".".join(map(str, [*path[:-1], names.get(str(path[-1]), path[-1])]))
        if name not in left:
            raise ValueError(f"weights must have {name}, got none")
        value = left.pop(name)
        if path[-1] == "kernel":  # [out, in, ...] -> [..., in, out]
            value = np.moveaxis(value, (0, 1), (-1, -2))
        leaf.set_value(jnp.asarray(value))
    if left:
        raise ValueError(f"weights must be those of the model, got {', '.join(left)} too")


class Batches(NamedTuple):
    """Images [steps, B, 8, 8, 1] in [-1, 1] and labels [steps, B]."""

    images: NDArray[np.float64]
    labels: NDArray[np.int64]


def batches(steps: int) -> Batches:
    """Return the same batches for both."""
    digits = load_digits()
    order = np.random.default_rng(0).integers(0, len(digits.target), (steps, BATCH))
    return Batches(digits.images[order][..., None] / 8 - 1, digits.target[order])


def train_torch(model: torch.nn.Module, data: Batches) -> NDArray[np.float64]:
    """Train a PyTorch model whose DropPaths are ours; return the loss of each step."""
    optimizer = torch.optim.Adam(model.parameters(), LEARNING_RATE)
    losses = []
    for step, (images, labels) in enumerate(zip(*map(torch.from_numpy, data), strict=True)):
        with droppath_torch.keyed(model, droppath.fold_in(KEY, step)):
            logits = model(images.movedim(-1, 1))
            loss = torch.nn.functional.cross_entropy(logits, labels)
            optimizer.zero_grad()
            loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return np.array(losses)


def train_flax(model: ViT, data: Batches) -> NDArray[np.float64]:
    """Train the Flax model; return the loss of each step."""
    optimizer = nnx.Optimizer(model, optax.adam(LEARNING_RATE), wrt=nnx.Param)

    @nnx.jit
    def train_step(
        model: ViT, optimizer: Any, images: jax.Array, labels: jax.Array, key: jax.Array
    ) -> jax.Array:
        def loss_of(model: ViT) -> jax.Array:
            with droppath_flax.keyed(model, key):
                logits = model(images)
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

        loss, grads = nnx.value_and_grad(loss_of)(model)
        optimizer.update(model, grads)
        return loss

    losses = []
    for step, (images, labels) in enumerate(zip(*map(jnp.asarray, data), strict=True)):
        key = jnp.asarray(droppath.fold_in(KEY, step))
        losses.append(float(train_step(model, optimizer, images, labels, key)))
    return np.array(losses)


def train_both(theirs: torch.nn.Module, steps: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Train a ViT of timm's form and the same in Flax; return the losses of both, [steps]."""
    data, example = batches(steps), batches(1).images[0]
    droppath_torch.convert(theirs.double(), mode="balanced")  # and what stands for a rate of 0
    droppath_torch.set_drop_probs(theirs.train(), RATES)
    droppath_torch.skip_dropped(theirs, torch.from_numpy(example).movedim(-1, 1))
    weights = {name: value.numpy().copy() for name, value in theirs.state_dict().items()}
    with jax.enable_x64(True):
        ours = ViT(nnx.Rngs(0))
        load_weights(ours, weights)
        droppath_flax.set_drop_probs(ours, RATES)
        droppath_flax.skip_dropped(ours, jnp.asarray(example))
        return train_torch(theirs, data), train_flax(ours, data)


def timm_vit() -> torch.nn.Module:
    """Return timm's VisionTransformer of this size."""
    from timm.models.vision_transformer import VisionTransformer

    return VisionTransformer(
        img_size=SIZE,
        patch_size=PATCH,
        in_chans=1,
        num_classes=CLASSES,
        embed_dim=WIDTH,
        depth=DEPTH,
        num_heads=HEADS,
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Train both, print a table of the losses."""
    parser = argparse.ArgumentParser("python -m examples.ported_vit")
    parser.add_argument("--steps", type=int, default=STEPS)
    steps = parser.parse_args(argv).steps
    if steps < 1:
        parser.error(f"--steps must be at least 1, got {steps}")
    torch.manual_seed(0)
    try:
        theirs = timm_vit()
    except ModuleNotFoundError as error:
        print(f"examples.ported_vit needs {error.name}: pip install timm", file=sys.stderr)
        return 2
    losses = train_both(theirs, steps)
    print("step  timm            Flax            relative difference")
    for step, (a, b) in enumerate(zip(*losses, strict=True)):
        if step % 10 == 0 or step == steps - 1:
            print(f"{step:4}  {a:.12f}  {b:.12f}  {abs(a - b) / a:.1e}")
    print(f"largest of {steps} steps: {(abs(losses[0] - losses[1]) / losses[0]).max():.1e}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
