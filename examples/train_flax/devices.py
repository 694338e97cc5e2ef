"""The devices of a run: started, laid out as a mesh, and what lies where on them.

Every process of a run calls these functions in the same order. The batch is shared along the one
axis "data"; the images, and without `fsdp` the state too, lie whole on each device. The axis is
Auto, not jax.make_mesh's Explicit: the networks are written without a word on devices, and XLA
propagates the placement from the batch and the state. Not here: what is computed.
"""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from examples.train_flax.config import Config, Refused

Result = TypeVar("Result")

SMALL = 1024  # elements: below that, gathering an array costs more time than sharing it saves room


def start(cfg: Config) -> None:
    """Join the other processes, let the CPU pretend, and keep compiled programs: before all else.

    Raises: Refused if the processes are not to be found.
    """
    if cfg.distributed:
        _join(cfg)
    if cfg.devices:
        with suppress(RuntimeError):  # in vain where JAX has already looked
            jax.config.update("jax_num_cpu_devices", -(-cfg.devices // (cfg.processes or 1)))
    if cfg.compilation_cache:
        folder = Path(cfg.compilation_cache).expanduser()
        jax.config.update("jax_compilation_cache_dir", str(folder))


def _join(cfg: Config) -> None:
    """Start jax.distributed; what cfg does not say, the cluster does (Slurm, TPU, ...)."""
    if jax.distributed.is_initialized():
        return
    try:
        jax.distributed.initialize(cfg.coordinator, cfg.processes, cfg.process)
    except (ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise Refused(
            "distributed must find a cluster, or be given coordinator, processes and process: "
            + reason
        ) from error


def is_writer() -> bool:
    """Whether this process writes what only one may write: logs, metrics, pictures."""
    return jax.process_index() == 0


def writer_first(call: Callable[[], Result]) -> Result | None:
    """Return call() in the writing process, None in the others, which wait for it.

    Raises: Refused in all if it is in the first, so that none goes on alone.
    """
    refusal, result = None, None
    if is_writer():
        try:
            result = call()
        except Refused as error:
            refusal = error
    if jax.process_count() > 1:
        refused = multihost_utils.broadcast_one_to_all(np.bool_(refusal is not None))
        if refused and not is_writer():
            raise Refused("process 0 was refused and says why")
    if refusal:
        raise refusal
    return result


def make_mesh(cfg: Config) -> Mesh:
    """One axis, "data", over cfg.devices devices, or over all of all processes."""
    count = cfg.devices or jax.device_count()
    if count > jax.device_count():
        raise Refused(f"devices must be at most {jax.device_count()}, which JAX sees, got {count}")
    if count < jax.device_count() and jax.process_count() > 1:
        raise Refused(f"devices must be all {jax.device_count()} of the processes, got {count}")
    if cfg.batch % count:
        raise Refused(f"batch must be a multiple of the {count} devices, got {cfg.batch}")
    if cfg.gathers and cfg.groups % count:
        raise Refused(
            f"groups must be a multiple of the {count} devices, got {cfg.groups}: else images "
            "travel between devices, which costs more than skipping saves (or take --no-skip)"
        )
    return jax.make_mesh(
        (count,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:count]
    )


def shardings(mesh: Mesh, tree: Any, *, fsdp: bool = False) -> Any:
    """Where each array of a tree lies: whole on each device, or with fsdp shared among them.

    An array is shared along its largest axis that the devices divide, the first of equals; one of
    less than SMALL elements, or without such an axis, lies whole on each.
    """

    def place(leaf: Any) -> NamedSharding:
        divisible = [n if n % mesh.size == 0 else 0 for n in leaf.shape]
        spec: list[str | None] = [None] * len(leaf.shape)
        if fsdp and leaf.size >= SMALL and max(divisible) > 0:
            spec[divisible.index(max(divisible))] = "data"
        return NamedSharding(mesh, PartitionSpec(*spec))

    return jax.tree.map(place, tree)


def keep_split(x: jax.Array) -> jax.Array:
    """Return x, its rows shared among the devices of the mesh in use, if there is one.

    XLA for GPUs may lose that within `lax.cond`: each would compute on the whole batch.
    """
    mesh = jax.sharding.get_abstract_mesh()
    return x if mesh.empty else jax.lax.with_sharding_constraint(x, PartitionSpec("data"))


def put(tree: Any, places: Any) -> Any:
    """Put a tree of arrays, equal in all processes, where places says; no process sends any."""

    def lay(leaf: Any, place: NamedSharding) -> jax.Array:
        whole = np.asarray(leaf)
        return jax.make_array_from_callback(whole.shape, place, lambda index: whole[index])

    return jax.tree.map(lay, tree, places)
