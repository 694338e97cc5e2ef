"""One training step, a whole epoch of them in one compiled call, and evaluation.

Everything random is a pure function of (cfg.seed, epoch, step): `stream` gives the keys, and layer
l at step t draws its mask from fold_in(fold_in(stream(cfg, "masks"), t), l). So the state holds no
key, and a run that is resumed, or shared among devices, draws what it would have drawn. Not here:
files, printing, and any loop in Python.

Source: Huang et al. 2016, arXiv 1603.09382; He et al. 2016, arXiv 1603.05027.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

import droppath
from examples.train_flax.config import Config, Refused
from examples.train_flax.data import Data, Images
from examples.train_flax.model import ResNet, build_model

STREAMS = ("weights", "order", "shifts", "masks")  # their places are part of every run's numbers


class State(NamedTuple):
    """All that changes in training, and all that a checkpoint holds."""

    params: Any
    batch_stats: Any
    opt_state: Any
    step: jax.Array  # int32 []: steps done


class Run(NamedTuple):
    """What stays: hashable, so that equal runs share their compiled functions."""

    cfg: Config
    graphdef: Any  # the network without its arrays
    mesh: Mesh
    steps: int  # an epoch

    def place(self, *axes: str) -> NamedSharding:
        return NamedSharding(self.mesh, PartitionSpec(*axes))


def stream(cfg: Config, name: str) -> jax.Array:
    """The Threefry key of one use of randomness: fold_in(key(seed), place in STREAMS)."""
    words = droppath.fold_in(droppath.key(cfg.seed), STREAMS.index(name))
    return jax.random.wrap_key_data(jnp.asarray(words), impl="threefry2x32")


def make_mesh(cfg: Config) -> Mesh:
    """One axis, "data", over cfg.devices devices, or over all that JAX sees."""
    count = cfg.devices or jax.device_count()
    if count > jax.device_count():
        raise Refused(f"devices must be at most {jax.device_count()}, which JAX sees, got {count}")
    if cfg.batch % count:
        raise Refused(f"batch must be a multiple of the {count} devices, got {cfg.batch}")
    return jax.make_mesh(
        (count,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:count]
    )


def begin(cfg: Config, data: Data) -> tuple[Run, Data]:
    """Return the run, and the data as they lie on its devices: whole on each, as uint8."""
    if cfg.shift >= (side := min(data.train.pixels.shape[1:3])):
        raise Refused(f"shift must be less than the images' {side} pixels, got {cfg.shift}")
    graphdef = nnx.graphdef(nnx.eval_shape(partial(network, cfg, data)))
    run = Run(cfg, graphdef, make_mesh(cfg), len(data.train.labels) // cfg.batch)
    train, test = jax.device_put((data.train, data.test), run.place())
    return run, Data(train, test, data.classes)


def network(cfg: Config, data: Data) -> ResNet:
    """The network with its initial weights, which depend on cfg.seed but on no rate."""
    return build_model(cfg, data.train.pixels.shape[1:], data.classes, stream(cfg, "weights"))


def fresh_state(run: Run, data: Data) -> State:
    """The state before the first step, whole on each device."""
    model = network(run.cfg, data)
    params, batch_stats = nnx.state(model, nnx.Param), nnx.state(model, nnx.BatchStat)
    opt_state = optimizer(run.cfg, run.steps).init(params)
    return jax.device_put(State(params, batch_stats, opt_state, jnp.int32(0)), run.place())


def abstract_state(run: Run, data: Data) -> State:
    """The shapes, dtypes and placement of a state, for reading one back."""
    shapes = jax.eval_shape(partial(fresh_state, run, data))
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=run.place()), shapes
    )


def count_parameters(state: State) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(state.params))


def learning_rate(cfg: Config, steps: int) -> optax.Schedule:
    return optax.cosine_decay_schedule(cfg.learning_rate, cfg.epochs * steps)


def optimizer(cfg: Config, steps: int) -> optax.GradientTransformation:
    return optax.chain(
        optax.add_decayed_weights(cfg.weight_decay),  # on all parameters, as the authors do
        optax.sgd(learning_rate(cfg, steps), cfg.momentum, nesterov=True),
    )


@partial(jax.jit, static_argnames="run", donate_argnames="state")
def train_epoch(run: Run, state: State, train: Images, epoch: jax.Array) -> tuple[State, jax.Array]:
    """Return the state after one pass over train, and the loss of each step, float32 [steps].

    Images that do not fill a batch are left out; the order of the next epoch has others last.
    """
    order_key = jax.random.fold_in(stream(run.cfg, "order"), epoch)
    order = jax.random.permutation(order_key, len(train.labels))
    batches = order[: run.steps * run.cfg.batch].reshape(run.steps, run.cfg.batch)
    return jax.lax.scan(partial(train_step, run, train), state, batches)


def train_step(run: Run, train: Images, state: State, rows: jax.Array) -> tuple[State, jax.Array]:
    """Return the state after a step on the images `rows`, int32 [B], and the step's loss."""
    shift_key = jax.random.fold_in(stream(run.cfg, "shifts"), state.step)
    mask_key = jax.random.fold_in(stream(run.cfg, "masks"), state.step)
    rows = jax.lax.with_sharding_constraint(rows, run.place("data"))  # and all that follows from it
    pixels = random_shift(train.pixels[rows], shift_key, run.cfg.shift)
    labels = train.labels[rows]

    def loss(params: Any) -> tuple[jax.Array, Any]:
        model = nnx.merge(run.graphdef, params, state.batch_stats, copy=True)
        logits = model(standardise(pixels, train), key=mask_key, train=True)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return losses.mean(), nnx.state(model, nnx.BatchStat)

    (value, batch_stats), grads = jax.value_and_grad(loss, has_aux=True)(state.params)
    updates, opt_state = optimizer(run.cfg, run.steps).update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    return State(params, batch_stats, opt_state, state.step + 1), value


