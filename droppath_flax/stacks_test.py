"""A stack under a plan: the layers that run, by hand and beside masking; gradients, refusals."""

from functools import partial
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

import droppath
from droppath_flax import drop_path_stack, layer_plan, stack_layers

WHOLE = droppath.drop_path_rates(0.5, 6, whole=True)
SPARE = [0.3] * 6
WEIGHTS = jax.random.normal(jax.random.key(0), (6, 4, 4)) / 2
X = jax.random.normal(jax.random.key(1), (5, 4))
KEY = jax.random.key(2)


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
    known = jax.jit(lambda x: drop_path_stack(x, branch, WEIGHTS, WHOLE, plan=np.ones(6, bool)))
    np.testing.assert_allclose(known(X), every, rtol=1e-6)
    traced = jax.jit(lambda plan: drop_path_stack(X, branch, WEIGHTS, WHOLE, plan=plan))(plan)
    np.testing.assert_allclose(traced, y, rtol=1e-6)


@nnx.split_rngs(splits=6)
@nnx.vmap(in_axes=0, out_axes=0)
def made(rngs):
    return nnx.Linear(4, 4, rngs=rngs)


def listed(rngs):
    return stack_layers([nnx.Linear(4, 4, rngs=rngs) for _ in range(6)])


@pytest.mark.parametrize("remat", [False, True])
@pytest.mark.parametrize("make", [made, listed])
def test_layers_of_nnx_that_vmap_makes_or_a_list(make, remat):
    graphdef, params = nnx.split(make(nnx.Rngs(0)))

    def call(params, x):
        return nnx.merge(graphdef, params)(x)

    layer = jax.checkpoint(call) if remat else call

    def loss(params):
        return drop_path_stack(X, layer, params, WHOLE, key=jax.random.key(2)).sum()

    value, grads = jax.jit(jax.value_and_grad(loss))(params)
    runs = np.asarray(layer_plan(jax.random.key(2), WHOLE))
    assert (np.abs(grads["kernel"][...]).sum((1, 2)) != 0).tolist() == runs.tolist()
    x = X
    for kernel, bias, p, run in zip(
        params["kernel"][...], params["bias"][...], WHOLE, runs, strict=True
    ):
        x = x + (x @ kernel + bias) / (1 - p) if run else x
    np.testing.assert_allclose(value, x.sum(), rtol=1e-5)


def test_layers_of_linen():
    layer = linen.Dense(4)
    variables = stack_layers([layer.init(jax.random.key(i), X) for i in range(6)])
    y = jax.jit(lambda v: drop_path_stack(X, layer.apply, v, WHOLE, key=KEY))(variables)
    kernels, runs = variables["params"]["kernel"], np.asarray(layer_plan(KEY, WHOLE))
    x = X
    for kernel, p, run in zip(kernels, WHOLE, runs, strict=True):
        x = x + x @ kernel / (1 - p) if run else x
    np.testing.assert_allclose(y, x, rtol=1e-5)


def test_a_layer_that_does_not_run_keeps_its_state():
    norms = stack_layers([nnx.BatchNorm(4, rngs=nnx.Rngs(0)) for _ in range(6)])
    graphdef, params, state = nnx.split(norms, nnx.Param, ...)

    def branch(params, state, x):
        norm = nnx.merge(graphdef, params, state)
        return norm(x), nnx.state(norm, nnx.Not(nnx.Param))

    for options, runs in (
        ({"key": KEY}, np.asarray(layer_plan(KEY, WHOLE))),
        ({"plan": np.zeros(6, bool)}, np.zeros(6, bool)),
        ({"deterministic": True}, np.ones(6, bool)),  # whose norms are in training all the same
    ):
        y, after = jax.jit(
            lambda state, o=options: drop_path_stack(X, branch, params, WHOLE, state=state, **o)
        )(state)
        moved = np.any(after["mean"][...] != state["mean"][...], axis=1)
        assert moved.tolist() == runs.tolist()
        assert y.shape == X.shape


