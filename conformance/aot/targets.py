"""What is compiled for: TPUs and GPUs that need not be there, as JAX describes their topologies.

Source: docs.jax.dev, "Ahead-of-time lowering and compilation"; jax.experimental.topologies.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from jax.experimental import topologies
from jax.sharding import AxisType, Mesh

TPUS = ("v5e:2x2", "v5e:16x16", "v5p:8x8x8")  # 4, 256 and 512 chips
GPUS = {"h100": Path(__file__).with_name("h100.txtpb")}  # what XLA asks of a device


class Target(NamedTuple):
    """Devices to compile for."""

    name: str
    kind: str  # of chips that compile alike
    devices: Sequence[jax.Device]

    def mesh(self, axes: AxisType) -> Mesh:
        """Return all devices along one axis, "data"."""
        return Mesh(np.array(self.devices), ("data",), axis_types=(axes,))


def tpu(topology: str) -> Target:
    """Return the chips of a TPU topology, "v5e:2x2". Raises ValueError for one that is unknown."""
    try:
        devices = topologies.get_topology_desc(platform="tpu", topology_name=topology).devices
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"tpu must be a topology such as v5e:2x2, got {topology}: {reason}"
        ) from None
    return Target(f"TPU {topology}", "TPU", devices)


def cuda(name: str, chips: int) -> Target:
    """Return that many GPUs of one host."""
    if chips < 1:
        raise ValueError(f"chips must be at least 1, got {chips}")
    described = topologies.get_topology_desc(
        platform="cuda",
        topology_name=name,
        topology=f"1x1x{chips}",
        target_config=GPUS[name].read_text(),
    )
    return Target(f"{chips} {name.upper()}", name.upper(), described.devices)
