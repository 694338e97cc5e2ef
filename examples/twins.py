"""`python -m examples.twins`: the Flax example and its PyTorch twin, trained side by side.

Both start from the Flax network's weights and draw the same batches and masks, so only rounding
sets their losses apart. In float32 it soon does: where an activation rounds to the other side of
ReLU's kink, its gradient is there in one program and 0 in the other, and each such change makes
more. How soon is no fault of either: a third run, the PyTorch twin with one weight changed to the
next float32, shows it. That both compute the same is seen in float64, without shifts. Files, in
`--run-dir`: weights.npz (for train_torch's `--weights`), losses.csv, twins.png. Not here: a
tolerance; twins_test.py has one.
"""

import argparse
import dataclasses
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias, cast, get_args

import jax
import jax.numpy as jnp
import numpy as np
import torch
from flax import nnx
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from examples import train_torch
from examples.train_flax.config import Config, DType
from examples.train_flax.data import Data, load
from examples.train_flax.model import layer_rates, title
from examples.train_flax.presets import PRESETS
from examples.train_flax.resnet import ResNet
from examples.train_flax.step import begin, evaluate, fresh_state, train_epoch

Array: TypeAlias = NDArray[Any]
Weights: TypeAlias = dict[str, Any]

PAIRS = {  # runs that differ by rounding alone
    "float32, PyTorch and JAX": ("torch", "jax"),
    "float32, PyTorch and itself, one weight off by one rounding": ("torch", "torch_nudged"),
    "float64, PyTorch and JAX": ("torch_float64", "jax_float64"),
}
COLOURS = "#0072B2", "#E69F00", "#009E73"  # Okabe and Ito 2008, jfly.uni-koeln.de/color


class Trained(NamedTuple):
    """What a run came to: the loss of each step, float64 [steps], and the test error."""

    losses: Array
    error: float


def main(argv: Sequence[str] | None = None) -> None:
    """Train all, print a line a pair, write the files."""
    default, parser = PRESETS["digits"], argparse.ArgumentParser("python -m examples.twins")
    parser.add_argument("--steps", type=int, help="stop after so many; by default all 600")
    parser.add_argument("--seed", type=int, default=default.seed)
    parser.add_argument("--run-dir", default="runs/twins", help="folder for what is written")
    try:
        cfg = dataclasses.replace(default, devices=1, **vars(parser.parse_args(argv)))
    except ValueError as error:
        parser.error(str(error))
    jax.config.update("jax_default_matmul_precision", "highest")  # a GPU's float32 is less
    folder = Path(cfg.run_dir)
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)  # as train_torch's main
    weights, runs = train_all(cfg)
    for name, (a, b) in PAIRS.items():
        gaps = differences(runs[a], runs[b])
        steps = ", ".join(f"{t:g} for {agreeing_steps(gaps, t)}" for t in (1e-12, 1e-3, 1e-2))
        errors = f"{runs[a].error:.1%} and {runs[b].error:.1%}"
        print(f"{name}: of {len(gaps)} steps, within {steps}; test error {errors}")
    np.savez(folder / "weights.npz", **weights)
    losses = np.stack([np.arange(1, len(gaps) + 1), *(run.losses for run in runs.values())], 1)
    head, formats = ",".join(["step", *runs]), ["%d"] + ["%.17g"] * len(runs)
    np.savetxt(folder / "losses.csv", losses, formats, ",", header=head, comments="")
    draw(cfg, runs, folder / "twins.png")


def differences(one: Trained, other: Trained) -> Array:
    """Return |a - b| / |a| at each step, a and b the losses."""
    return np.abs(one.losses - other.losses) / np.abs(one.losses)


def agreeing_steps(gaps: Array, tolerance: float) -> int:
    """Return how many steps come before the first difference above tolerance, or NaN."""
    return int(np.append(~(gaps <= tolerance), True).argmax())


def train_all(cfg: Config) -> tuple[Weights, dict[str, Trained]]:
    """Return the initial weights, and the runs that PAIRS names."""
    data, runs = load(cfg), {}
    weights, runs["jax"] = train_flax(cfg, data)
    runs["torch"] = train_twin(cfg, data, weights)
    nudged = weights | {"stem/kernel": nudge(weights["stem/kernel"])}
    runs["torch_nudged"] = train_twin(cfg, data, nudged)
    # In its 64-bit mode JAX draws other shifts: here there are none.
    wide = dataclasses.replace(cfg, dtype=cast(Any, "float64"), shift=0)
    with jax.enable_x64(True):
        wide_weights, runs["jax_float64"] = train_flax(wide, data)
    runs["torch_float64"] = train_twin(wide, data, wide_weights)
    return weights, runs


