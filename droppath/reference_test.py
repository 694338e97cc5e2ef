"""The reference against values by hand and Python's fractions."""

from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from droppath import (
    drop_path,
    drop_path_residual,
    drop_path_residual_vjp,
    drop_path_vjp,
)

FLOATS = "float64, float32, float16 or bfloat16"

INF, NAN = float("inf"), float("nan")
DTYPES = [np.float64, np.float32, np.float16, ml_dtypes.bfloat16]
KEEP = np.array([True, False, True])


def same_bits(a, b) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("f", [drop_path, drop_path_vjp])
def test_kept_rows_are_scaled_and_dropped_ones_are_zero(f, dtype):
    x = np.array([[1, -2], [3, 4], [-0.0, 8]], dtype)
    assert same_bits(f(x, KEEP, 0.75), np.array([[4, -8], [0, 0], [-0.0, 32]], dtype))
    assert same_bits(f(x, KEEP, 0.75, scale_by_keep=False), np.where(KEEP[:, None], x, dtype(0)))
    assert same_bits(x, np.array([[1, -2], [3, 4], [-0.0, 8]], dtype))  # PURE


@pytest.mark.parametrize(
    ("dtype", "x", "y"),
    [
        # bfloat16 has 8 significant bits, and 1/0.9 in them is 142/128, which would give 185.27
        (ml_dtypes.bfloat16, 167.0, 186.0),  # 185.56
        (ml_dtypes.bfloat16, 1.0, 142 / 128),
        (np.float16, 1.0, 1138 / 1024),  # 1137.78/1024
        (np.float64, 1.0, float(1 / (1 - Fraction(0.1)))),
    ],
)
def test_the_scale_is_not_rounded_before_the_product(dtype, x, y):
    assert float(drop_path(np.array([x], dtype), KEEP[:1], 0.1)[0]) == y


@given(st.floats(-1e30, 1e30), st.floats(0, 0.999))
def test_a_kept_value_is_one_product_in_the_compute_type(x, p):
    s = 1.0 / (1.0 - p)
    got = [drop_path(np.array([x], t), np.array([True]), p)[0] for t in (np.float64, np.float32)]
    assert got[0] == x * s
    # the product of two float32 is exact in float64
    assert got[1] == np.float32(float(np.float32(x)) * float(np.float32(s)))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("f", [drop_path, drop_path_vjp])
def test_dropped_rows_are_plus_0_whatever_they_held(f, dtype):
    x = np.array([[INF, NAN, -INF, -1, -0.0]] * 3, dtype)
    y = f(x, KEEP, 0.5)
    assert same_bits(y[1], np.zeros(5, dtype))
    want = np.array([INF, NAN, -INF, -2, -0.0], dtype)
    np.testing.assert_array_equal(y[[0, 2]].astype(float), [want.astype(float)] * 2)
    assert np.signbit(y[0, 4])


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_a_product_too_large_is_inf_without_a_warning_and_only_where_kept(dtype):
    big = np.finfo(dtype).max
    x = np.full(3, big)
    assert drop_path(x, KEEP, 0.5).tolist() == [INF, 0, INF]
    assert drop_path_residual(x, np.positive, KEEP, 0.5).tolist() == [INF, big, INF]


@pytest.mark.parametrize("dtype", DTYPES)
def test_rate_1_gives_zeros_and_zero_gradients_also_where_keep_says_kept(dtype):
    x = np.array([[INF, NAN, -1]] * 3, dtype)
    for f in (drop_path, drop_path_vjp):
        for options in ({}, {"scale_by_keep": False}, {"scale_at": "eval"}):
            assert same_bits(f(x, KEEP, 1.0, **options), np.zeros((3, 3), dtype))


@pytest.mark.parametrize("axis", [0, 1, 2, -1, -2, -3])
def test_the_mask_runs_along_its_axis_and_covers_all_others(axis):
    x = np.arange(1.0, 28).reshape(3, 3, 3)
    y = drop_path(x, KEEP, 0.75, axis=axis)
    for i, s in enumerate([4, 0, 4]):
        assert same_bits(y.take(i, axis), x.take(i, axis) * s)


