"""A residual block over a mesh, in shard_map and on two hosts is that of one device."""

import socket
import subprocess
import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import P
from jax.sharding import AxisType

import droppath
from conformance.hlo import collectives
from droppath_flax import drop_path_residual
from droppath_flax.residual_test import KEY, numbers, with_gradients


def block_and_gradients(x, w, dy, *, mode, groups, skip, drop_prob=0.4):
    def block(x, w):
        def run(x):
            return jnp.tanh(x @ w)

        return drop_path_residual(x, run, drop_prob, key=KEY, mode=mode, groups=groups, skip=skip)

    return with_gradients(block, dy, x, w)


@pytest.mark.parametrize("axes", [AxisType.Auto, AxisType.Explicit])
@pytest.mark.parametrize(
    ("mode", "groups"), [("balanced", 8), ("balanced", 16), ("row", 1), ("batch", 1)]
)
def test_skipping_adds_no_collective_and_changes_no_number(mode, groups, axes):
    x, dy = numbers(32, 4, 8), numbers(32, 4, 8, seed=1)
    w = numbers(8, 8, seed=2)
    want = jax.jit(partial(block_and_gradients, mode=mode, groups=groups, skip=None))(x, w, dy)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(axes,))
    with jax.set_mesh(mesh):
        args = [
            jax.device_put(a, jax.NamedSharding(mesh, spec))
            for a, spec in ((x, P("data")), (w, P()), (dy, P("data")))
        ]
        counts = []
        for skip in (None, False):
            run = jax.jit(partial(block_and_gradients, mode=mode, groups=groups, skip=skip))
            program = run.lower(*args).compile()
            counts.append(collectives(program.as_text()))
            results = program(*args)
            assert results[0].sharding.shard_shape(x.shape) == (4, 4, 8)
            for a, b in zip(results, want, strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)

        def dense(x, w, dy):
            return with_gradients(lambda x, w: x + jnp.tanh(x @ w), dy, x, w)

        plain = collectives(jax.jit(dense).lower(*args).compile().as_text())
    assert plain  # the gradient of w is summed over devices: the search finds it
    assert counts == [plain, plain]


def test_without_groups_rows_travel():
    """The search would find it if skipping moved rows between devices."""
    x, w, dy = numbers(32, 8), numbers(8, 8, seed=2), numbers(32, 8, seed=1)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    with jax.set_mesh(mesh):
        args = [jax.device_put(a, P(s)) for a, s in ((x, "data"), (w, None), (dy, "data"))]
        run = jax.jit(partial(block_and_gradients, mode="balanced", groups=1, skip=None))
        text = run.lower(*args).compile().as_text()
    assert collectives(text).total() > 1


@pytest.mark.parametrize("groups", [1, 4, 12])
def test_groups_that_devices_would_cut_are_refused_where_the_type_of_x_tells(groups):
    x = numbers(48, 8)
    with jax.set_mesh(jax.make_mesh((8,), ("data",), axis_types=(AxisType.Explicit,))):
        x = jax.device_put(x, P("data"))
        run = partial(drop_path_residual, x, jnp.tanh, 0.4, key=KEY, groups=groups)
        for call in (run, jax.jit(run)):
            with pytest.raises(ValueError, match="groups must be a multiple of the 8 devices") as e:
                call()
            assert f"share the batch, got {groups}: " in str(e.value)
        assert run(skip=False).shape == x.shape  # no row is gathered
        jax.jit(partial(run, mode="row"))()


def test_an_axis_shared_over_two_names_counts_the_devices_of_both():
    mesh = jax.make_mesh((4, 2), ("data", "more"), axis_types=(AxisType.Explicit,) * 2)
    with jax.set_mesh(mesh):
        x = jax.device_put(numbers(3, 32), P(None, ("data", "more")))
        with pytest.raises(ValueError, match=r"multiple of the 8 devices .* got 4"):
            drop_path_residual(x, jnp.tanh, 0.4, key=KEY, groups=4, axis=1)
        x = jax.device_put(numbers(32, 3), P("data"))
        want = drop_path_residual(numbers(32, 3), jnp.tanh, 0.4, key=KEY, groups=4)
        np.testing.assert_array_equal(drop_path_residual(x, jnp.tanh, 0.4, key=KEY, groups=4), want)


@pytest.mark.parametrize("devices", [1, 2, 4, 8])
def test_shard_map_with_offsets_is_one_device(devices):
    x, w = numbers(32, 8), numbers(8, 8, seed=2)
    mesh = jax.make_mesh((devices,), ("data",), (AxisType.Auto,), devices=jax.devices()[:devices])
    local = 32 // devices

    def shard(x, w):
        first = jax.lax.axis_index("data") * local
        return drop_path_residual(
            x, lambda x: jnp.tanh(x @ w), 0.4, key=KEY, groups=8 // devices, offset=first
        )

    f = jax.shard_map(shard, mesh=mesh, in_specs=(P("data"), P()), out_specs=P("data"))
    want = drop_path_residual(x, lambda x: jnp.tanh(x @ w), 0.4, key=KEY, groups=8)
    np.testing.assert_allclose(jax.jit(f)(x, w), want, rtol=1e-6, atol=1e-6)


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
