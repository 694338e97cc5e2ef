"""Several hosts: two processes of two devices each compute what one process does."""

import socket
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import droppath
from droppath_flax import drop_path_residual

PROGRAM = """
import sys
import jax, jax.numpy as jnp, numpy as np
from jax import P
from jax.sharding import AxisType
port, process = sys.argv[1:]
jax.config.update("jax_num_cpu_devices", 2)
jax.distributed.initialize(f"localhost:{port}", num_processes=2, process_id=int(process),
                           initialization_timeout=60)
import droppath
from droppath_flax.distributed_test import losses
assert jax.device_count() == 4
for axes in (AxisType.Auto, AxisType.Explicit):
    with jax.set_mesh(jax.make_mesh((4,), ("data",), (axes,))) as mesh:
        place = jax.NamedSharding(jax.sharding.get_mesh(), P("data"))
        x = np.linspace(-2, 2, 16 * 3, dtype=np.float32).reshape(16, 3)
        x = jax.make_array_from_callback(x.shape, place, lambda at: x[at])
        print(*(loss.hex() for loss in losses(x)))
"""


def losses(x):
    """The losses of five steps of gradient descent on a block of each mode."""

    @jax.jit
    def step(x, w, key):
        def loss(w):
            y = x
            for layer, mode in enumerate(("balanced", "row", "batch")):
                y = drop_path_residual(
                    y, lambda x: jnp.tanh(x @ w), 0.4,
                    key=jax.random.fold_in(key, layer), mode=mode, groups=4,
                )  # fmt: skip
            return (y**2).mean()

        value, gradient = jax.value_and_grad(loss)(w)
        return value, w - 0.1 * gradient

    w, values = jnp.eye(3), []
    for t in range(5):
        value, w = step(x, w, droppath.fold_in(droppath.key(0), t))
        values.append(float(value))
    return values


@pytest.mark.slow
def test_two_processes_compute_the_losses_of_one():
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-c", PROGRAM, str(port)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen([*command, str(i)], **pipes) for i in range(2)]
    try:
        outputs = [process.communicate(timeout=120) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], outputs
    want = losses(jnp.linspace(-2, 2, 16 * 3, dtype=jnp.float32).reshape(16, 3))
    assert want[-1] < want[0]
    for output, _ in outputs:
        lines = [line for line in output.splitlines() if line.startswith("0x")]
        assert len(lines) == 2  # Auto and Explicit
        for line in lines:
            got = [float.fromhex(word) for word in line.split()]
            np.testing.assert_allclose(got, want, rtol=1e-5)
