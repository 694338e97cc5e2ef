"""A residual block that skips is the one that masks: values, gradients, axes, refusals."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import droppath
from droppath_flax import drop_path_residual

KEY = droppath.key(11)
STEPS = {"float64": 2, "float32": 2, "bfloat16": 1, "float16": 1}  # RES-1
MODES = ["row", "balanced", "batch"]
DTYPES = list(STEPS)


def numbers(*shape, dtype="float32", seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.dtype(dtype))


def branch(x, c):
    """A map of each sample by itself, of the sign of x, with an argument for each sample."""
    return x * jnp.square(c).reshape(-1, *[1] * (x.ndim - 1))


def with_gradients(f, dy, *inputs):
    y, pull = jax.vjp(f, *inputs)
    return y, *pull(dy)


def assert_within_steps(y, want, steps):
    """Hold every number to at most this many neighbours of the wanted one, in its dtype."""
    unit = float(jnp.finfo(y.dtype).eps)
    y, want = np.asarray(y, np.float64), np.asarray(want, np.float64)
    size = np.exp2(np.floor(np.log2(np.maximum(np.abs(want), 1e-30))))
    assert y.shape == want.shape
    assert (np.abs(y - want) <= steps * unit * size).all()


@pytest.mark.slow
@settings(max_examples=30)
@given(
    batch=st.sampled_from([1, 2, 3, 8, 33]) | st.integers(1, 33),
    rank=st.integers(2, 5),
    drop_prob=st.sampled_from([0.0, 1e-3, 0.05, 0.1, 0.37, 0.5, 0.9, 1.0]),
    mode=st.sampled_from(MODES),
    dtype=st.sampled_from(DTYPES),
    groups=st.sampled_from([1, 2, 3, 4]),
    options=st.sampled_from([{}, {"scale_by_keep": False}, {"scale_at": "eval"}]),
    key=st.integers(0, 2**32 - 1).map(droppath.key),
)
def test_skipping_is_masking(batch, rank, drop_prob, mode, dtype, groups, options, key):
    groups = groups if batch % groups == 0 else 1
    x = numbers(batch, *[3] * (rank - 1), dtype=dtype)
    c, dy = numbers(batch, dtype=dtype, seed=1), numbers(*x.shape, dtype=dtype, seed=2)
    how = {"key": key, "mode": mode, "groups": groups, **options}

    @jax.jit
    def both(x, c, dy):
        skips = (None, False)
        blocks = [
            lambda x, c, skip=skip: drop_path_residual(x, branch, drop_prob, c, skip=skip, **how)
            for skip in skips
        ]
        return [with_gradients(block, dy, x, c) for block in blocks]

    with jax.enable_x64(dtype == "float64"):
        skipped, masked = jax.device_get(both(x, c, dy))
    keep = np.ones(batch, bool)
    if drop_prob:
        keep = droppath.keep_mask(key, drop_prob, batch, mode=mode, groups=groups) & (drop_prob < 1)
    for result, of in ((skipped[0], x), (masked[0], x), (skipped[1], dy), (masked[1], dy)):
        assert result.dtype == np.dtype(dtype)
        np.testing.assert_array_equal(result[~keep], of[~keep])  # RES-2, RES-7
    wide = np.float64
    s = 1 / (1 - drop_prob) if not options and drop_prob < 1 else 1
    # f is rounded to the dtype where it is handed over, or not, as the compiler likes
    f = x.astype(wide) * c.astype(wide).reshape(-1, *[1] * (rank - 1)) ** 2
    steps = STEPS[dtype] + math.ceil(2 * s)
    for y in (skipped[0], masked[0]):
        assert_within_steps(y[keep], (x + s * f)[keep], steps)
    assert_within_steps(skipped[1][keep], masked[1][keep], 2 if dtype in DTYPES[:2] else steps)
    loose = {"bfloat16": 0.1, "float16": 0.02}.get(dtype, 1e-5)  # a sum over the sample
    difference = np.abs(skipped[2].astype(wide) - masked[2].astype(wide))
    assert (difference <= loose * (1 + np.abs(masked[2].astype(wide)))).all()
    assert not skipped[2][~keep].any()


@pytest.mark.parametrize("skip", [None, False])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_what_the_branch_makes_of_dropped_rows_reaches_nothing(skip, dtype):
    x, dy = numbers(10, 3, dtype=dtype), numbers(10, 3, dtype=dtype, seed=1)
    keep = np.arange(10) % 3 == 1  # 3 of 10; balanced runs 4 of them at 0.6
    x[2], x[3] = -0.0, np.inf

    def block(x, bad):
        def poison(x, bad):  # infinite and NaN, and so are its derivatives
            return jnp.where(bad[:, None], x * jnp.nan, x)

        return drop_path_residual(x, poison, 0.6, bad, keep=keep, skip=skip)

    for transform in (lambda f: f, jax.jit):
        run = transform(lambda x: with_gradients(lambda x: block(x, ~keep), dy, x))
        y, dx = run(x)
        np.testing.assert_array_equal(
            np.asarray(y)[~keep].view(np.int8), np.asarray(x)[~keep].view(np.int8)
        )
        np.testing.assert_array_equal(np.asarray(dx)[~keep], dy[~keep])
        assert np.isfinite(np.asarray(y, np.float32)[keep]).all()
        assert (np.asarray(y)[keep] != x[keep]).all()


def test_the_stream_keeps_its_dtype():
    x, keep = numbers(8, 3, dtype="bfloat16"), np.arange(8) % 2 == 0
    for mode in MODES:
        y = drop_path_residual(x, lambda x: x.astype(jnp.float32), 0.5, keep=keep, mode=mode)
        assert y.dtype == jnp.bfloat16
        y = drop_path_residual(x.astype(jnp.float32), lambda x: x.astype(jnp.bfloat16), 0.5,
                               keep=keep, mode=mode)  # fmt: skip
        assert y.dtype == jnp.float32


def test_evaluation_is_the_plain_block_or_the_papers():
    x, c = numbers(6, 3), numbers(6, seed=1)
    f = x.astype(np.float64) * c.astype(np.float64)[:, None] ** 2
    run = partial(drop_path_residual, x, branch)
    for mode in MODES:
        options = {"mode": mode, "deterministic": True}
        assert_within_steps(run(0.3, c, **options), x + f, 3)
        assert_within_steps(run(0.3, c, **options, scale_at="eval"), x + 0.7 * f, 3)
        y = run(1.0, c * np.nan, **options, scale_at="eval")
        np.testing.assert_array_equal(y, x)
        assert_within_steps(run(0.0, c, mode=mode), x + f, 3)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"skip": 1}, "skip must be None, True or False, got 1"),
        (
            {"drop_prob": jnp.float32(0.1), "skip": True},
            "skip must be None or False here, got True: the number of rows is static, and drop_prob"
            " is a JAX array",
        ),
        (
            {"mode": "row", "skip": True},
            "skip must be None or False here, got True: a program is compiled for a number of rows,"
            " and mode='row' draws that number",
        ),
        (
            {"keep": np.ones(8, bool), "key": None, "skip": True},
            "skip must be None or False here, got True: keep keeps more than the 5 rows of a group "
            "that mode='balanced' runs",
        ),
        (
            {"branch": lambda x: x[:, :1]},
            "branch must return the shape it is given, (5, 3), got (5, 1)",
        ),
        *(
            (
                {"drop_prob": p, "deterministic": t},
                f"drop_prob must be a number in [0, 1], got {p!r}",
            )
            for p in (-0.1, 1.5, math.nan, None, "0.1", True)
            for t in (True, False)
        ),
        ({"branch": None}, "branch must be callable, got None"),
        (
            {"branch": lambda x: "y"},
            "branch must return an array of numbers, got str",
        ),
        (
            {"branch": lambda x: x > 0},
            "branch must return float64, float32, float16 or bfloat16, got bool",
        ),
        ({"x": None}, "x must be an array of numbers, got NoneType"),
        ({"deterministic": "False"}, "deterministic must be True or False, got 'False'"),
        ({"per_sample": "m"}, "per_sample must be an array of numbers, got str"),
        ({"groups": 3}, "groups must divide the batch, got groups=3 for batch=8"),
        ({"mode": "rows"}, "mode must be one of 'row', 'balanced', 'batch', got 'rows'"),
        ({"axis": 2}, "x must have the batch axis 2, got shape (8, 3)"),
        ({"key": None}, "key must be given to drop in training, or keep, got none"),
    ],
)
def test_what_cannot_be_is_refused(change, text):
    right = {"x": jnp.ones((8, 3)), "branch": jnp.negative, "drop_prob": 0.4, "key": KEY}
    arguments = {**right, **change}
    places = [arguments.pop(name) for name in ("x", "branch", "drop_prob")]
    per_sample = [arguments.pop("per_sample")] if "per_sample" in arguments else []
    with pytest.raises(ValueError) as error:
        drop_path_residual(*places, *per_sample, **arguments)
    assert str(error.value) == text


@pytest.mark.parametrize("mode", MODES)
def test_samples_without_a_number_come_back(mode):
    for shape in ((8, 0), (8, 0, 3)):
        y = drop_path_residual(jnp.ones(shape), jnp.negative, 0.5, key=KEY, mode=mode)
        assert y.shape == shape


def test_another_axis_can_be_the_batch_and_trees_follow():
    x, tree = numbers(8, 3, 2), {"c": numbers(8, seed=1), "id": np.arange(8)}

    def f(x, tree):
        return branch(x, tree["c"]) + tree["id"][:, None, None]

    for mode in MODES:
        want = drop_path_residual(x, f, 0.4, tree, key=KEY, mode=mode)
        for axis in (1, -1):

            def moved(x, tree, axis=axis):
                return jnp.moveaxis(f(jnp.moveaxis(x, axis, 0), tree), 0, axis)

            y = drop_path_residual(
                np.moveaxis(x, 0, axis), moved, 0.4, tree, key=KEY, mode=mode, axis=axis
            )
            np.testing.assert_allclose(np.moveaxis(y, axis, 0), want, rtol=1e-6)
    with pytest.raises(ValueError, match=r"^per_sample must begin with the batch of 8"):
        drop_path_residual(x, f, 0.4, {"c": tree["c"][:5], "id": tree["id"]}, key=KEY)
