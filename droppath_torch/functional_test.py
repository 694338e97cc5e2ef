"""drop_path equal to droppath's bit for bit, on every way that it computes, with its gradients."""

import ml_dtypes
import numpy as np
import pytest
import torch
from torch.utils.checkpoint import checkpoint

import droppath
from droppath_torch import DropPath, drop_path, drop_path_residual, functional

# torch's forward mode, where it is first used, calls its own deprecated torch.jit.script.
forward_mode = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
FLOATS = "float64, float32, float16 or bfloat16"

DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]
KEY = droppath.key(6)
PATHS = {"zero rows": 0, "torch.where": 1 << 60}  # the number of elements worth a function


@pytest.fixture(params=PATHS)
def path(request, monkeypatch):
    """Let drop_path take one of its ways, whatever the size of x."""
    monkeypatch.setattr(functional, "WORTH_A_FUNCTION", PATHS[request.param])


def bits(x: torch.Tensor) -> torch.Tensor:
    return x.detach().contiguous().view([torch.int16, torch.int32, torch.int64][x.itemsize // 4])


def same_bits(a, b) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and torch.equal(bits(a), bits(b))


def to_numpy(x: torch.Tensor) -> np.ndarray:
    array = bits(x).numpy()
    names = {torch.bfloat16: ml_dtypes.bfloat16}
    return array.view(names.get(x.dtype, str(x.dtype).removeprefix("torch.")))


def want(x, keep, p, **options) -> torch.Tensor:
    """droppath.drop_path of a tensor. The gradient is the same map."""
    y = droppath.drop_path(to_numpy(x), keep.numpy(), p, **options)
    return torch.from_numpy(y.view(f"int{8 * x.itemsize}").copy()).view(x.dtype)


def randn(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


LAYOUTS = {  # each with its batch axis, of 6 rows
    "contiguous": (lambda: randn(6, 3, 5), 0),
    "axis 1": (lambda: randn(3, 6, 5), 1),
    "axis -1": (lambda: randn(3, 5, 6), -1),
    "transposed": (lambda: randn(5, 6, 3).transpose(0, 1), 0),
    "strided": (lambda: randn(12, 8)[::2, 1::2], 0),
    "channels last": (lambda: randn(6, 4, 3, 2).to(memory_format=torch.channels_last), 0),
    "expanded": (lambda: randn(1, 5).expand(6, 5), 0),
    "one number a row": (lambda: randn(6), 0),
    "rank 6": (lambda: randn(2, 1, 3, 6, 2, 2), 3),
    "rows of nothing": (lambda: randn(6, 0, 3), 0),
    "empty batch": (lambda: randn(3, 6, 2)[:, :0], 1),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_values_and_gradients_are_droppaths_to_the_bit(path, layout, dtype):
    make, axis = LAYOUTS[layout]
    x = make()
    x = x.to(dtype) if x.stride() == make().to(dtype).stride() else x
    keep = torch.tensor([True, False, True, True, False, False])[: x.shape[axis]]
    before, dy = x.clone(), randn(*x.shape, seed=1, dtype=x.dtype)
    x.requires_grad_()
    for options in ({}, {"scale_by_keep": False}, {"scale_at": "eval"}):
        y = drop_path(x, 0.1, keep=keep, axis=axis, **options)
        (dx,) = torch.autograd.grad(y, x, dy)
        assert same_bits(y, want(x, keep, 0.1, axis=axis, **options))
        assert same_bits(dx, want(dy, keep, 0.1, axis=axis, **options))
    assert same_bits(x, before)


@pytest.mark.parametrize("dtype", DTYPES)
def test_dropped_rows_are_plus_0_also_of_inf_and_nan_and_in_the_gradient(path, dtype):
    row = torch.tensor([float("inf"), float("nan"), -1.0, -0.0])
    x = torch.stack([torch.ones(4), row, -torch.ones(4), row, row, row, row]).to(dtype)
    keep = torch.tensor([True, False, True] + [False] * 4)
    y = drop_path(x.requires_grad_(), 0.75, keep=keep)
    (dx,) = torch.autograd.grad(y, x, x.detach())
    for result in (y, dx):
        assert same_bits(result[[0, 2]], torch.tensor([[4.0] * 4, [-4.0] * 4], dtype=dtype))
        assert not bits(result[1::2]).any()


@pytest.mark.parametrize("p", [1.0, torch.tensor(1.0), torch.tensor(1.0, dtype=torch.bfloat16)])
def test_rate_1_gives_zeros_and_zero_gradients_also_where_keep_says_kept(path, p):
    x = torch.tensor([float("inf"), float("nan"), -1.0], requires_grad=True)
    for options in ({"key": KEY}, {}, {"keep": torch.tensor([True] * 3)}):
        y = drop_path(x, p, **options)
        (dx,) = torch.autograd.grad(y, x, torch.full((3,), float("inf")))
        assert not bits(y).any()
        assert not bits(dx).any()


def test_an_expanded_gradient_is_droppaths(path):
    x = randn(4, 3).requires_grad_()
    drop_path(x, 0.75, keep=torch.tensor([True, False, True, True])).sum().backward()
    assert x.grad.tolist() == [[4] * 3, [0] * 3, [4] * 3, [4] * 3]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_rate_in_a_tensor_is_within_4_steps_of_the_static_one(dtype, training):
    x = randn(50, 7, dtype=dtype)
    for p in (0.1, 0.37, 0.9):
        options = {"key": KEY, "scale_at": "train" if training else "eval"}
        rate = torch.tensor(p, dtype=torch.float64)
        got, static = (drop_path(x, r, training, **options) for r in (rate, p))
        assert got.dtype == dtype
        assert not same_bits(got, x)
        assert (bits(got) - bits(static)).abs().max() <= 4


def test_a_rate_in_16_bits_is_scaled_in_the_compute_type():
    p = torch.tensor(0.1, dtype=torch.bfloat16)  # 0.10009765625
    x, keep = torch.ones(1, dtype=torch.float64), torch.tensor([True])
    assert drop_path(x, p, keep=keep).item() == 1 / (1 - 0.10009765625)
    assert drop_path(x, p, False, scale_at="eval").item() == 1 - 0.10009765625


def test_autocast_keeps_the_dtype_and_the_bits():
    x, keep = randn(4, 3), torch.tensor([True, False, True, True])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = drop_path(x, 0.1, keep=keep)
    assert same_bits(y, want(x, keep, 0.1))


def test_nothing_is_drawn_from_torch_with_a_key_a_mask_at_evaluation_or_at_rate_0():
    x = randn(8, 2)
    before = torch.get_rng_state()
    for mode in ("row", "balanced", "batch"):
        drop_path(x, 0.37, key=KEY, mode=mode)
        assert drop_path(x, 0.37, False, mode=mode) is x
        assert drop_path(x, 0.0, mode=mode) is x
        drop_path(x, 0.37, False, mode=mode, scale_at="eval")
    drop_path(x, 0.37, keep=torch.ones(8) > 0)
    assert torch.equal(torch.get_rng_state(), before)
    drop_path(x, 0.37)
    assert not torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("mode", ["row", "balanced", "batch"])
def test_a_draw_without_a_key_follows_the_generator_and_not_xs_dtype(mode):
    ones = torch.ones(64, 2)

    def masks(dtype, generator=None):
        xs = [ones.to(dtype)] * 20
        return [(drop_path(x, 0.3, mode=mode, generator=generator) != 0).tolist() for x in xs]

    torch.manual_seed(5)
    first = masks(torch.float32)
    for dtype in DTYPES:
        torch.manual_seed(5)
        assert masks(dtype) == first
        assert masks(dtype, torch.Generator().manual_seed(5)) == first
    assert masks(torch.float32) != first
    assert all(a == b for mask in first for a, b in mask)  # a draw covers all other axes


KEEP = torch.ones(4) > 0


@pytest.mark.parametrize(
    ("x", "p", "options", "text"),
    [
        (torch.ones(()), 0.1, {}, "x must have the batch axis 0, got shape ()"),
        (torch.ones(4), 0.1, {"axis": 1}, "x must have the batch axis 1, got shape (4,)"),
        (
            torch.ones(4).int(),
            0.1,
            {},
            f"x must be {FLOATS}, got int32",
        ),
        (torch.ones(4), None, {}, "drop_prob must be a number in [0, 1], got None"),
        (torch.ones(4), float("nan"), {}, "drop_prob must be a number in [0, 1], got nan"),
        (torch.ones(4), True, {}, "drop_prob must be a number in [0, 1], got True"),
        (torch.ones(3), 0.1, {"keep": KEEP}, "keep must be bool of shape (3,), got bool of (4,)"),
        (
            torch.ones(4),
            0.1,
            {"keep": KEEP.float()},
            "keep must be bool of shape (4,), got float32 of (4,)",
        ),
        (
            torch.ones(4),
            0.1,
            {"key": droppath.split(KEY, 4)},
            "key must be uint32 of shape (2,), such as droppath.key(7), got uint32 of (4, 2)",
        ),
        (
            torch.ones(4),
            0.1,
            {"key": KEY, "keep": KEEP},
            "key and keep must not both be given: keep is the mask, key draws one",
        ),
        (
            torch.ones(4),
            0.1,
            {"mode": "rows"},
            "mode must be one of 'row', 'balanced', 'batch', got 'rows'",
        ),
        (
            torch.ones(4),
            0.1,
            {"groups": 3},
            "groups must divide the batch, got groups=3 for batch=4",
        ),
        (
            torch.ones(4),
            0.1,
            {"scale_at": "test"},
            "scale_at must be one of 'train', 'eval', got 'test'",
        ),
    ],
)
def test_a_bad_argument_is_named(x, p, options, text):
    with pytest.raises(ValueError) as error:
        drop_path(x, p, **options)
    assert str(error.value) == text


def test_a_keep_that_is_overwritten_before_the_backward_leaves_the_gradient_as_it_was():
    x = torch.ones(4, 8192, requires_grad=True)
    keep = torch.tensor([True, False, True, True])
    y = drop_path(x, 0.5, keep=keep)
    keep.fill_(False)
    (dx,) = torch.autograd.grad(y.sum(), x, create_graph=True)
    assert dx[:, 0].tolist() == [2.0, 0.0, 2.0, 2.0]


@pytest.mark.parametrize("form", [torch.float16, torch.bfloat16])
def test_the_factor_of_evaluation_is_formed_in_the_compute_type_also_for_a_residual(form):
    p, x = torch.tensor(0.1, dtype=form), torch.ones(3)
    q = torch.tensor(1.0) - p.float()
    for y in (
        drop_path(x, p, False, scale_at="eval"),
        drop_path_residual(torch.zeros(3), torch.ones_like, p, False, scale_at="eval"),
    ):
        assert same_bits(y, q.expand(3))


@pytest.mark.parametrize("reentrant", [True, False])
def test_a_generator_of_ones_own_is_refused_where_a_checkpoint_draws_again(reentrant):
    layer = DropPath(0.4, generator=torch.Generator())
    y = checkpoint(layer, torch.ones(8, requires_grad=True), use_reentrant=reentrant)
    with pytest.raises(RuntimeError, match=r"^generator must be None under activation checkpoint"):
        y.sum().backward()
    (dx,) = torch.autograd.grad(layer(x := torch.ones(8, requires_grad=True)).sum(), x)
    assert set(dx.tolist()) <= {0.0, torch.tensor(1 / 0.6).item()}
