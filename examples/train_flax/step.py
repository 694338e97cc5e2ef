"""One training step, a whole epoch of them in one compiled call, and evaluation.

Everything random is a pure function of (cfg.seed, epoch, step): `stream` gives the keys, and layer
l at step t draws its mask from fold_in(fold_in(stream(cfg, "masks"), t), l). So the state holds no
key, and a run that is resumed, or shared among devices, draws what it would have drawn. Not here:
files, printing, and any loop in Python.

Source: Huang et al. 2016, arXiv 1603.09382; He et al. 2016, arXiv 1603.05027.
"""

import dataclasses
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from numpy.typing import NDArray

import droppath
from droppath_flax import set_drop_probs
from examples.train_flax.config import STREAMS, Config, Refused
from examples.train_flax.data import Data, Images
from examples.train_flax.devices import make_mesh, put, shardings
from examples.train_flax.model import build_model, rates_at
from examples.train_flax.optimizer import optimizer


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
    fsdp: bool
    steps: int  # a whole epoch

    @property
    def last_step(self) -> int:
        """Steps of the whole run."""
        return min(self.cfg.steps or self.cfg.epochs * self.steps, self.cfg.epochs * self.steps)

    @property
    def epochs(self) -> int:
        """Epochs of the whole run; cfg.steps may end it within the last."""
        return -(-self.last_step // self.steps)

    @property
    def of_any_seed(self) -> "Run":
        """The run as the compiled calls know it."""
        return self._replace(cfg=dataclasses.replace(self.cfg, seed=0))

    def rates(self, first: int, steps: int) -> NDArray[np.float32] | None:
        """The drop_prob of each branch at the steps first, first + 1, ...: [steps, layers].

        Data of the compiled calls, which all epochs share; None if the rates stay as they are, and
        are part of the program.
        """
        numbers = np.arange(first, first + steps)
        if not self.cfg.ramps:
            return None
        return rates_at(self.cfg, self.steps, numbers).astype(np.float32)

    def split(self, rows: jax.Array) -> jax.Array:
        """Share rows among the devices, and with them all that is computed from them."""
        place = NamedSharding(self.mesh, PartitionSpec("data"))
        return jax.lax.with_sharding_constraint(rows, place)

    def lay(self, state: State) -> State:
        """Lay the state where it is to be, whatever XLA would choose."""
        places = shardings(self.mesh, state, fsdp=self.fsdp)
        return jax.lax.with_sharding_constraint(state, places)


def stream(cfg: Config, name: str) -> jax.Array:
    """The Threefry key of one use of randomness: fold_in(key(seed), place in STREAMS)."""
    return stream_of(seed_key(cfg), name)


def seed_key(cfg: Config) -> jax.Array:
    """The Threefry key of cfg.seed: data of the compiled calls, so that all seeds share them."""
    return jax.random.wrap_key_data(jnp.asarray(droppath.key(cfg.seed)), impl="threefry2x32")


def stream_of(seed: jax.Array, name: str) -> jax.Array:
    return jax.random.fold_in(seed, STREAMS.index(name))


def begin(cfg: Config, data: Data) -> tuple[Run, Data]:
    """Return the run, and the data as they lie on its devices: whole on each, as uint8."""
    if cfg.shift >= (side := min(data.train.pixels.shape[1:3])):
        raise Refused(f"shift must be less than the images' {side} pixels, got {cfg.shift}")
    mesh = make_mesh(cfg)
    graphdef = nnx.graphdef(nnx.eval_shape(partial(network, cfg, data)))
    steps = cfg.passes * (len(data.train.labels) // cfg.batch)
    run = Run(cfg, graphdef, mesh, cfg.fsdp, steps)
    parts = (data.train, data.test, data.validation)
    train, test, validation = put(parts, shardings(mesh, parts))
    return run, Data(train, test, data.classes, validation)


def network(cfg: Config, data: Data) -> nnx.Module:
    """The network with its initial weights, which depend on cfg.seed but on no rate."""
    return build_model(cfg, data.train.pixels.shape[1:], data.classes, stream(cfg, "weights"))


def fresh_state(run: Run, data: Data) -> State:
    """The state before the first step, where it lies in training."""
    state = _initial_state(run, data)
    return put(state, shardings(run.mesh, state, fsdp=run.fsdp))


def _initial_state(run: Run, data: Data) -> State:
    model = network(run.cfg, data)
    params, batch_stats = nnx.state(model, nnx.Param), nnx.state(model, nnx.BatchStat)
    opt_state = optimizer(run.cfg, run.steps).init(params)
    return State(params, batch_stats, opt_state, jnp.int32(0))


def abstract_state(run: Run, data: Data) -> State:
    """The shapes, dtypes and placement of a state, for reading one back."""
    shapes = jax.eval_shape(partial(_initial_state, run, data))
    return jax.tree.map(
        lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
        shapes,
        shardings(run.mesh, shapes, fsdp=run.fsdp),
    )


def count_parameters(state: State) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(state.params))


def train_epoch(run: Run, state: State, train: Images, epoch: int) -> tuple[State, jax.Array]:
    """Return the state after an epoch on train, and the loss of each step, float32 [steps].

    An epoch is cfg.passes over the images, each in an order of its own. Epochs count from 1;
    cfg.steps may cut the last one short. Images that do not fill a batch are left out; the order of
    the next pass has others last. The state that is given is used up.
    """
    first = (epoch - 1) * run.steps
    steps = min(run.steps, run.last_step - first)
    seed, rates = seed_key(run.cfg), run.rates(first, steps)
    with jax.set_mesh(run.mesh):
        return train_steps(run.of_any_seed, steps, state, train, epoch, seed, rates)


@partial(jax.jit, static_argnames=("run", "steps"), donate_argnames="state")
def train_steps(
    run: Run,
    steps: int,
    state: State,
    train: Images,
    epoch: jax.Array,
    seed: jax.Array,
    rates: jax.Array | None = None,
) -> tuple[State, jax.Array]:
    """Return what `train_epoch` does, after so many steps: the compiled call itself."""
    passes, images = run.cfg.passes, len(train.labels)
    whole = images // run.cfg.batch * run.cfg.batch
    orders = []
    for number in range(passes):
        pass_key = jax.random.fold_in(stream_of(seed, "order"), (epoch - 1) * passes + number + 1)
        orders.append(jax.random.permutation(pass_key, images)[:whole])
    batches = jnp.concatenate(orders).reshape(-1, run.cfg.batch)[:steps]
    state, losses = jax.lax.scan(partial(train_step, run, train, seed), state, (batches, rates))
    return run.lay(state), losses


def train_step(
    run: Run,
    train: Images,
    seed: jax.Array,
    state: State,
    of_step: tuple[jax.Array, jax.Array | None],
) -> tuple[State, jax.Array]:
    """Return the state after a step, and the step's loss.

    of_step: the images' rows, int32 [B], and `Run.rates` of the step, [layers].
    """
    rows, rates = of_step
    mask_key = jax.random.fold_in(stream_of(seed, "masks"), state.step)
    rows = run.split(rows)
    x, labels = augmented(run.cfg, train, seed, rows, state.step), train.labels[rows]

    def loss(params: Any) -> tuple[jax.Array, Any]:
        model = nnx.merge(run.graphdef, params, state.batch_stats, copy=True)
        if rates is not None:
            set_drop_probs(model, [*rates])
        model.train()
        losses = optax.softmax_cross_entropy_with_integer_labels(model(x, key=mask_key), labels)
        return losses.mean(), nnx.state(model, nnx.BatchStat)

    (value, batch_stats), grads = jax.value_and_grad(loss, has_aux=True)(state.params)
    updates, opt_state = optimizer(run.cfg, run.steps).update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    return run.lay(State(params, batch_stats, opt_state, state.step + 1)), value


def augmented(
    cfg: Config, train: Images, seed: jax.Array, rows: jax.Array, step: jax.Array
) -> jax.Array:
    """Return the images `rows`, standardised, then shifted and mirrored: float32 [B, H, W, C]."""
    x = standardise(train.pixels[rows], train)
    # A pixel's own mean goes with the pixel, and what moves in is that mean; else it is black.
    border = 0 if cfg.pixel_mean else -train.mean / train.std
    x = random_shift(x, jax.random.fold_in(stream_of(seed, "shifts"), step), cfg.shift, border)
    return random_flip(x, jax.random.fold_in(stream_of(seed, "flips"), step)) if cfg.flip else x


def random_shift(
    images: jax.Array, key: jax.Array, most: int, border: jax.typing.ArrayLike = 0
) -> jax.Array:
    """Return images [B, H, W, C], each moved by up to `most` pixels each way, border moving in."""
    b, h, w, _ = images.shape
    around = ((0, 0), (most, most), (most, most), (0, 0))
    padded = jnp.pad(images, around, constant_values=border)
    corner = jax.random.randint(key, (2 * b,), 0, 2 * most + 1).reshape(b, 2)
    y, x = corner[:, :1] + jnp.arange(h), corner[:, 1:] + jnp.arange(w)  # [B, H], [B, W]
    return padded[jnp.arange(b)[:, None, None], y[:, :, None], x[:, None, :]]


def random_flip(images: jax.Array, key: jax.Array) -> jax.Array:
    """Return images [B, H, W, C], each mirrored left to right with probability one half."""
    mirrored = jax.random.bernoulli(key, 0.5, (len(images), 1, 1, 1))
    return jnp.where(mirrored, images[:, :, ::-1], images)


def standardise(pixels: jax.Array, images: Images) -> jax.Array:
    return (pixels.astype(jnp.float32) - images.mean) / images.std


def evaluate(run: Run, state: State, test: Images) -> tuple[jax.Array, jax.Array]:
    """Return the share of images that are wrong, and their mean loss, no sample dropped.

    Where cfg.scale_at is "eval" the branches are scaled by the rates of the last step done.
    """
    rates = run.rates(int(state.step) - 1, 1) if run.cfg.ramps else None
    return _evaluate(run.of_any_seed, state, test, rates)


@partial(jax.jit, static_argnames="run")
def _evaluate(
    run: Run, state: State, test: Images, rates: jax.Array | None
) -> tuple[jax.Array, jax.Array]:
    total, batch = len(test.labels), run.cfg.batch
    model = nnx.merge(run.graphdef, state.params, state.batch_stats)
    if rates is not None:
        set_drop_probs(model, [*rates[0]])
    model.eval()

    def count(sums: jax.Array, rows: jax.Array) -> tuple[jax.Array, None]:
        rows = run.split(rows)
        labels = test.labels[rows % total]
        logits = model(standardise(test.pixels[rows % total], test))
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        both = jnp.stack([(logits.argmax(-1) != labels).astype(losses.dtype), losses])
        return sums + (both * (rows < total)).sum(1), None  # rows beyond the last fill the batch up

    batches = jnp.arange(-(-total // batch) * batch).reshape(-1, batch)
    (wrong, loss), _ = jax.lax.scan(count, jnp.zeros(2), batches)
    return wrong / total, loss / total
