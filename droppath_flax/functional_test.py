"""Outputs and gradients equal to droppath's bit for bit, eager and transformed; every refusal."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import droppath
from droppath_flax.functional import drop_path
from droppath_flax.residual import drop_path_residual

FLOATS = "float64, float32, float16 or bfloat16"

DTYPES = ["float64", "float32", "bfloat16", "float16"]
KEY = droppath.fold_in(droppath.key(9), 1)
BATCH = 32


def numbers(dtype, *shape, seed=0):
    """Normal numbers between 2**-8 and 2**8 in size, of both signs; none is subnormal."""
    rng = np.random.default_rng(seed)
    size = rng.uniform(1, 2, shape) * 2.0 ** rng.integers(-8, 8, shape)
    return (size * rng.choice([-1, 1], shape)).astype(np.dtype(dtype))


def assert_same_bits(y, want):
    y = np.asarray(y)
    assert (y.dtype, y.shape) == (want.dtype, want.shape)
    assert want.size
    np.testing.assert_array_equal(y.view(f"u{y.itemsize}"), want.view(f"u{y.itemsize}"))


def assert_within_steps(y, want, steps):
    """Hold every number to at most this many representable numbers from the wanted one."""
    y = np.asarray(y)
    assert (y.dtype, y.shape) == (want.dtype, want.shape)
    assert (np.signbit(y) == np.signbit(want)).all()
    gap = y.view(f"i{y.itemsize}").astype(np.int64) - want.view(f"i{y.itemsize}").astype(np.int64)
    assert np.abs(gap).max() <= steps


def with_gradient(f):
    """Return (x, dy) -> f(x) and the gradient for dy."""

    def run(x, dy):
        y, pull = jax.vjp(f, x)
        return y, pull(dy)[0]

    return run


OPTIONS = [{}, {"scale_by_keep": False}, {"scale_at": "eval"}]


@pytest.mark.parametrize("drop_prob", [0.1, 0.9])
@pytest.mark.parametrize("dtype", DTYPES)
def test_output_and_gradient_are_droppaths(dtype, drop_prob):
    keep = droppath.keep_mask(KEY, drop_prob, BATCH)
    assert 0 < keep.sum() < BATCH
    x, dy = numbers(dtype, BATCH, 5), numbers(dtype, BATCH, 5, seed=1)

    def run(x, dy):
        paths = [partial(drop_path, drop_prob=drop_prob, key=KEY, **options) for options in OPTIONS]
        return [with_gradient(path)(x, dy) for path in paths]

    with jax.enable_x64(dtype == "float64"):
        for results in (run(x, dy), jax.jit(run)(x, dy)):
            for (y, dx), options in zip(results, OPTIONS, strict=True):
                assert_same_bits(y, droppath.drop_path(x, keep, drop_prob, **options))
                assert_same_bits(dx, droppath.drop_path_vjp(dy, keep, drop_prob, **options))


@pytest.mark.parametrize("rate_dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_traced_rate_is_within_four_steps(dtype, rate_dtype):
    x, keep = numbers(dtype, 64, 5), np.arange(64) % 3 > 0
    with jax.enable_x64(dtype == "float64"):
        paper = partial(drop_path, deterministic=True, scale_at="eval")
        run = jax.jit(lambda p: (drop_path(x, p, keep=keep), paper(x, p)))
        for value in (0.0, 1e-3, 0.1, 0.37, 0.9, 0.99):
            p = jnp.asarray(value, rate_dtype)
            train, evaluation = run(p)
            assert_within_steps(train, droppath.drop_path(x, keep, float(p)), 4)
            want = droppath.drop_path(x, keep, float(p), training=False, scale_at="eval")
            assert_within_steps(evaluation, want, 4)


@pytest.mark.parametrize("dtype", DTYPES)
def test_at_a_rate_of_one_all_is_zero_and_the_gradient_too(dtype):
    x = numbers(dtype, 8, 3)
    x[2], x[5] = np.inf, np.nan
    zeros, keep = np.zeros_like(x), np.ones(8, bool)

    def run(p, x, dy):
        return with_gradient(lambda x: drop_path(x, p, keep=keep))(x, dy)

    with jax.enable_x64(dtype == "float64"):
        for p in (1.0, jnp.float32(1)):
            assert_same_bits(drop_path(x, p, deterministic=True, scale_at="eval"), zeros)
            for result in (*run(p, x, x), *jax.jit(partial(run, p))(x, x)):
                assert_same_bits(result, zeros)
        for result in jax.jit(run)(jnp.float32(1), x, x):
            assert_same_bits(result, zeros)


@pytest.mark.parametrize("drop_prob", [0.9, jnp.float32(0.9)])
def test_dropped_rows_are_zero_whatever_they_hold_and_kept_ones_hold_it(drop_prob):
    x = np.array([np.inf, np.nan, -np.inf, -0.0, 60000, -0.0, np.inf, np.nan, 60000], np.float16)
    keep = np.arange(9) > 4
    for transformed in (lambda f: f, jax.jit):
        run = transformed(with_gradient(lambda x: drop_path(x, drop_prob, keep=keep)))
        for y in run(x, x):
            assert_same_bits(y[:5], np.zeros(5, np.float16))
            assert_same_bits(y[5:7], np.array([-0.0, np.inf], np.float16))
            assert np.isnan(y[7])
            assert y[8] == np.inf  # 600000 is no float16


@pytest.mark.parametrize("rank", range(1, 7))
def test_every_axis_of_every_rank_can_be_the_batch(rank):
    x = numbers("float32", *(3,) * rank)  # a mask on a wrong axis would broadcast as well
    keep = np.array([True, False, True])
    for axis in range(-rank, rank):
        y = drop_path(x, 0.37, keep=keep, axis=axis)
        assert_same_bits(y, droppath.drop_path(x, keep, 0.37, axis=axis))


def test_an_empty_batch_gives_an_empty_output():
    for mode in ("row", "balanced", "batch"):
        y = drop_path(jnp.ones((2, 0, 3), jnp.bfloat16), 0.37, key=KEY, mode=mode, axis=1)
        assert (y.shape, y.dtype) == ((2, 0, 3), jnp.bfloat16)


@pytest.mark.parametrize(
    "options",
    [
        {"mode": "row", "offset": 7},
        {"mode": "balanced", "groups": 4, "offset": 16},
        {"mode": "batch"},
    ],
)
def test_the_mask_is_keep_masks_for_each_option_and_dtype(options):
    want = droppath.keep_mask(KEY, 0.37, BATCH, **options)
    for dtype in ("float32", "bfloat16", "float16"):
        y = drop_path(jnp.full((2, BATCH), jnp.nan, dtype), 0.37, key=KEY, axis=1, **options)
        np.testing.assert_array_equal(jnp.isnan(y), [want, want])


@pytest.mark.parametrize("call", [{"deterministic": True}, {"drop_prob": 0.0}, {"drop_prob": 0}])
def test_evaluation_and_a_rate_of_zero_return_x_without_a_key(call):
    x = np.array([np.inf, -0.0, 1e-45, 3], np.float32)
    for run in (drop_path, jax.jit(drop_path, static_argnames=("drop_prob", "deterministic"))):
        assert_same_bits(run(x, **{"drop_prob": 0.37, **call}), x)
    assert_same_bits(drop_path(x, jnp.float32(0.37), deterministic=True), x)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_papers_scaling_multiplies_at_evaluation_only(dtype):
    x = numbers(dtype, 8, 3)
    want = droppath.drop_path(x, np.ones(8, bool), 0.37, training=False, scale_at="eval")
    with jax.enable_x64(dtype == "float64"):
        assert_same_bits(drop_path(x, 0.37, deterministic=True, scale_at="eval"), want)
        options = {"deterministic": True, "scale_at": "eval", "scale_by_keep": False}
        assert_same_bits(drop_path(x, 0.37, **options), x)


def test_vmap_gives_each_example_its_own_mask_and_rate():
    x, keys = numbers("bfloat16", 3, BATCH, 2), jax.random.split(jax.random.key(2), 3)
    rates = jnp.float32([0.1, 0.37, 0.9])
    static = jax.jit(jax.vmap(lambda x, key: drop_path(x, 0.37, key=key)))(x, keys)
    mapped = jax.jit(jax.vmap(lambda x, p, key: drop_path(x, p, key=key)))(x, rates, keys)
    for i, rate in enumerate(rates):
        assert_same_bits(static[i], np.asarray(drop_path(x[i], 0.37, key=keys[i])))
        assert_same_bits(mapped[i], np.asarray(drop_path(x[i], rate, key=keys[i])))


def layer(x, w, p, key):
    return x + drop_path(w * x, p, key=key)


def test_a_scan_over_layers_is_the_unrolled_loop_with_and_without_checkpoints():
    depth, x = 4, numbers("float32", BATCH, 2)
    keys, w = jax.random.split(jax.random.key(3), depth), jnp.float32([0.5, 1, 2, 0.25])
    # w and 1/(1-p) are powers of 2: XLA fuses products into sums, and these round alike.
    rates = jnp.float32([0, 0.5, 0.75, 0.875])

    def scanned(one, x):
        return jax.lax.scan(lambda x, args: (one(x, *args), None), x, (w, rates, keys))[0]

    def unrolled(x):
        for i in range(depth):
            x = layer(x, w[i], rates[i], keys[i])
        return x

    want = [np.asarray(result) for result in with_gradient(unrolled)(x, x)]
    assert len(np.unique((want[0] / x).round(3))) > 3  # rows have lost various layers
    for f in (unrolled, partial(scanned, layer), partial(scanned, jax.checkpoint(layer))):
        for result, expected in zip(jax.jit(with_gradient(f))(x, x), want, strict=True):
            assert_same_bits(result, expected)


def test_another_key_rate_or_offset_does_not_recompile():
    traces = []

    @jax.jit
    def run(key, p, offset):
        traces.append(None)
        return drop_path(jnp.ones(BATCH), p, key=key, offset=offset)

    outputs = {
        np.asarray(run(jax.random.key(seed), jnp.float32(p), jnp.int32(offset))).tobytes()
        for seed in range(4)
        for p in (0.37, 0.9)
        for offset in (0, 8)
    }
    assert (len(outputs), len(traces)) == (16, 1)


@pytest.mark.parametrize("mode", ["row", "balanced", "batch"])
def test_a_batch_that_int32_cannot_index_is_refused(mode):
    x = jax.ShapeDtypeStruct((2**31, 0), jnp.float32)
    for block in (
        lambda x: drop_path(x, 0.5, key=KEY, mode=mode),
        lambda x: drop_path_residual(x, jnp.tanh, 0.5, key=KEY, mode=mode),
    ):
        with pytest.raises(ValueError, match=r"^batch must be an integer in \[0, 2\*\*31\)"):
            jax.eval_shape(block, x)


KEEP = np.ones(4, bool)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        *(
            ({"drop_prob": p}, f"drop_prob must be a number in [0, 1], got {p!r}")
            for p in (-0.1, 1.5, float("nan"), None, "0.1", True)
        ),
        ({"key": None}, "key must be given to drop in training, or keep, got none"),
        ({"keep": KEEP}, "key and keep must not both be given: keep is the mask, key draws one"),
        (
            {"key": None, "keep": KEEP[:3]},
            "keep must be bool of shape (4,), got bool of (3,)",
        ),
        (
            {"key": None, "keep": KEEP.astype(np.float32)},
            "keep must be bool of shape (4,), got float32 of (4,)",
        ),
        (
            {"key": None, "keep": "k"},
            "keep must be an array of numbers, got str",
        ),
        ({"x": "x"}, "x must be an array of numbers, got str"),
        (
            {"x": np.array(["a"] * 4)},
            "x must be an array of numbers, got ndarray of <U1",
        ),
        ({"deterministic": "False"}, "deterministic must be True or False, got 'False'"),
        ({"scale_by_keep": 2}, "scale_by_keep must be True or False, got 2"),
        ({"x": 1.0}, "x must have the batch axis 0, got shape ()"),
        ({"axis": 2}, "x must have the batch axis 2, got shape (4, 2)"),
        ({"axis": -3}, "x must have the batch axis -3, got shape (4, 2)"),
        ({"axis": 0.5}, "axis must be an integer, got 0.5"),
        ({"x": np.ones(4, np.int32)}, f"x must be {FLOATS}, got int32"),
        (
            {"x": np.ones(4, np.complex64)},
            f"x must be {FLOATS}, got complex64",
        ),
        ({"scale_at": "test"}, "scale_at must be one of 'train', 'eval', got 'test'"),
        ({"mode": "rows"}, "mode must be one of 'row', 'balanced', 'batch', got 'rows'"),
        ({"groups": 3}, "groups must divide the batch, got groups=3 for batch=4"),
    ],
)
def test_what_cannot_be_dropped_is_refused(change, text):
    arguments = {"x": np.ones((4, 2), np.float32), "drop_prob": 0.1, "key": KEY, **change}
    with pytest.raises(ValueError) as error:
        drop_path(**arguments)
    assert str(error.value) == text


@pytest.mark.parametrize("form", ["float16", "bfloat16"])
def test_the_factor_of_evaluation_is_formed_in_the_compute_type_also_for_a_residual(form):
    p = jnp.asarray(0.1, form)
    q = np.full(3, np.float32(1) - np.asarray(p).astype(np.float32))
    plain = drop_path(jnp.ones(3), p, deterministic=True, scale_at="eval")
    block = drop_path_residual(jnp.zeros(3), jnp.ones_like, p, deterministic=True, scale_at="eval")
    assert plain.tolist() == block.tolist() == q.tolist()
