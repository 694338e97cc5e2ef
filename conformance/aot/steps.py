"""The steps of examples.train_flax to compile: the very call that trains, for other devices.

Networks as the presets have them but for their depth, in bfloat16, each device with its own part of
the batch; the data are shapes alone. Not here: single blocks.
"""

import dataclasses
from collections.abc import Iterator
from functools import partial
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import AxisType

from conformance.aot.program import Program
from conformance.aot.targets import Target
from examples.train_flax import step
from examples.train_flax.config import Config
from examples.train_flax.data import Images
from examples.train_flax.devices import shardings
from examples.train_flax.presets import PRESETS

SHARE = 500  # images of one device: more than a TPU holds on its chip; of a vit's group half run
STEPS = 1  # in one call: the images lie whole on each device, enough for all
IMAGE, CLASSES = (32, 32, 3), 10
DROP_PROB = 0.5  # of each of the vit's branches
PLANNED = 0.5  # of a vit's layers, whose rates are DROP_PROB, two of four run


def steps(devices: int) -> Iterator[Program]:
    """Yield the programs for so many devices."""
    own: dict[str, Any] = {"dtype": "bfloat16", "batch": SHARE * devices}
    split: dict[str, Any] = {
        "depth": 2,
        "groups": devices,
        "drop_path_rate": DROP_PROB,
        "rule": "uniform",
    }
    vit = dataclasses.replace(PRESETS["vit"], **own, **split)
    resnet = dataclasses.replace(PRESETS["resnet110"], **own, depth=8)
    for cfg in (vit, resnet, dataclasses.replace(resnet, network="preresnet")):
        masked, rows = f"{cfg.network} step, masked", DROP_PROB if cfg is vit else None
        yield _of_step(masked, dataclasses.replace(cfg, skip=False), masked)
        yield _of_step(f"{cfg.network} step, {cfg.mode}", cfg, masked, masked, rows)
    closed = dataclasses.replace(vit, mode="batch")
    yield _of_step("vit step, batch", closed, "vit step, masked", "vit step, masked")
    for cfg in (dataclasses.replace(vit, depth=4), dataclasses.replace(resnet, depth=20)):
        cfg = dataclasses.replace(cfg, mode="plan", rule="uniform", scale_at="train")
        name, share = f"{cfg.network} step, ", PLANNED if cfg.network == "vit" else None
        full = f"{name}all layers"
        yield _of_step(full, dataclasses.replace(cfg, drop_path_rate=0.0), full)
        planned = dataclasses.replace(cfg, drop_path_rate=DROP_PROB)
        yield _of_step(f"{name}a plan", planned, full, full, share)


def _of_step(name: str, cfg: Config, *beside: Any) -> Program:
    here = jax.make_mesh((1,), ("data",), (AxisType.Auto,))
    leaves = jax.tree.leaves(step.abstract_state(run_on(here, cfg), data_of(cfg)))
    state = sum(leaf.size * leaf.dtype.itemsize for leaf in leaves)
    loops = cfg.mode == "plan"
    return Program(name, partial(lower, cfg), SHARE, *beside)._replace(state=state, loops=loops)


def lower(cfg: Config, target: Target) -> jax.stages.Lowered:
    """Return STEPS steps of a run for a target, not yet compiled."""
    mesh = target.mesh(AxisType.Auto)
    run, images = run_on(mesh, cfg), data_of(cfg).train
    state = step.abstract_state(run, data_of(cfg))
    train = jax.tree.map(
        lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
        images,
        shardings(mesh, images),
    )
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
        seed = step.seed_key(cfg)
        return step.train_steps.lower(run, STEPS, state, train, jnp.int32(1), seed)


def run_on(mesh: Any, cfg: Config) -> step.Run:
    """Return a run on a mesh that need not be there."""
    graphdef = nnx.graphdef(nnx.eval_shape(partial(step.network, cfg, data_of(cfg))))
    return step.Run(cfg, graphdef, mesh, cfg.fsdp, STEPS)


def data_of(cfg: Config) -> Any:
    """Return the shapes of as many images as STEPS steps take."""
    count, number = STEPS * cfg.batch, jax.ShapeDtypeStruct((), np.float32)
    pixels = jax.ShapeDtypeStruct((count, *IMAGE), np.uint8)
    labels = jax.ShapeDtypeStruct((count,), np.int32)
    return SimpleNamespace(train=Images(pixels, labels, number, number), classes=CLASSES)
