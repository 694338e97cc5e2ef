"""NNX branches that "batch" mode may not run: what they hold, under every transform."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx
from flax.errors import TraceContextError
from jax.extend.core import jaxprs_in_params

import droppath
import droppath_flax.linen
from droppath_flax import DropPathResidual, drop_path_residual
from droppath_flax.residual_test import numbers

KEPT, DROPPED = (
    next(
        key
        for key in map(droppath.key, range(8))
        if droppath.keep_mask(key, 0.5, 1, mode="batch").all() == kept
    )
    for kept in (True, False)
)


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


class Linear(nnx.Module):
    """A branch without changing state."""

    def __init__(self, width):
        self.linear = nnx.Linear(width, width, rngs=nnx.Rngs(0))

    def __call__(self, x):
        return jnp.tanh(self.linear(x))


X = numbers(8, 4)
KEEPS, DROPS = droppath.key(0), droppath.key(1)


def closed_over(block):
    """The block in JAX's own transforms, which know nothing of the modules they close over."""
    return {
        "jit": lambda x, key: jax.jit(lambda x, key: block(x, key=key))(x, key),
        "grad": lambda x, key: jax.grad(lambda x: (block(x, key=key) ** 2).sum())(x),
        "vmap": lambda x, key: jax.vmap(lambda x: block(x, key=key))(x[None])[0],
        "vmap of keys": lambda x, key: jax.vmap(lambda key: block(x, key=key))(key[None])[0],
        "eval_shape": lambda x, key: jax.eval_shape(lambda x: block(x, key=key), x),
        "checkpoint": lambda x, key: jax.grad(
            jax.checkpoint(lambda x: (block(x, key=key) ** 2).sum())
        )(x),
        "scan": lambda x, key: jax.lax.scan(lambda x, _: (block(x, key=key), None), x, None, 1)[0],
    }


@pytest.mark.parametrize("graph", [True, False])
@pytest.mark.parametrize("transform", closed_over(None))
def test_a_block_can_be_closed_over_by_any_transform(transform, graph):
    assert droppath.keep_mask(KEEPS, 0.5, 1, mode="batch")[0]
    assert not droppath.keep_mask(DROPS, 0.5, 1, mode="batch")[0]
    with nnx.set_graph_mode(graph):
        block = DropPathResidual(Linear(4), 0.5, mode="batch")
        masked = DropPathResidual(block.branch, 0.5, mode="batch", skip=False)
        for key in (KEEPS, DROPS):
            want = closed_over(masked)[transform](X, key)
            y = closed_over(block)[transform](X, key)
            if transform == "eval_shape":
                assert (y.shape, y.dtype) == (want.shape, want.dtype)
            else:
                np.testing.assert_allclose(y, want, rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(block(X, key=DROPS), X)


@pytest.mark.parametrize("transform", ["jit", "grad", "vmap", "eval_shape", "checkpoint"])
def test_statistics_that_a_plain_transform_would_leak_are_refused_and_the_block_stays(transform):
    block = DropPathResidual(Branch(4, nnx.Rngs(0)), 0.5, mode="batch")
    before = jax.tree.leaves(nnx.state(block))
    for made in (block.branch, partial(block, key=KEEPS)):  # as Flax refuses it without us
        with pytest.raises(TraceContextError, match="Cannot mutate BatchStat"):
            closed_over(lambda x, key, made=made: made(x))[transform](X, KEEPS)
    after = jax.tree.leaves(nnx.state(block))
    assert all(a is b for a, b in zip(after, before, strict=True))
    assert (np.asarray(block(X, key=KEEPS)) != X).any()
    assert np.any(block.branch.norm.mean[...] != 0)


def test_a_branch_that_may_not_run_is_traced_once():
    traces = []

    class Counted(Linear):
        def __call__(self, x):
            traces.append(None)
            return super().__call__(x)

    block = DropPathResidual(Counted(4), 0.5, mode="batch")
    jax.jit(lambda x, key: block(x, key=key)).lower(X, KEEPS)
    assert len(traces) == 1


def test_what_a_branch_draws_leaves_its_stream_where_it_ran_only():
    class Noisy(nnx.Module):
        def __init__(self):
            self.dropout = nnx.Dropout(0.5, rngs=nnx.Rngs(3))

        def __call__(self, x):
            return self.dropout(x)

    block = DropPathResidual(Noisy(), 0.5, mode="batch")
    run = nnx.jit(lambda block, x, key: block(x, key=key))
    for key, count in ((DROPS, 0), (KEEPS, 1), (DROPS, 1), (KEEPS, 2)):
        run(block, X, key)
        assert block.branch.dropout.rngs.count[...] == count


def changes_its_parameters(branch):
    branch.linear.kernel[...] = branch.linear.kernel[...] * 2


def adds_a_variable(branch):
    branch.seen = nnx.Intermediate(jnp.zeros(()))


def counts_its_calls(branch):
    branch.calls = getattr(branch, "calls", 0) + 1


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (
            changes_its_parameters,
            "branch must not change its parameters in mode='batch', which may skip it: use "
            "skip=False",
        ),
        *(
            (
                change,
                "branch must hold the same variables and attributes after a call in mode='batch', "
                "which may skip it: use skip=False",
            )
            for change in (adds_a_variable, counts_its_calls)
        ),
    ],
)
def test_a_branch_that_changes_more_than_its_statistics_is_refused_and_stays(change, text):
    class Changing(Linear):
        def __call__(self, x):
            change(self)
            return super().__call__(x)

    block = DropPathResidual(Changing(4), 0.5, mode="batch")
    for run in (lambda block: block(X, key=KEEPS), nnx.jit(lambda block: block(X, key=KEEPS))):
        graphdef, state = nnx.split(block)
        before = jax.tree.map(np.asarray, state)
        with pytest.raises(ValueError) as error:
            run(block)
        assert str(error.value) == text
        assert nnx.split(block)[0] == graphdef
        jax.tree.map(np.testing.assert_array_equal, nnx.split(block)[1], before)
    block.skip = False
    block(X, key=KEEPS)


