"""`python -m examples.train_torch`: the PyTorch twin of the Flax example, on the same digits.

The network ("preresnet"), the recipe and the data are those of `python -m examples.train_flax`, and
so are order, shifts and masks: they come from the same Threefry keys, bit for bit, without JAX.
Only the initial weights are PyTorch's own; `--weights` starts from given ones, and from that
program's only rounding sets the losses apart (twins.py measures it). Not here: the other networks
and options of `Config`, checkpoints, pictures, and any device but the CPU.

Source: examples/train_flax/resnet.py and step.py, beside which this can be read line by line.
"""

import argparse
import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn, optim
from torch.nn.functional import avg_pool2d, cross_entropy, pad, relu

import droppath
from droppath.random import Words
from droppath_torch import DropPathResidual, keyed
from examples.train_flax.config import STREAMS, Config
from examples.train_flax.data import Images, load
from examples.train_flax.presets import PRESETS


def main(argv: Sequence[str] | None = None) -> None:
    """Train as the command line says; print a line an epoch, and the last test error."""
    default, parser = PRESETS["digits"], argparse.ArgumentParser("python -m examples.train_torch")
    parser.add_argument("--epochs", type=int, default=default.epochs)
    parser.add_argument("--steps", type=int, help="stop after so many of the same schedule")
    parser.add_argument("--seed", type=int, default=default.seed)
    parser.add_argument("--drop-path-rate", type=float, default=default.drop_path_rate)
    parser.add_argument("--weights", type=Path, metavar="FILE.npz", help="start from these")
    parser.add_argument("--losses", type=Path, metavar="FILE.csv", help="write each step's loss")
    given = vars(parser.parse_args(argv))
    weights, losses_file = given.pop("weights"), given.pop("losses")
    try:
        cfg = dataclasses.replace(default, **given)
        data = load(cfg)
        model = ResNet(cfg, data.train.pixels.shape[-1], data.classes)
        if weights:
            load_weights(model, np.load(weights, allow_pickle=False))
    except (OSError, ValueError) as error:
        parser.error(str(error))
    torch.set_num_threads(1)  # images this small make other threads wait, the longer the more run
    losses, steps = [], steps_an_epoch(cfg, data.train)
    for step, loss in enumerate(train(cfg, model, data.train), 1):
        losses.append(loss)
        if step % steps == 0:
            mean, wrong = np.mean(losses[-steps:]), evaluate(model, data.test)
            print(f"epoch {step // steps}: training loss {mean:.4f}, test error {wrong:.1%}")
    print(f"test error {evaluate(model, data.test):.1%} after {len(losses)} steps")
    if losses_file:
        lines = [f"{step},{loss}\n" for step, loss in enumerate(losses, 1)]
        losses_file.write_text("".join(["step,loss\n", *lines]))


def load_weights(model: nn.Module, weights: Mapping[str, NDArray[Any]]) -> None:
    """Set model's parameters to weights, named by their paths in Flax: "stem/kernel", ...

    A kernel is [..., c_in, c_out] in Flax, [c_out, c_in, ...] in PyTorch. Raises: ValueError unless
    the names are those of model's parameters.
    """
    state = {}
    for path, array in weights.items():
        module, _, leaf = path.replace("/", ".").rpartition(".")
        moved = np.moveaxis(array, (-1, -2), (0, 1)) if leaf == "kernel" else array
        state[f"{module}.{'bias' if leaf == 'bias' else 'weight'}"] = torch.tensor(moved)
    if differing := state.keys() ^ dict(model.named_parameters()).keys():
        raise ValueError(f"weights must be the network's own, got a difference in {differing}")
    model.load_state_dict(state, strict=False)  # running statistics stay 0 and 1


def steps_an_epoch(cfg: Config, images: Images) -> int:
    return len(images.labels) // cfg.batch


