"""Layers of one form as one: what comes back, and which layers are refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from droppath_flax import stack_layers


def linear(width=3, seed=0, **options):
    return nnx.Linear(2, width, rngs=nnx.Rngs(seed), **options)


def test_each_layer_is_a_row_of_every_array():
    layers = [{"w": i * jnp.ones((2, 3)), "n": jnp.int32(i)} for i in range(4)]
    stacked = stack_layers(layers)
    assert jax.tree.structure(stacked) == jax.tree.structure(layers[0])
    assert stacked["w"].shape == (4, 2, 3)
    assert stacked["n"].tolist() == [0, 1, 2, 3]


def test_modules_give_a_module_that_vmap_runs_as_each_alone():
    layers, x = [linear(seed=i) for i in range(3)], jnp.ones((5, 2))
    stacked = stack_layers(layers)
    ys = nnx.vmap(lambda layer, x: layer(x), in_axes=(0, None))(stacked, x)
    np.testing.assert_allclose(ys, [layer(x) for layer in layers], rtol=1e-6)
    layers[0].kernel[...] += 1
    assert not np.allclose(stacked.kernel[0], layers[0].kernel[...])


def test_random_streams_are_stacked_too():
    stacked = stack_layers([nnx.Dropout(0.5, rngs=nnx.Rngs(i)) for i in range(2)])
    assert stacked.rngs.count[...].shape == (2,)


@pytest.mark.parametrize(
    ("layers", "text"),
    [
        ([], "layers must be a list of one or more, got []"),
        (linear(), "layers must be a list of one or more, got Linear("),
        (
            [{"w": jnp.ones(2)}, {"w": jnp.ones(2)}, {"w": jnp.ones(3)}],
            "layers must be of one form, ['w'] float32[2], got float32[3] at 2",
        ),
        (
            [{"w": jnp.ones(2)}, {"v": jnp.ones(2)}],
            "layers must be of one form, ['w'] float32[2], got None at 1",
        ),
        ([(jnp.ones(2),), [jnp.ones(2)]], "layers must be of one form, PyTreeDef"),
        ([linear(), linear(4)], "layers must be of one form, ['bias'].value float32[3], got "),
        (
            [linear(), linear(use_bias=True, precision="highest")],
            "layers must have equal attributes, got others at 1 than at 0",
        ),
    ],
)
def test_what_is_not_of_one_form_is_named(layers, text):
    with pytest.raises(ValueError) as error:
        stack_layers(layers)
    assert str(error.value).startswith(text)
