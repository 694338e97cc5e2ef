"""skip_dropped in the transforms of JAX and Flax: the numbers are masking's, and nothing stays.

Not here: what runs and what does not (skipping_test.py, proof_test.py).
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import P
from jax.sharding import AxisType

from conformance.hlo import collectives
from droppath_flax import keyed, skip_dropped
from droppath_flax.skipping_test import (
    CLOSE,
    ROWS,
    SEEN,
    WIDTH,
    B,
    Stack,
    Twice,
    assert_agree,
    drops_of,
    example,
    made,
    reasons,
    results,
    skipped,
    step,
)


class Rematerialized(Twice):
    """Its own forward is a transform, so that the code runs in a copy."""

    __call__ = nnx.remat(Twice.__call__)


class StackOfRemat(Stack):
    """The transform is around the blocks."""

    def __call__(self, x):
        for block in self.blocks:
            x = nnx.remat(lambda block, x: block(x))(block, x)
        return x


def merged_in_jit(model, x):
    graphdef, state = nnx.split(model)
    return jax.jit(lambda state, x: nnx.merge(graphdef, state)(x))(state, x)


def scanned(model, x):
    """The model once in each of two turns of a loop, its streams carried along."""
    graphdef, state = nnx.split(model)

    def turn(carry, _):
        state, x = carry
        model = nnx.merge(graphdef, state)
        y = model(x)
        return (nnx.state(model), y), None

    return jax.lax.scan(turn, (state, x), None, length=2)[0][1]


def called(model, x):
    return model(x)


CALLS = {
    "nnx.jit": nnx.jit(called),
    "jax.jit of a merge": merged_in_jit,
    "nnx.remat": nnx.jit(nnx.remat(called)),
    "lax.scan": scanned,
    "without a graph": lambda model, x: nnx.jit(called, graph=False)(model, x),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_call_gives_what_masking_gives_and_advances_the_streams_alike(name):
    x, model, masked = example(Twice), skipped(Twice), made(Twice)
    with jax.checking_leaks():
        got = CALLS[name](model, x)
    want = CALLS[name](masked, x)
    assert (want != x).any()
    np.testing.assert_allclose(got, want, **CLOSE)
    streams = [jax.tree.leaves(nnx.state(m, nnx.RngCount)) for m in (model, masked)]
    assert [int(n) for n in streams[0]] == [int(n) for n in streams[1]]


def test_gradients_of_nnx_are_those_of_masking():
    x = example(Twice)

    def loss(model):
        return (model(x) * jnp.linspace(-1, 1, x.size).reshape(x.shape)).sum()

    both = [nnx.jit(nnx.value_and_grad(loss))(model) for model in (skipped(Twice), made(Twice))]
    for got, want in zip(*map(jax.tree.leaves, both), strict=True):
        np.testing.assert_allclose(got, want, **CLOSE)


def test_in_the_mode_without_graphs_a_model_is_skipped_and_gives_what_masking_gives():
    x, want = example(Twice), made(Twice)(example(Twice))
    with nnx.set_graph_mode(False):
        model = skip_dropped(made(Twice), x)
        assert reasons(model) == [""]
        np.testing.assert_allclose(nnx.jit(called)(model, x), want, **CLOSE)


@pytest.mark.parametrize("stack", [Stack, StackOfRemat])
def test_recomputed_blocks_are_skipped(stack):
    make = Rematerialized if stack is Stack else Twice
    model, masked = (stack(made(make)) for _ in range(2))
    skip_dropped(model, example())
    assert reasons(model) == [""]
    assert_agree(model, masked, example())
    assert rows_that_run(model) == {ROWS}
    assert rows_that_run(masked) == {B}


def rows_that_run(model):
    """The batch sizes of the matrix products of a step."""
    graphdef, state = nnx.split(model)
    text = str(jax.make_jaxpr(lambda s, x: nnx.merge(graphdef, s)(x))(state, example()))
    products = [line for line in text.splitlines() if "dot_general" in line]
    assert products
    return {n for n in (ROWS, B) if any(f"[{n},3,{WIDTH}]" in line for line in products)}


def test_nothing_is_compiled_anew_from_step_to_step_nor_for_another_block():
    model, traces = skipped(count=2), []

    @nnx.jit
    def train(block, x):
        traces.append(None)
        return block(x)

    SEEN.clear()
    ys = [train(model.blocks[0], example()) for _ in range(3)]
    train(model.blocks[1], example())
    assert len(traces) == 1
    assert [ROWS] == SEEN  # the probe is traced once
    assert (ys[0] != ys[1]).any()  # each step draws


def test_an_error_in_a_block_leaves_nothing_behind():
    model, x = skipped(), example()
    before = nnx.graphdef(model)
    model.fc2, fc2 = None, model.fc2
    with pytest.raises(TypeError):
        nnx.jit(called)(model, x)
    model.fc2 = fc2
    assert nnx.graphdef(model) == before
    assert len(results(model, x)) > 3


def test_within_keyed_the_masks_are_those_of_masking_offset_included():
    x, key = example(Twice), jax.random.key(5)

    @nnx.jit
    def run(model, key, offset):
        with keyed(model, key, offset=offset):
            return model(x)

    ys = [run(skipped(Twice), key, offset) for offset in (jnp.int32(0), jnp.int32(B))]
    wants = [run(made(Twice), key, offset) for offset in (jnp.int32(0), jnp.int32(B))]
    assert (wants[0] != wants[1]).any()
    for got, want in zip(ys, wants, strict=True):
        np.testing.assert_allclose(got, want, **CLOSE)


class Scanned(nnx.Module):
    """Blocks whose parameters are stacked, taken in turns."""

    def __init__(self, *, rngs):
        @nnx.split_rngs(splits=2)
        @nnx.vmap
        def make(rngs):
            return Twice(rngs=rngs)

        self.blocks = make(rngs)

    def __call__(self, x):
        return nnx.scan(lambda x, block: block(x), in_axes=(nnx.Carry, 0), out_axes=nnx.Carry)(
            x, self.blocks
        )


def test_blocks_of_stacked_parameters_stay_masked_and_say_so():
    model = Scanned(rngs=nnx.Rngs(0, dropout=1))
    skip_dropped(model, example())
    (reason,) = reasons(model)
    assert reason.startswith("the block does not run by itself, ")


@pytest.mark.parametrize("axes", [AxisType.Auto, AxisType.Explicit])
def test_over_devices_skipping_adds_no_collective(axes):
    mesh = jax.make_mesh((8,), ("data",), axis_types=(axes,))
    counts, x = [], example(Twice, 5 * 8)
    with jax.set_mesh(mesh):
        for model in (skipped(Twice), made(Twice)):
            model.drop_path.groups = 8
            graphdef, *states = nnx.split(model, nnx.Param, ...)
            placed = jax.device_put(
                (states, x), tuple(jax.NamedSharding(mesh, s) for s in (P(), P("data")))
            )
            counts.append(
                collectives(step.lower(graphdef, *placed[0], placed[1]).compile().as_text())
            )
    assert counts[1]  # the gradients of parameters are summed over devices
    assert counts[0] == counts[1]


def test_what_a_transform_has_traced_for_one_model_is_seen_for_the_next():
    for count in (1, 2):
        model = skip_dropped(made(Rematerialized, count), example())
        assert reasons(model) == [""] * len(reasons(model))
    skip_dropped(skip_dropped(model, undo=True), example())
    assert reasons(model) == [""] * len(reasons(model))


def test_an_example_that_devices_share_is_tried_on_one():
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Explicit,))
    with jax.set_mesh(mesh):
        x = jax.device_put(example(batch=8), jax.NamedSharding(mesh, P("data")))
        model = made(Twice)
        for drop in drops_of(model):
            drop.groups = 4
        assert reasons(skip_dropped(model, x)) == [""]
