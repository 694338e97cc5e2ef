"""keyed within Flax's and JAX's transforms and around them: the masks of eager, no tracer left."""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from flax.errors import TraceContextError

import droppath
from droppath_flax import DropPath, keyed
from droppath_flax.keyed_test import KEY, Model, X, close, model, want

__all__ = ["model", "want"]  # fixtures


def test_a_program_that_the_block_surrounds_is_compiled_once_for_all_keys(model, want):
    traces = []

    @nnx.jit
    def forward(model, x):
        traces.append(x)
        return model(x)

    outputs = []
    for key in (KEY, droppath.key(8), KEY):
        with keyed(model, key):
            outputs.append(forward(model, X))
    close(outputs[0], want)
    close(outputs[2], want)
    assert not np.allclose(outputs[1], want)
    assert len(traces) == 1


def inside_nnx_jit(model):
    @nnx.jit
    def forward(model, key):
        with keyed(model, key):
            return model(X)

    return forward(model, jax.random.key(7))


def inside_jax_jit(model):
    graphdef, state = nnx.split(model)

    @jax.jit
    def forward(state, key):
        merged = nnx.merge(graphdef, state)
        with keyed(merged, key):
            return merged(X)

    return forward(state, KEY)


def inside_jax_jit_of_a_tree(model):
    @jax.jit
    def forward(model, key):
        with keyed(model, key):
            return model(X)

    return forward(model, KEY)


def inside_scan(model):
    graphdef, state = nnx.split(model)

    def body(carry, key):
        merged = nnx.merge(graphdef, state)
        with keyed(merged, key):
            return carry, merged(X)

    return jax.lax.scan(body, 0, jnp.stack([KEY, droppath.key(8)]))[1][0]


def inside_nnx_scan(model):
    @nnx.scan(in_axes=(nnx.Carry, 0), out_axes=(nnx.Carry, 0))
    def body(model, key):
        with keyed(model, key):
            return model, model(X)

    return body(model, jnp.stack([KEY, droppath.key(8)]))[1][0]


def around_remat(model):
    x = X
    with keyed(model, KEY):
        for block in model.blocks:
            x = nnx.remat(lambda block, x: block(x))(block, x)
    return x


@pytest.mark.parametrize(
    "transform",
    [
        inside_nnx_jit,
        inside_jax_jit,
        inside_jax_jit_of_a_tree,
        inside_scan,
        inside_nnx_scan,
        around_remat,
    ],
)
def test_every_transform_gives_the_masks_of_eager(model, want, transform):
    before = [block.drop_path.rngs for block in model.blocks]
    counts = [int(stream.count[...]) for stream in before]
    close(transform(model), want)
    assert [block.drop_path.rngs for block in model.blocks] == before
    assert [int(stream.count[...]) for stream in before] == counts


@pytest.mark.parametrize("remat", [False, True])
def test_the_gradient_has_the_masks_of_the_forward(model, remat):
    def loss(params, rest, graphdef):
        model = nnx.merge(graphdef, params, rest)
        with keyed(model, KEY):
            x = X
            for block in model.blocks:
                x = nnx.remat(lambda block, x: block(x))(block, x) if remat else block(x)
        return (x**2).sum()

    graphdef, params, rest = nnx.split(model, nnx.Param, ...)
    grads = jax.jit(jax.grad(loss), static_argnums=2)(params, rest, graphdef)
    (name, kernel), *_ = [(p, g) for p, g in nnx.to_flat_state(grads) if "kernel" in p]
    assert name[:2] == ("blocks", 0)
    bumped = []
    for sign in (1, -1):  # by differences, of one weight
        near = nnx.clone(model)
        near.blocks[0].linear.kernel[...] = (
            near.blocks[0].linear.kernel[...].at[0, 0].add(sign / 64)
        )
        with keyed(near, KEY):
            bumped.append((near(X) ** 2).sum())
    np.testing.assert_allclose(kernel[...][0, 0], (bumped[0] - bumped[1]) * 32, rtol=2e-2)


@pytest.mark.parametrize("wrt", ["inside", "outside"])
def test_nnx_grad_may_be_on_either_side(wrt):
    model, argnums = Model(nnx.Rngs(0)), nnx.DiffState(0, nnx.Param)

    def loss(model):
        with keyed(model, KEY) if wrt == "inside" else contextlib.nullcontext():
            return (model(X) ** 2).sum()

    with contextlib.nullcontext() if wrt == "inside" else keyed(model, KEY):
        value, grads = nnx.value_and_grad(loss, argnums=argnums)(model)
    with keyed(model, KEY):
        close(value, (model(X) ** 2).sum())
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))


def test_functions_that_close_over_the_model_are_refused_and_leak_nothing(model):
    before = [block.drop_path.rngs for block in model.blocks]

    @jax.jit
    def inside(key):
        with keyed(model, key):
            return model(X)

    with pytest.raises(TraceContextError):
        inside(KEY)
    with keyed(model, KEY), pytest.raises(TraceContextError):
        jax.checkpoint(model)(X)
    assert [block.drop_path.rngs for block in model.blocks] == before
    with keyed(model, KEY):
        model(X)


def test_a_stack_of_layers_under_scan_is_one_layer_whose_key_is_split():
    @nnx.split_rngs(splits=4)
    @nnx.vmap
    def stack(rngs):
        return nnx.Sequential(DropPath(0.5, rngs=rngs))

    @nnx.scan(in_axes=(0, nnx.Carry), out_axes=(nnx.Carry, 0))
    def forward(block, x):
        return x, block(x) != 0

    blocks = stack(nnx.Rngs(0))
    with keyed(blocks, KEY):
        masks = nnx.split_rngs(splits=4)(lambda blocks: forward(blocks, jnp.ones(50))[1])(blocks)
    layer = droppath.fold_in(KEY, 0)
    want = [droppath.keep_mask(droppath.fold_in(layer, i), 0.5, 50) for i in range(4)]
    np.testing.assert_array_equal(masks, want)
