"""NNX branches that "batch" mode may not run: what they hold, under every transform."""

import jax
import numpy as np
import pytest
from flax import nnx

import droppath
from droppath_flax import DropPathResidual
from droppath_flax.residual_test import numbers


class Branch(nnx.Module):
    """A linear map with statistics of what it has seen."""

    def __init__(self, width, rngs):
        self.linear = nnx.Linear(width, width, rngs=rngs)
        self.norm = nnx.BatchNorm(width, rngs=rngs)

    def __call__(self, x):
        return self.linear(self.norm(x))


@pytest.mark.parametrize("graph", [True, False])
def test_a_closed_block_leaves_its_statistics(graph):
    x = numbers(8, 4) + 1
    with nnx.set_graph_mode(graph):
        block = DropPathResidual(Branch(4, nnx.Rngs(0)), 0.5, mode="batch")
        graphdef, state = nnx.split(block)

        @jax.jit
        def step(state, key):
            def loss(state):
                block = nnx.merge(graphdef, state)
                return (block(x, key=key) ** 2).sum(), nnx.state(block, nnx.BatchStat)

            return jax.value_and_grad(loss, has_aux=True)(state)

        outcomes = set()
        for seed in range(6):
            (_, stats), gradient = step(state, jax.random.key(seed))
            kept = bool(droppath.keep_mask(droppath.key(seed), 0.5, 1, mode="batch")[0])
            outcomes.add(kept)
            moved = any(
                np.any(leaf != 0) for leaf in jax.tree.leaves(stats["branch"]["norm"]["mean"])
            )
            kernel = gradient["branch"]["linear"]["kernel"][...]
            assert (moved, bool(np.any(kernel != 0))) == (kept, kept)
    assert outcomes == {True, False}