@pytest.mark.parametrize("rank", range(1, 7))
def test_ranks_1_to_6_and_an_empty_batch_work(rank):
    x = np.ones((3,) + (2,) * (rank - 1), np.float32)
    y = drop_path(x, KEEP, 0.5)
    assert y.shape == x.shape
    assert y.reshape(3, -1)[:, -1].tolist() == [2, 0, 2]
    assert same_bits(drop_path(x[:0], KEEP[:0], 0.5), x[:0])


@pytest.mark.parametrize(
    ("training", "scale_by_keep", "scale_at", "want"),
    [
        (True, True, "train", [4, 0, 12]),
        (True, False, "train", [1, 0, 3]),
        (True, True, "eval", [1, 0, 3]),
        (True, False, "eval", [1, 0, 3]),
        (False, True, "train", [1, 2, 3]),
        (False, False, "train", [1, 2, 3]),
        (False, True, "eval", [0.25, 0.5, 0.75]),
        (False, False, "eval", [1, 2, 3]),
    ],
)
def test_where_the_factor_is_and_that_evaluation_drops_nothing(
    training, scale_by_keep, scale_at, want
):
    x = np.array([1.0, 2.0, 3.0])
    options = {"training": training, "scale_by_keep": scale_by_keep, "scale_at": scale_at}
    assert drop_path(x, KEEP, 0.75, **options).tolist() == want
    assert drop_path_vjp(x, KEEP, 0.75, **options).tolist() == want
    # x + s * f with f = 16 x, on the rows that count
    residual = drop_path_residual(x, lambda rows: 16 * rows, KEEP, 0.75, **options)
    assert residual.tolist() == (x + 16 * np.array(want)).tolist()


def test_evaluation_at_rate_1_scaled_there_is_zero_also_for_inf():
    x = np.array([INF, NAN, -1.0])
    options = {"training": False, "scale_at": "eval"}
    assert same_bits(drop_path(x, KEEP, 1.0, **options), np.zeros(3))
    assert same_bits(drop_path_residual(x, np.negative, KEEP, 1.0, **options), x)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_residual_adds_the_scaled_branch_on_kept_rows_and_leaves_the_others(dtype):
    x = np.array([[1, 2], [INF, -0.0], [3, 4]], dtype)
    seen = []

    def branch(rows):
        seen.append(rows)
        return (rows + dtype(1)).astype(np.float64)  # another dtype than the stream's

    y = drop_path_residual(x, branch, KEEP, 0.75)
    assert same_bits(y, np.array([[9, 14], [INF, -0.0], [19, 24]], dtype))
    assert [rows.tolist() for rows in seen] == [[[1, 2], [3, 4]]]  # once, the kept rows only
    assert same_bits(x, np.array([[1, 2], [INF, -0.0], [3, 4]], dtype))


def test_a_residual_that_keeps_no_row_does_not_run_its_branch():
    x = np.array([1.0, 2.0, 3.0])
    for keep, p in ((KEEP & False, 0.5), (KEEP, 1.0)):
        assert same_bits(drop_path_residual(x, pytest.fail, keep, p), x)


def test_a_row_that_runs_and_is_dropped_leaves_no_trace():
    x, w = np.array([1.0, -0.0, 3.0, 4.0]), np.array([1.0, NAN, 1.0, INF])
    keep, spare = np.array([True, False, True, False]), np.array([False, True, False, False])
    seen = []

    def branch(rows, w):
        seen.append(len(rows))
        return rows * w

    y = drop_path_residual(x, branch, keep, 0.5, w, run=spare)
    dx = drop_path_residual_vjp(x, branch, keep, 0.5, w, run=spare)
    assert same_bits(y, np.array([3.0, -0.0, 9.0, 4.0]))  # 1 + 2 * 1, 3 + 2 * 3
    assert same_bits(dx, y)
    assert seen == [3, 3]


def test_a_residual_sums_before_it_rounds():
    x, f = np.array([1.0], np.float16), np.array([1844 * 2**-22], np.float16)
    # f / 0.9 = 2**-11 + 0.9 * 2**-22, so x + f / 0.9 is above the tie and rounds up to 1 + 2**-10;
    # f / 0.9 rounded to float16 is 2**-11, and the tie 1 + 2**-11 rounds to 1
    assert drop_path_residual(x, lambda _: f, KEEP[:1], 0.1)[0] == 1 + 2**-10


