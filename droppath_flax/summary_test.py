"""summary: the table, the calls that an example shows, and that the model stays as it is."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from droppath_flax import DropPath, DropPathResidual, summary
from droppath_flax.keyed_test import Model, SomeonesDropPath, X

TABLE = """
path  class             rate   mode      calls  skips
0     DropPath          0.100  batch            no: see skip_dropped
2     DropPathResidual  0.250  balanced         rows that are dropped
3     DropPathResidual  0.250  batch            all or nothing
4     DropPathResidual  0.250  row              no: mode is 'row'
5     DropPathResidual  0.250  balanced         no: skip=False
6     DropPathResidual  0.250  balanced         no: the rate is a JAX array
7     DropPathResidual  0.000  balanced         no: the rate is 0
1     SomeonesDropPath                          no: put a droppath_flax.DropPath in its place
"""


def test_each_layer_has_a_line_and_what_it_skips():
    model = nnx.List(
        [
            DropPath(0.1, mode="batch"),
            SomeonesDropPath(),
            DropPathResidual(jnp.tanh, 0.25),
            DropPathResidual(jnp.tanh, 0.25, mode="batch"),
            DropPathResidual(jnp.tanh, 0.25, mode="row"),
            DropPathResidual(jnp.tanh, 0.25, skip=False),
            DropPathResidual(jnp.tanh, jnp.float32(0.25)),
            DropPathResidual(jnp.tanh),
        ]
    )
    assert f"\n{summary(model)}\n" == TABLE


def test_calls_are_counted_where_an_example_is_given():
    model = Model(nnx.Rngs(0))
    assert [line.calls for line in summary(model).layers] == [None] * 3
    assert [line.calls for line in summary(model, X).layers] == [2, 2, 2]
    assert [line.calls for line in summary(model.blocks[0].drop_path, x=X).layers] == [1]


def test_a_model_is_left_as_it_was_also_by_an_exception():
    model = nnx.Sequential(nnx.BatchNorm(3, rngs=nnx.Rngs(0)), DropPath(0.0, rngs=nnx.Rngs(1)))
    before = nnx.state(nnx.clone(model))
    summary(model, X)
    with pytest.raises(AttributeError):
        summary(model, "x")
    for old, new in zip(jax.tree.leaves(before), jax.tree.leaves(nnx.state(model)), strict=True):
        data = [
            jax.random.key_data(a) if jnp.issubdtype(a.dtype, jax.dtypes.prng_key) else a
            for a in (old, new)
        ]
        np.testing.assert_array_equal(*data)
    assert model.layers[1].drop_prob == 0


def test_a_model_without_a_droppath_and_what_is_no_model():
    assert str(summary(nnx.List([]))).endswith("no layer drops paths")
    with pytest.raises(ValueError, match=r"model must be a flax\.nnx\.Module, got int"):
        summary(3)
