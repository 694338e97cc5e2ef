"""A residual block that skips is the block that masks: values, gradients, rows, refusals."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import droppath
from droppath_torch import DropPathResidual, drop_path_residual, keep_mask

KEY = droppath.key(11)
STEPS = {torch.float64: 2, torch.float32: 2, torch.bfloat16: 1, torch.float16: 1}  # RES-1
FLOATS = "float64, float32, float16 or bfloat16"
MODES = ["row", "balanced", "batch"]


def numbers(*shape, dtype=torch.float32, seed=0):
    """Normal numbers; with a branch of their sign no sum cancels."""
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape)).to(dtype)


def branch(x, c):
    """A map of each sample by itself, with an argument for each sample."""
    return x * c.view([-1, *[1] * (x.ndim - 1)]) ** 2


def with_gradients(f, *inputs, dy):
    inputs = [x.clone().requires_grad_() for x in inputs]
    y = f(*inputs)
    y.backward(dy)
    gradients = [torch.zeros_like(x) if x.grad is None else x.grad for x in inputs]
    return y.detach(), *gradients


def assert_within_steps(y, want, steps):
    """Hold every number to at most this many neighbours of the wanted one, in its dtype."""
    y, want, dtype = y.double(), want.double(), y.dtype
    unit = torch.finfo(dtype).eps * torch.exp2(torch.floor(torch.log2(want.abs().clamp_min(1e-30))))
    assert (y - want).abs().le(steps * unit).all()


@settings(max_examples=150)
@given(
    batch=st.integers(1, 33),
    rank=st.integers(2, 5),
    drop_prob=st.sampled_from([0.0, 1e-3, 0.05, 0.1, 0.37, 0.5, 0.9, 1.0]) | st.floats(0, 1),
    mode=st.sampled_from(MODES),
    dtype=st.sampled_from(list(STEPS)),
    groups=st.sampled_from([1, 2, 3, 4]),
    options=st.sampled_from([{}, {"scale_by_keep": False}, {"scale_at": "eval"}]),
    key=st.integers(0, 2**32 - 1).map(droppath.key),
)
def test_skipping_is_masking(batch, rank, drop_prob, mode, dtype, groups, options, key):
    groups = groups if batch % groups == 0 else 1
    x = numbers(batch, *[3] * (rank - 1), dtype=dtype)
    c, dy = numbers(batch, dtype=dtype, seed=1), numbers(*x.shape, dtype=dtype, seed=2)

    def run(skip):
        def block(x, c):
            how = {"key": key, "mode": mode, "groups": groups, "skip": skip, **options}
            return drop_path_residual(x, branch, drop_prob, True, c, **how)

        return with_gradients(block, x, c, dy=dy)

    skipped, masked = run(None), run(False)
    keep = torch.ones(batch, dtype=torch.bool)
    if drop_prob:
        keep = keep_mask(key, drop_prob, batch, mode=mode, groups=groups) & (drop_prob < 1)
    for result, of in ((skipped[0], x), (masked[0], x), (skipped[1], dy), (masked[1], dy)):
        assert torch.equal(result[~keep], of[~keep])  # RES-2, RES-7: bit for bit, no -0 here
    s = 1 / (1 - drop_prob) if not options and drop_prob < 1 else 1
    want = x.double() + s * branch(x, c).double()
    for y in (skipped[0], masked[0]):
        assert_within_steps(y[keep], want[keep], STEPS[dtype])
    assert_within_steps(skipped[1], masked[1], 2)
    loose = {torch.bfloat16: 0.1, torch.float16: 0.02}.get(dtype, 1e-5)  # a sum over the sample
    torch.testing.assert_close(skipped[2], masked[2], rtol=loose, atol=loose)
    assert not skipped[2][~keep].any()


def rows_run(mode, drop_prob, batch, **options):
    """How many rows the branch sees, call by call."""
    seen = []

    def counting(x):
        seen.append(len(x))
        return x

    drop_path_residual(torch.ones(batch, 2), counting, drop_prob, mode=mode, **options)
    return seen


def test_the_branch_runs_on_the_rows_that_it_must():
    for drop_prob in (0.05, 0.1, 0.4, 0.9):
        for batch in (1, 2, 3, 8, 32):
            for seed in range(4):
                key = droppath.key(seed)
                kept = int(droppath.keep_mask(key, drop_prob, batch).sum())
                assert rows_run("row", drop_prob, batch, key=key) == [max(kept, 1)]
                whole = droppath.keep_mask(key, drop_prob, batch, mode="batch")[0]
                assert rows_run("batch", drop_prob, batch, key=key) == [batch] * int(whole)
                kept = int(droppath.keep_mask(key, drop_prob, batch, mode="balanced").sum())
                for p in (drop_prob, torch.tensor(drop_prob)):
                    assert rows_run("balanced", p, batch, key=key, skip=True) == [max(kept, 1)]
                capacity = droppath.kept_capacity(drop_prob, batch)
                assert rows_run("balanced", drop_prob, batch)[0] in (capacity, capacity - 1 or 1)
    for mode in MODES:
        assert rows_run(mode, 0.4, 12, skip=False) == [12]
    for mode in ("row", "balanced"):
        assert rows_run(mode, 1.0, 8) == [1]  # so that every parameter has a gradient
        for kept in (3, 7):  # whatever kept_capacity is
            assert rows_run(mode, 0.4, 8, keep=torch.arange(8) < kept, skip=True) == [kept]


@pytest.mark.parametrize("skip", [None, False])
@pytest.mark.parametrize("mode", ["row", "balanced"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_the_branch_makes_of_dropped_rows_reaches_nothing(mode, skip, dtype):
    x = numbers(10, 3, dtype=dtype)
    keep = torch.arange(10) % 3 == 1  # 3 of 10; balanced runs 4 of them at 0.6
    x[2], x[3] = -0.0, torch.inf
    dy = numbers(10, 3, dtype=dtype, seed=1)

    def poison(x, bad):  # infinite and NaN, and so are its derivatives
        return torch.where(bad[:, None], x * torch.nan, x)

    def block(x, skip=skip):
        return drop_path_residual(x, poison, 0.6, True, ~keep, keep=keep, mode=mode, skip=skip)

    y, dx = with_gradients(block, x, dy=dy)
    assert torch.equal(y[~keep].view(torch.int8), x[~keep].view(torch.int8))
    assert torch.equal(dx[~keep], dy[~keep])
    unread = skip if mode == "row" else skip is None  # in torch.func the host does not know keep
    (by_func,) = torch.func.vjp(lambda x: block(x, unread), x)[1](dy)
    assert torch.equal(by_func[~keep], dy[~keep])
    assert y[keep].isfinite().all()
    assert (y[keep] != x[keep]).all()


def test_the_stream_keeps_its_dtype_under_autocast():
    block, x = nn.Linear(3, 3), numbers(8, 3)
    keep = torch.arange(8) % 2 == 0
    for dtype in (torch.float32, torch.bfloat16):
        for mode in MODES:
            with torch.autocast("cpu", torch.bfloat16):
                y = drop_path_residual(x.to(dtype), block, 0.5, keep=keep, mode=mode)
                f = block(x.to(dtype))
            assert (y.dtype, f.dtype) == (dtype, torch.bfloat16)
            want = x.to(dtype).double() + 2 * f.double()
            assert_within_steps(y[keep], want[keep], STEPS[dtype])
            y.sum().backward()
            assert block.weight.grad.isfinite().all()


def test_evaluation_is_the_plain_block_or_the_papers():
    x, c = numbers(6, 3), numbers(6, seed=1)
    for mode in MODES:
        y = drop_path_residual(x, branch, 0.3, False, c, mode=mode)
        assert torch.equal(y, x + branch(x, c))
        y = drop_path_residual(x, branch, 0.3, False, c, mode=mode, scale_at="eval")
        assert_within_steps(y, x.double() + 0.7 * branch(x, c).double(), 2)
        y = drop_path_residual(x, branch, 1.0, False, c * torch.nan, mode=mode, scale_at="eval")
        assert torch.equal(y, x)
        assert torch.equal(drop_path_residual(x, branch, 0.0, True, c), x + branch(x, c))


@pytest.mark.parametrize("mode", ["row", "balanced"])
def test_second_derivatives_are_right(mode):
    x, c = numbers(5, 2, dtype=torch.float64), numbers(5, dtype=torch.float64, seed=1)
    keep = torch.tensor([True, False, True, True, False])
    for skip in (None, False):

        def block(x, c, skip=skip):
            return drop_path_residual(x, branch, 0.4, True, c, keep=keep, mode=mode, skip=skip)

        inputs = x.requires_grad_(), c.requires_grad_()
        assert torch.autograd.gradcheck(block, inputs)
        assert torch.autograd.gradgradcheck(block, inputs)


def test_the_rate_is_exact_at_batch_2():
    torch.manual_seed(0)
    block, x = DropPathResidual(torch.ones_like, 0.05), torch.zeros(2, 1)
    draws = 10_000
    dropped = sum(int((block(x) == 0).sum()) for _ in range(draws))
    # two rows a draw, of which at most one is dropped: with probability 0.1
    assert abs(dropped - 0.1 * draws) < 6 * math.sqrt(draws * 0.1 * 0.9)


def test_a_rate_that_is_a_tensor_masks():
    x, c = numbers(8, 3), numbers(8, seed=1)
    for mode in MODES:
        results = [
            drop_path_residual(x, branch, p, True, c, key=KEY, mode=mode)
            for p in (0.375, torch.tensor(0.375))
        ]
        torch.testing.assert_close(*results)


def test_the_state_dict_is_the_branchs():
    block = DropPathResidual(nn.Linear(2, 2), 0.1, mode="row", skip=True)
    assert list(block.state_dict()) == ["branch.weight", "branch.bias"]
    assert block.extra_repr() == "drop_prob=0.100, mode=row, skip=True"


def test_an_empty_batch_runs_nothing_that_fails():
    for mode in MODES:
        assert drop_path_residual(torch.ones(0, 3), torch.neg, 0.3, mode=mode).shape == (0, 3)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"skip": 1}, "skip must be None, True or False, got 1"),
        ({"branch": lambda x: x > 0}, f"branch must return {FLOATS}, got bool"),
        ({"branch": lambda x: x.to(torch.int64)}, f"branch must return {FLOATS}, got int64"),
        ({"branch": lambda x: x + 0j}, f"branch must return {FLOATS}, got complex64"),
        (
            {"branch": lambda x: x[:, :1]},
            "branch must return the shape it is given, (5, 3), got (5, 1)",
        ),
        ({"branch": lambda x: None}, "branch must return a tensor, got NoneType"),
        *(
            ({"drop_prob": p, "training": t}, f"drop_prob must be a number in [0, 1], got {p!r}")
            for p in (-0.1, 1.5, math.nan, None, "0.1", True)
            for t in (True, False)
        ),
        ({"groups": 3}, "groups must divide the batch, got groups=3 for batch=8"),
        ({"mode": "rows"}, "mode must be one of 'row', 'balanced', 'batch', got 'rows'"),
        ({"axis": 2}, "x must have the batch axis 2, got shape (8, 3)"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_before_a_draw(change, text):
    arguments = {"branch": torch.neg, "drop_prob": 0.4, "training": True, **change}
    state = torch.get_rng_state()
    x = torch.ones(8, 3)
    with pytest.raises(ValueError) as error:
        drop_path_residual(x, arguments.pop("branch"), arguments.pop("drop_prob"), **arguments)
    assert str(error.value) == text
    if "branch" not in change:
        assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (
            {"drop_prob": torch.tensor(0.1)},
            "the number of rows is static, and drop_prob is a tensor",
        ),
        ({"mode": "row"}, "the host does not know what mode='row' drops"),
        ({"mode": "batch"}, "the host does not know what mode='batch' drops"),
    ],
)
def test_skip_that_cannot_be_within_a_transform_is_refused_before_a_draw(options, why):
    options = {"drop_prob": 0.4, "training": True, "skip": True, **options}
    state = torch.get_rng_state()
    with pytest.raises(ValueError) as error:
        torch.func.grad(lambda x: drop_path_residual(x, torch.neg, **options).sum())(torch.ones(8))
    assert str(error.value) == f"skip must be None or False here, got True: {why}"
    assert torch.equal(torch.get_rng_state(), state)


def test_per_sample_arguments_must_have_the_batch():
    for argument, text in (
        (torch.ones(3), "per_sample must begin with the batch of 8, got shape (3,)"),
        (0.5, "per_sample must be a tensor, got float"),
    ):  # fmt: skip
        with pytest.raises(ValueError) as error:
            drop_path_residual(torch.ones(8, 3), branch, 0.4, True, argument)
        assert str(error.value) == text


def test_another_axis_can_be_the_batch():
    x, c = numbers(8, 3, 2), numbers(8, seed=1)
    for mode in MODES:
        want = drop_path_residual(x, branch, 0.4, True, c, key=KEY, mode=mode)
        for axis in (1, -1):
            moved = x.movedim(0, axis)
            y = drop_path_residual(
                moved,
                lambda x, c, axis=axis: branch(x.movedim(axis, 0), c).movedim(0, axis),
                0.4, True, c, key=KEY, mode=mode, axis=axis,
            )  # fmt: skip
            assert torch.equal(y.movedim(axis, 0), want)