def nudge(array: Array) -> Array:
    """Return array with its first number changed to the next larger one."""
    nudged = array.copy()
    nudged.flat[0] = np.nextafter(nudged.flat[0], nudged.dtype.type(np.inf))
    return nudged


def train_flax(cfg: Config, data: Data) -> tuple[Weights, Trained]:
    """Return the initial weights by their paths, "stem/kernel", ..., and what came of them."""
    run, placed = begin(cfg, data)
    state = fresh_state(run, placed)
    if cfg.dtype not in get_args(DType):  # float64
        build = partial(WideResNet, cfg, layer_rates(cfg), data.train.pixels.shape[-1])
        shapes = nnx.eval_shape(lambda: build(data.classes, nnx.Rngs(0)))
        run, state = run._replace(graphdef=nnx.graphdef(shapes)), jax.tree.map(widened, state)
    paths = nnx.to_flat_state(state.params)
    weights = {"/".join(map(str, path)): np.array(leaf[...]) for path, leaf in paths}
    losses = []
    for epoch in range(1, run.epochs + 1):
        state, of_epoch = train_epoch(run, state, placed.train, epoch)
        losses.append(np.asarray(of_epoch, np.float64))
    return weights, Trained(np.concatenate(losses), float(evaluate(run, state, placed.test)[0]))


class WideResNet(ResNet):
    """The example's "preresnet", its head in cfg.dtype too, where the example's is in float32."""

    def __call__(self, x: jax.Array, *, key: jax.Array | None = None) -> jax.Array:
        x = self.stem(x.astype(self.dtype))
        for layer, block in enumerate(self.blocks):
            x = block(x, key=None if key is None else jax.random.fold_in(key, layer))
        return self.head(nnx.relu(self.norm(x)).mean((1, 2)))


def widened(leaf: jax.Array) -> jax.Array:
    return leaf.astype(jnp.float64) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf


def train_twin(cfg: Config, data: Data, weights: Weights) -> Trained:
    """Return what came of the PyTorch twin in cfg.dtype, from these weights."""
    model = train_torch.ResNet(cfg, data.train.pixels.shape[-1], data.classes)
    model.to(getattr(torch, cfg.dtype))
    train_torch.load_weights(model, weights)
    losses = np.array(list(train_torch.train(cfg, model, data.train)))
    return Trained(losses, train_torch.evaluate(model, data.test))


def draw(cfg: Config, runs: Mapping[str, Trained], path: Path) -> None:
    """Draw the losses of each dtype, one upon the other, and below the differences of all PAIRS."""
    figure = Figure(figsize=(9, 6.5), dpi=150, layout="constrained")
    figure.suptitle(f"{title(cfg)}, drop_path_rate {cfg.drop_path_rate:g}: two programs, one run")
    panels = figure.subplot_mosaic([["float32", "float64"], ["gaps", "gaps"]])
    panels["float64"].sharey(panels["float32"])
    notes = {"float32": "", "float64": ", without shifts"}
    for (dtype, note), ending in zip(notes.items(), ("", "_float64"), strict=True):
        _curve(panels[dtype], runs["torch" + ending].losses, "#f4a582", 3, "PyTorch")
        _curve(panels[dtype], runs["jax" + ending].losses, COLOURS[0], 0.8, "JAX")
        panels[dtype].set_title(
            f"training loss (nats), {dtype}{note}", loc="left", fontsize="medium"
        )
    for (name, (a, b)), colour in zip(PAIRS.items(), COLOURS, strict=True):
        gaps = differences(runs[a], runs[b])
        _curve(panels["gaps"], np.where(gaps > 0, gaps, np.nan), colour, 1, name)  # 0 is a hole
    panels["gaps"].set_title("relative difference of the losses", loc="left", fontsize="medium")
    for axes in panels.values():
        axes.set_xlabel("training step")
        axes.legend(frameon=False)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path)


def _curve(axes: Axes, values: Array, colour: str, width: float, label: str) -> None:
    steps = np.arange(1, len(values) + 1)
    axes.semilogy(steps, values, color=colour, linewidth=width, label=label)


if __name__ == "__main__":
    main()
