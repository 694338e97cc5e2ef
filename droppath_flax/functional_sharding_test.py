"""A batch that is sharded over devices gets the unsharded result, and no collective."""

from functools import partial

import jax
import jax.numpy as jnp
import pytest
from jax import P
from jax.sharding import AxisType

import droppath
from conformance.hlo import collectives
from droppath_flax.functional import drop_path
from droppath_flax.functional_test import BATCH, KEY, assert_same_bits, numbers, with_gradient


def compiled(f, *args):
    return jax.jit(f).lower(*args).compile()


@pytest.mark.parametrize("axes", [AxisType.Auto, AxisType.Explicit])
def test_the_search_for_collectives_finds_one(axes):
    mesh = jax.make_mesh((8,), ("data",), axis_types=(axes,))
    with jax.set_mesh(mesh):
        x = jax.device_put(jnp.ones(BATCH), P("data"))
        assert collectives(compiled(jnp.sum, x).as_text())


@pytest.mark.parametrize(
    ("mode", "groups", "spec"),
    [
        ("row", 1, P("data")),
        ("row", 1, P(None, "data")),
        ("balanced", 1, P("data")),
        ("balanced", 8, P("data")),
        ("batch", 1, P("data")),
    ],
)
@pytest.mark.parametrize("axes", [AxisType.Auto, AxisType.Explicit])
def test_a_sharded_batch_gets_the_unsharded_result_without_a_collective(axes, mode, groups, spec):
    x, dy = numbers("float32", BATCH, 8), numbers("float32", BATCH, 8, seed=1)
    keep = droppath.keep_mask(KEY, 0.37, BATCH, mode=mode, groups=groups)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(axes,))
    with jax.set_mesh(mesh):
        args = [jax.device_put(a, jax.NamedSharding(mesh, spec)) for a in (x, dy)]
        run = with_gradient(partial(drop_path, drop_prob=0.37, key=KEY, mode=mode, groups=groups))
        program = compiled(run, *args)
        assert not collectives(program.as_text())
        for result, of in zip(program(*args), (x, dy), strict=True):
            assert result.sharding.shard_shape(x.shape) == args[0].sharding.shard_shape(x.shape)
            assert_same_bits(result, droppath.drop_path(of, keep, 0.37))


@pytest.mark.parametrize("mode", ["row", "balanced", "batch"])
def test_shards_that_pass_their_offsets_get_the_unsharded_result(mode):
    mesh, size = jax.make_mesh((8,), ("data",)), BATCH // 8
    x = numbers("float32", BATCH, 3)

    def shard(x):
        first = jax.lax.axis_index("data") * size
        return drop_path(x, 0.37, key=KEY, mode=mode, offset=first)

    f = jax.shard_map(shard, mesh=mesh, in_specs=P("data"), out_specs=P("data"))
    x_sharded = jax.device_put(x, jax.NamedSharding(mesh, P("data")))
    program = compiled(with_gradient(f), x_sharded, x_sharded)
    assert not collectives(program.as_text())
    keep = droppath.keep_mask(KEY, 0.37, BATCH, mode=mode, groups=8 if mode == "balanced" else 1)
    for result in program(x_sharded, x_sharded):
        assert_same_bits(result, droppath.drop_path(x, keep, 0.37))