def random_shift(pixels: jax.Array, key: jax.Array, most: int) -> jax.Array:
    """Return images [B, H, W, C], each moved by up to `most` pixels each way, zeros moving in."""
    b, h, w, _ = pixels.shape
    padded = jnp.pad(pixels, ((0, 0), (most, most), (most, most), (0, 0)))
    corner = jax.random.randint(key, (2 * b,), 0, 2 * most + 1).reshape(b, 2)
    y, x = corner[:, :1] + jnp.arange(h), corner[:, 1:] + jnp.arange(w)  # [B, H], [B, W]
    return padded[jnp.arange(b)[:, None, None], y[:, :, None], x[:, None, :]]


def standardise(pixels: jax.Array, images: Images) -> jax.Array:
    return (pixels.astype(jnp.float32) - images.mean) / images.std


@partial(jax.jit, static_argnames="run")
def evaluate(run: Run, state: State, test: Images) -> tuple[jax.Array, jax.Array]:
    """Return the share of test images that are wrong, and their mean loss, no sample dropped."""
    total, batch = len(test.labels), run.cfg.batch
    model = nnx.merge(run.graphdef, state.params, state.batch_stats)

    def count(sums: jax.Array, rows: jax.Array) -> tuple[jax.Array, None]:
        rows = jax.lax.with_sharding_constraint(rows, run.place("data"))
        labels = test.labels[rows % total]
        logits = model(standardise(test.pixels[rows % total], test), train=False)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        both = jnp.stack([(logits.argmax(-1) != labels).astype(losses.dtype), losses])
        return sums + (both * (rows < total)).sum(1), None  # rows beyond the last fill the batch up

    batches = jnp.arange(-(-total // batch) * batch).reshape(-1, batch)
    (wrong, loss), _ = jax.lax.scan(count, jnp.zeros(2), batches)
    return wrong / total, loss / total
