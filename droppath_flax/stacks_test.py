"""A stack under a plan: the layers that run, by hand and beside masking; gradients, refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import droppath
from droppath_flax import drop_path_stack, layer_plan

WHOLE = droppath.drop_path_rates(0.5, 6, whole=True)
SPARE = [0.3] * 6
WEIGHTS = jax.random.normal(jax.random.key(0), (6, 4, 4)) / 2
X = jax.random.normal(jax.random.key(1), (5, 4))


def branch(w, x):
    return jnp.tanh(x @ w)


def masked(x, params, rates, runs, factor=lambda p: 1 / (1 - p)):
    """The stack that runs all layers and selects."""
    for layer, p in enumerate(rates):
        f = branch(params[layer], x)
        x = jnp.where(runs[layer], x + jnp.float32(factor(p)) * f, x)
    return x


@pytest.mark.parametrize("rates", [WHOLE, SPARE, [0.0] * 6, [0.5, 1.0, 0.5, 0.0, 1.0, 1.0]])
def test_values_and_gradients_are_those_of_masking(rates):
    @jax.jit
    def ours(x, params, key):
        return (drop_path_stack(x, branch, params, rates, key=key) ** 2).sum()

    @jax.jit
    def theirs(x, params, key):
        runs = layer_plan(key, rates)
        factor = lambda p: 1 / (1 - p) if p < 1 else 1.0  # noqa: E731
        return (masked(x, params, rates, runs, factor) ** 2).sum()

    for i in range(5):
        arguments = X, WEIGHTS, jax.random.key(i)
        np.testing.assert_allclose(ours(*arguments), theirs(*arguments), rtol=1e-5)
        grads = [jax.grad(f, argnums=(0, 1))(*arguments) for f in (ours, theirs)]
        for got, want in zip(*grads, strict=True):
            np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-6)


def test_a_program_runs_the_planned_depth_and_is_compiled_once():
    ran, traced = [], []

    def noted(w, x):
        traced.append(1)
        jax.debug.callback(lambda: ran.append(1))
        return branch(w, x)

    program = jax.jit(lambda key: drop_path_stack(X, noted, WEIGHTS, WHOLE, key=key))
    for i in range(6):
        program(jax.random.key(i)).block_until_ready()
    jax.effects_barrier()
    assert len(ran) == 6 * droppath.planned_depth(WHOLE) == 6 * 5
    before = len(traced)
    program(jax.random.key(9))
    assert len(traced) == before


def test_what_a_spare_makes_reaches_nothing():
    params = jnp.ones((4, 1))

    def infinite(w, x):  # for the layers that are dropped alone
        return x * w

    rates = [0.3] * 4
    key = next(k for k in map(jax.random.key, range(99)) if int(layer_plan(k, rates).sum()) == 2)
    runs = layer_plan(key, rates)
    bad = jnp.where(runs[:, None], params, jnp.nan)

    def loss(params, x):
        return drop_path_stack(x, infinite, params, rates, key=key).sum()

    value, (dparams, dx) = jax.value_and_grad(loss, argnums=(0, 1))(bad, jnp.ones((2, 3)))
    assert jnp.isfinite(value)
    assert jnp.isfinite(dx).all()
    assert (dparams[~runs] == 0).all()
    assert jnp.isfinite(dparams).all()


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_the_stream_keeps_its_dtype(dtype):
    y = drop_path_stack(X.astype(dtype), branch, WEIGHTS, WHOLE, key=droppath.key(1))
    assert y.dtype == dtype


@pytest.mark.parametrize(
    ("options", "factor"), [({}, lambda p: 1.0), ({"scale_at": "eval"}, lambda p: 1 - p)]
)
def test_all_layers_run_in_evaluation(options, factor):
    y = drop_path_stack(X, branch, WEIGHTS, WHOLE, deterministic=True, **options)
    np.testing.assert_allclose(y, masked(X, WEIGHTS, WHOLE, [True] * 6, factor), rtol=1e-5)


def test_a_plan_that_is_given_decides():
    plan = np.array([True, False, True, False, False, True])
    y = drop_path_stack(X, branch, WEIGHTS, WHOLE, plan=plan)
    np.testing.assert_allclose(y, masked(X, WEIGHTS, WHOLE, plan), rtol=1e-5)
    every = drop_path_stack(X, branch, WEIGHTS, WHOLE, plan=np.ones(6, bool))
    np.testing.assert_allclose(every, masked(X, WEIGHTS, WHOLE, [True] * 6), rtol=1e-5)
    traced = jax.jit(lambda plan: drop_path_stack(X, branch, WEIGHTS, WHOLE, plan=plan))(plan)
    np.testing.assert_allclose(traced, y, rtol=1e-6)


def test_layers_of_nnx_that_vmap_makes():
    @nnx.split_rngs(splits=6)
    @nnx.vmap(in_axes=0, out_axes=0)
    def make(rngs):
        return nnx.Linear(4, 4, rngs=rngs)

    graphdef, params = nnx.split(make(nnx.Rngs(0)))

    def call(params, x):
        return nnx.merge(graphdef, params)(x)

    def loss(params):
        return drop_path_stack(X, call, params, WHOLE, key=jax.random.key(2)).sum()

    grads = jax.jit(jax.grad(loss))(params)
    dropped = ~np.asarray(layer_plan(jax.random.key(2), WHOLE))
    assert (np.abs(grads["kernel"][...]).sum((1, 2)) == 0).tolist() == dropped.tolist()


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"rates": WHOLE[:5]}, "rates must be a list of 6 rates, got "),
        ({"rates": [1.5] * 6}, "rates must be a number in [0, 1], got 1.5"),
        ({"key": None}, "key must be given to drop in training, or plan, got none"),
        ({"plan": np.ones(6, bool)}, "key and plan must not both be given"),
        (
            {"key": None, "plan": np.ones(5, bool)},
            "plan must be bool of shape (6,), got bool",
        ),
        ({"key": None, "plan": np.ones(6)}, "plan must be bool of shape (6,), got float"),
        (
            {"params": {"a": WEIGHTS, "b": WEIGHTS[:5]}},
            "params must be arrays [L, ...] of one L",
        ),
        ({"params": {}}, "params must be arrays [L, ...] of one L, got shapes []"),
        ({"params": jnp.float32(1)}, "params must be arrays [L, ...] of one L, got shapes [()]"),
        ({"branch": None}, "branch must be callable, got None"),
        ({"branch": lambda w, x: x.sum()}, "branch must return the shape it is given"),
        ({"x": jnp.ones(3, int)}, "x must be "),
        ({"deterministic": 0}, "deterministic must be "),
        ({"scale_at": "never"}, "scale_at must be "),
    ],
)
def test_what_is_wrong_is_named(changes, text):
    right = {"x": X, "branch": branch, "params": WEIGHTS, "rates": WHOLE, "key": droppath.key(0)}
    with pytest.raises(ValueError) as error:
        drop_path_stack(**right | changes)
    assert str(error.value).startswith(text)