def train(cfg: Config, model: nn.Module, images: Images) -> Iterator[float]:
    """Take the steps of cfg one by one, giving each one's loss."""
    total = cfg.epochs * steps_an_epoch(cfg, images)
    optimizer = optim.SGD(  # adds the decay to the gradient first, as the chain of optax does
        model.parameters(), cfg.learning_rate, cfg.momentum,
        weight_decay=cfg.weight_decay, nesterov=True,
    )  # fmt: skip
    cosine = optim.lr_scheduler.CosineAnnealingLR(optimizer, total)
    for step in range(min(cfg.steps or total, total)):
        x, labels = (torch.from_numpy(array) for array in batch(cfg, images, step))
        model.train()
        with keyed(model, droppath.fold_in(stream(cfg, "masks"), step)):  # layer l: fold_in(_, l)
            loss = cross_entropy(model(x), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        cosine.step()
        yield loss.item()


def stream(cfg: Config, name: str) -> Words:
    """The Threefry key of one use of randomness: fold_in(key(seed), place in STREAMS)."""
    return droppath.fold_in(droppath.key(cfg.seed), STREAMS.index(name))


def batch(cfg: Config, images: Images, step: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return the images of a step, shifted and standardised, [B, C, H, W], and labels [B]."""
    epoch, place = divmod(step, steps_an_epoch(cfg, images))
    order_key = droppath.fold_in(stream(cfg, "order"), epoch + 1)  # epochs count from 1
    rows = permutation(order_key, len(images.labels))[place * cfg.batch :][: cfg.batch]
    (_, h, w, _), most = images.pixels.shape, cfg.shift
    padded = np.pad(images.pixels[rows], ((0, 0), (most, most), (most, most), (0, 0)))  # black
    shift_key = droppath.fold_in(stream(cfg, "shifts"), step)
    corner = randint(shift_key, 2 * cfg.batch, 2 * most + 1).reshape(-1, 2)
    y, x = corner[:, :1] + np.arange(h), corner[:, 1:] + np.arange(w)  # [B, H], [B, W]
    shifted = padded[np.arange(cfg.batch)[:, None, None], y[:, :, None], x[:, None, :]]
    return standardise(shifted, images), images.labels[rows].astype(np.int64)


def permutation(key: Words, num: int) -> NDArray[np.int64]:
    """Return 0, ..., num - 1 shuffled as jax.random.permutation(key, num): int64 [num]."""
    order = np.arange(num)
    for _ in range(math.ceil(3 * math.log(num) / math.log(2**32 - 1))):
        key, subkey = droppath.split(key)
        order = order[np.argsort(droppath.random_bits(subkey, num), kind="stable")]
    return order


def randint(key: Words, num: int, below: int) -> NDArray[np.int64]:
    """Return num integers in [0, below) as jax.random.randint(key, (num,), 0, below): int64 [num].

    below: at most 2**16, beyond which a product of JAX's wraps.
    """
    high, low = (droppath.random_bits(half, num).astype(np.int64) for half in droppath.split(key))
    return (high % below * (2**32 % below) + low) % below


def standardise(pixels: NDArray[np.uint8], images: Images) -> NDArray[np.float32]:
    """Return pixels [B, H, W, C] as (pixels - mean) / std: [B, C, H, W]."""
    x = (pixels.astype(np.float32) - images.mean) / images.std
    return np.ascontiguousarray(np.moveaxis(x, -1, 1))


def evaluate(model: nn.Module, test: Images) -> float:
    """Return the share of images that are wrong, no sample dropped."""
    model.eval()
    with torch.inference_mode():
        logits = model(torch.from_numpy(standardise(test.pixels, test)))
    return float((logits.argmax(-1).numpy() != test.labels).mean())


class ResNet(nn.Module):
    """images [B, C, H, W] -> logits [B, classes]; initial weights from cfg.seed."""

    def __init__(self, cfg: Config, channels: int, classes: int):
        super().__init__()
        if cfg.ramps:
            raise ValueError(f"ramp must be 'none', got {cfg.ramp!r}: the twin's rates stay")
        rates = droppath.drop_path_rates(cfg.drop_path_rate, (cfg.depth - 2) // 2, rule=cfg.rule)
        self.stem = conv3x3(channels, cfg.width, 1)
        self.blocks, c_in = nn.ModuleList(), cfg.width
        for layer, drop_prob in enumerate(rates):
            stage, first = divmod(layer, len(rates) // 3)
            c_out, stride = cfg.width * 2**stage, 2 if stage and not first else 1
            self.blocks.append(Block(c_in, c_out, stride, drop_prob, cfg))
            c_in = c_out
        self.norm, self.head = BatchNorm(c_in), nn.Linear(c_in, classes)
        generator = torch.Generator().manual_seed(cfg.seed)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", generator=generator)
        nn.init.normal_(self.head.weight, std=c_in**-0.5, generator=generator)
        nn.init.zeros_(self.head.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x.to(self.stem.weight.dtype))  # [B, width, H, W]
        for block in self.blocks:
            x = block(x)
        return self.head(relu(self.norm(x)).mean((2, 3)))  # [B, classes]


class Block(nn.Module):
    """x -> shortcut(x) + drop_path(branch(x)); [B, c_in, H, W] -> [B, c_out, H', W']."""

    def __init__(self, c_in: int, c_out: int, stride: int, drop_prob: float, cfg: Config):
        super().__init__()
        self.c_out, self.stride = c_out, stride
        self.residual = DropPathResidual(
            PreActivationBranch(c_in, c_out, stride),
            drop_prob,
            mode=cfg.drop_mode,
            skip=False,  # BatchNorm sees the rows that run: all of them
        )

    def forward(self, x: Tensor) -> Tensor:
        y = avg_pool2d(x, self.stride) if self.stride > 1 else x
        y = pad(y, (0, 0, 0, 0, 0, self.c_out - y.shape[1]))  # with zero channels
        return self.residual(y, x)


class PreActivationBranch(nn.Module):
    """x -> BN, ReLU, conv, BN, ReLU, conv; what comes first, the shortcut of x, is not used."""

    def __init__(self, c_in: int, c_out: int, stride: int):
        super().__init__()
        self.norm1, self.conv1 = BatchNorm(c_in), conv3x3(c_in, c_out, stride)
        self.norm2, self.conv2 = BatchNorm(c_out), conv3x3(c_out, c_out, 1)

    def forward(self, _: Tensor, x: Tensor) -> Tensor:
        f = self.conv1(relu(self.norm1(x)))
        return self.conv2(relu(self.norm2(f)))


def conv3x3(c_in: int, c_out: int, stride: int) -> nn.Conv2d:
    return nn.Conv2d(c_in, c_out, 3, stride, padding=1, bias=False)


class BatchNorm(nn.BatchNorm2d):
    """PyTorch's, with Flax's running variance: biased, sum / n where PyTorch takes sum / (n - 1).

    Epsilon 1e-5 is the default of both; momentum 0.1 here is 0.9 there.
    """

    running_var: Tensor

    def forward(self, x: Tensor) -> Tensor:
        old = 0.9 * self.running_var
        y = super().forward(x)  # in training, running_var = old + 0.1 sum / (n - 1)
        if self.training:  # not in place, since autograd keeps running_var
            self.running_var = self.running_var.lerp(old, x.shape[1] / x.numel())  # 1 / n
        return y


if __name__ == "__main__":
    main()