def products(x, w):
    return jax.nn.gelu(jnp.tanh(jax.nn.gelu(x @ w)) @ w)


def of_function(x, w, **call):
    return drop_path_residual(x, partial(products, w=w), 0.5, **call)


def of_nnx(x, w, **call):
    class Products(nnx.Module):
        def __init__(self):
            self.w = nnx.Param(w)

        def __call__(self, x):
            return products(x, self.w[...])

    return drop_path_residual(x, Products(), 0.5, **call)


def of_linen(x, w, **call):
    class Products(linen.Module):
        @linen.compact
        def __call__(self, x):
            return products(x, self.param("w", lambda _: w))

    block = droppath_flax.linen.DropPathResidual(Products(), 0.5, mode=call.pop("mode"))
    return block.apply({"params": {"branch": {"w": w}}}, x, **call)


@pytest.mark.parametrize("block", [of_function, of_nnx, of_linen])
def test_of_a_branch_the_gradient_keeps_what_its_products_gave(block):
    """All else would be written and read for nothing: six cheap results of a GELU, for one."""
    x, w = numbers(8, 3), numbers(3, 3, seed=2)
    call = {"mode": "batch", "key": KEPT}

    def loss(x, w, block=block):
        return block(x, w, **call).sum()

    condition = find_eqn(jax.make_jaxpr(jax.grad(loss, (0, 1)))(x, w).jaxpr, "cond")
    shapes = [var.aval.shape for var in condition.outvars]
    if block is of_linen:  # whose own cond copies what goes in
        assert [shapes.count(a.shape) for a in (x, w)] in ([4, 1], [3, 0])  # JAX 0.10, 0.12
    else:
        assert sorted(shapes) == [(8,), *[x.shape] * 3]  # the mask; y and two products
    want = jax.grad(lambda x, w: (x + 2 * products(x, w)).sum(), (0, 1))(x, w)
    for a, b in zip(jax.grad(loss, (0, 1))(x, w), want, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def find_eqn(jaxpr, name):
    """The first equation of a primitive, in the order of the program, inner ones too."""
    for eqn in jaxpr.eqns:
        if eqn.primitive.name == name:
            return eqn
        for inner in jaxprs_in_params(eqn.params):
            if (found := find_eqn(inner, name)) is not None:
                return found
    return None


def compilations(run):
    """How many programs XLA compiles for run()."""
    events = []
    noted = lambda event, *_, **__: events.append(event)  # noqa: E731
    jax.monitoring.register_event_duration_secs_listener(noted)
    run()
    jax.monitoring.unregister_event_duration_listener(noted)
    return sum("backend_compile" in event for event in events)


@pytest.mark.parametrize("branch", [jnp.tanh, Linear(4)])
def test_an_eager_call_runs_its_branch_or_not_and_compiles_nothing_for_that(branch):
    ran = []

    def step(key):
        def fresh(x):
            ran.append(1)
            return branch(x)

        block = partial(drop_path_residual, branch=fresh, drop_prob=0.5, key=key, mode="batch")
        y, pull = jax.vjp(block, X)
        return y, pull(y)[0]

    (y, dx), (stayed, dy) = step(KEPT), step(DROPPED)
    assert len(ran) == 1
    np.testing.assert_allclose(y, X + 2 * branch(X), rtol=1e-6)
    assert not np.allclose(dx, y)
    assert (stayed == X).all()
    assert (dy == X).all()
    assert compilations(lambda: jax.jit(lambda x: x * 3)(X)) == 1  # they are seen
    assert compilations(lambda: [step(KEPT), step(DROPPED)]) == 0