def test_a_residual_along_another_axis():
    x = np.arange(6.0).reshape(2, 3)
    y = drop_path_residual(x, lambda rows: 10 * rows, KEEP, 0.5, axis=1)
    assert y.tolist() == [[0, 1, 42], [63, 4, 105]]


@pytest.mark.parametrize("axis", [0, 1])
def test_per_sample_arguments_follow_their_rows(axis):
    x = np.arange(6.0).reshape(3, 2)
    a, b = np.array([[1.0], [2.0], [3.0]]), np.array([10.0, 20.0, 30.0])
    seen = []

    def branch(rows, a, b):
        seen.append((a.tolist(), b.tolist()))
        return rows * (a if axis == 0 else a[:, 0])

    y = drop_path_residual(x.swapaxes(0, axis), branch, KEEP, 0.5, a, b, axis=axis)
    # row 0 is x + 2 * 1 x, row 2 is x + 2 * 3 x
    assert y.swapaxes(0, axis).tolist() == [[0, 3], [2, 3], [28, 35]]
    assert seen == [([[1], [3]], [10, 30])]


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_gradient_of_a_residual_is_dy_on_dropped_rows_whatever_the_branch_would_give(dtype):
    x, dy = np.array([[3], [NAN], [5]], dtype), np.array([[1, -0.0], [-0.0, INF], [2, 4]], dtype)
    # f = x^2, so that J^T dy = 2 x dy: 1 + 4 * 6 * 1, and 2 + 4 * 10 * 2, 4 + 4 * 10 * 4
    dx = drop_path_residual_vjp(dy, lambda dy, x: 2 * x * dy, KEEP, 0.75, x)
    assert same_bits(dx, np.array([[25, -0.0], [-0.0, INF], [82, 164]], dtype))
    evaluated = drop_path_residual_vjp(dy[:1], lambda dy: 2 * dy, KEEP[:1], 0.75, training=False)
    assert same_bits(evaluated, np.array([[3, -0.0]], dtype))


def test_a_per_sample_argument_of_another_batch_is_refused():
    for wrong in (np.ones(2), np.ones((1, 3)), np.ones(())):
        with pytest.raises(ValueError) as error:
            drop_path_residual(np.ones(3), np.multiply, KEEP, 0.1, wrong)
        text = f"per_sample must begin with the batch of 3, got shape {wrong.shape}"
        assert str(error.value) == text


def residual_of_abs(x, *arguments, **options):
    return drop_path_residual(x, abs, *arguments, **options)


@pytest.mark.parametrize("f", [drop_path, residual_of_abs])
@pytest.mark.parametrize(
    ("x", "keep", "p", "options", "text"),
    [
        (np.ones(()), KEEP, 0.1, {}, "x must have the batch axis 0, got shape ()"),
        (
            np.ones(3, int),
            KEEP,
            0.1,
            {},
            f"x must be {FLOATS}, got int64",
        ),
        (np.ones(3), KEEP, 0.1, {"axis": 1}, "x must have the batch axis 1, got shape (3,)"),
        (np.ones(2), KEEP, 0.1, {}, "keep must be bool of shape (2,), got bool of (3,)"),
        (np.ones(3), KEEP * 1.0, 0.1, {}, "keep must be bool of shape (3,), got float64 of (3,)"),
        (np.ones(3), KEEP, NAN, {}, "drop_prob must be a number in [0, 1], got nan"),
        (np.ones(3), KEEP, 0.1, {"scale_at": 1}, "scale_at must be one of 'train', 'eval', got 1"),
    ],
)
def test_a_bad_argument_is_named(f, x, keep, p, options, text):
    with pytest.raises(ValueError) as error:
        f(x, keep, p, **options)
    assert str(error.value) == text


def test_what_the_branch_returns_is_refused_unless_it_is_of_xs_shape_and_floating():
    for returned, text in (
        (np.ones((3, 1)), "branch must return the shape it is given, (2,), got (3, 1)"),
        (np.ones(2, int), f"branch must return {FLOATS}, got int64"),
        (np.ones(2, complex), f"branch must return {FLOATS}, got complex128"),
    ):
        with pytest.raises(ValueError) as error:
            drop_path_residual(np.ones(3), lambda _, f=returned: f, KEEP, 0.5)
        assert str(error.value) == text