def test_a_state_may_be_differentiated():
    def branch(w, state, x):
        return x @ w, state * jnp.sin(x.sum())

    def loss(state, x, stack):
        y, after = stack(state, x)
        return (y**2).sum() + (after**2).sum()

    def ours(state, x):
        return drop_path_stack(x, branch, WEIGHTS, WHOLE, state=state, key=KEY)

    def theirs(state, x):
        after = []
        for w, s, p, run in zip(WEIGHTS, state, WHOLE, layer_plan(KEY, WHOLE), strict=True):
            f, new = branch(w, s, x)
            x = jnp.where(run, x + jnp.float32(1 / (1 - p)) * f, x)
            after.append(jnp.where(run, new, s))
        return x, jnp.stack(after)

    grads = [jax.grad(loss, argnums=(0, 1))(jnp.arange(6.0), X, f) for f in (ours, theirs)]
    for got, want in zip(*grads, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


def test_rates_may_be_data_of_one_program():
    traced = []

    @jax.jit
    def program(rates, key):
        traced.append(1)
        return drop_path_stack(X, branch, WEIGHTS, rates, key=key, depth=5)

    for rates, seed in product([WHOLE, [0.25] * 6, [1.0, 0, 0, 0, 0, 0]], range(4)):
        key = jax.random.key(seed)
        got = program(jnp.array(rates), key)
        want = drop_path_stack(X, branch, WEIGHTS, rates, key=key)
        np.testing.assert_allclose(got, want, rtol=1e-5)
        given = drop_path_stack(X, branch, WEIGHTS, jnp.array(rates), key=key, depth=6)
        np.testing.assert_allclose(given, want, rtol=1e-5)
    assert len(traced) == 1
    late = {"deterministic": True, "scale_at": "eval"}
    ys = [drop_path_stack(X, branch, WEIGHTS, r, **late) for r in (WHOLE, jnp.array(WHOLE))]
    np.testing.assert_allclose(*ys, rtol=1e-5)


def test_a_ramp_in_whole_layers_takes_as_few_programs():
    traced = []

    @partial(jax.jit, static_argnums=0)
    def program(rates, key):
        traced.append(sum(rates))
        return drop_path_stack(X, branch, WEIGHTS, list(rates), key=key)

    for step in range(40):
        rate = droppath.ramp(step, begin=0, end=30, start=0.9, stop=0.0)
        rates = droppath.drop_path_rates(rate, 6, whole=True)
        program(tuple(rates), jax.random.key(step))
    assert traced == [3, 2, 1, 0]


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
        ({"depth": 5}, "depth must be None where rates is no JAX array, got 5"),
        ({"rates": jnp.array(WHOLE)}, "depth must be in [5, 6] where rates is a JAX array, got "),
        ({"rates": jnp.array(WHOLE), "depth": 4}, "depth must be in [5, 6] where rates is "),
        ({"rates": jnp.array([1.5] * 6)}, "rates must be a number in [0, 1], got 1.5"),
        ({"rates": jnp.array(WHOLE)[:5]}, "rates must be a list of 6 rates, got "),
        ({"state": jnp.ones((5, 2))}, "state must be arrays [L, ...] with L = 6, got shapes"),
        ({"state": jnp.ones(6)}, "branch must return a pair, (f, state), got "),
        (
            {"state": jnp.ones(6), "branch": lambda w, state, x: (x, state[None])},
            "branch must return a state of the form it is given, float32[], got float32[1]",
        ),
    ],
)
def test_what_is_wrong_is_named(changes, text):
    right = {"x": X, "branch": branch, "params": WEIGHTS, "rates": WHOLE, "key": droppath.key(0)}
    if "state" in changes:
        right["branch"] = lambda w, state, x: x
    with pytest.raises(ValueError) as error:
        drop_path_stack(**right | changes)
    assert str(error.value).startswith(text)
