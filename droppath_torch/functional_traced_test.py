"""drop_path under derivatives of both modes and orders, torch.func and torch.compile."""

import numpy as np
import pytest
import torch
from torch.autograd import forward_ad, gradcheck, gradgradcheck
from torch.func import grad, vmap

import droppath
from droppath_torch import DropPath, drop_path, drop_path_residual, functional, keyed
from droppath_torch.functional_test import DTYPES, KEY, PATHS, randn, same_bits, want

# torch's forward mode, where it is first used, calls its own deprecated torch.jit.script.
forward_mode = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")


@pytest.fixture(params=PATHS)
def path(request, monkeypatch):
    """Let drop_path take one of its ways, whatever the size of x."""
    monkeypatch.setattr(functional, "WORTH_A_FUNCTION", PATHS[request.param])


@forward_mode
def test_gradients_of_both_orders_and_modes_are_those_of_differences(path):
    x = randn(6, 2, dtype=torch.float64).requires_grad_()

    def f(x):
        return drop_path(x, 0.37, key=KEY) ** 3

    assert gradcheck(f, x, check_forward_ad=True, check_batched_grad=True)
    assert gradgradcheck(f, x, check_fwd_over_rev=True)


@forward_mode
def test_a_forward_derivative_is_droppaths(path):
    x, dx = randn(6, 3), randn(6, 3, seed=1)
    with forward_ad.dual_level():
        y = drop_path(forward_ad.make_dual(x, dx), 0.37, key=KEY)
        got = forward_ad.unpack_dual(y).tangent
    keep = torch.from_numpy(droppath.keep_mask(KEY, 0.37, 6))
    assert same_bits(got, want(dx, keep, 0.37))


def test_vmap_over_x_and_over_keys_is_one_by_one():
    x = randn(5, 4, 3)
    keys = torch.from_numpy(droppath.split(KEY, 5).astype(np.int64))
    got = vmap(lambda x: drop_path(x, 0.37, key=KEY))(x)
    assert same_bits(got, torch.stack([drop_path(row, 0.37, key=KEY) for row in x]))
    got = vmap(lambda x, key: drop_path(x, 0.37, key=key))(x, keys)
    by_one = [drop_path(r, 0.37, key=k) for r, k in zip(x, droppath.split(KEY, 5), strict=True)]
    assert same_bits(got, torch.stack(by_one))
    assert len({str(y != 0) for y in got}) > 1


def test_func_grad_and_per_sample_gradients_are_autograds():
    x = randn(4, 3).requires_grad_()
    (dx,) = torch.autograd.grad(drop_path(x, 0.37, key=KEY).square().sum(), x)
    loss = grad(lambda x: drop_path(x, 0.37, key=KEY).square().sum())
    assert same_bits(loss(x.detach()), dx)
    assert same_bits(vmap(loss)(x.detach()[None])[0], dx)


@pytest.fixture(scope="module")
def compiled():
    """drop_path of all dtypes from one mask, compiled with its gradient."""
    torch._dynamo.reset()

    def f(keep, p, *xs):
        return [drop_path(x, p, keep=keep, axis=1) for x in xs]

    return torch.compile(f, fullgraph=True, dynamic=False)


@pytest.mark.parametrize("p", [0.1, torch.tensor(0.25)])
def test_compiled_values_and_gradients_are_droppaths_to_the_bit(compiled, p):
    keep = torch.tensor([True, False, True, False])
    xs = [randn(3, 4, 5, dtype=dtype).requires_grad_() for dtype in DTYPES]
    dys = [randn(3, 4, 5, seed=1, dtype=dtype) for dtype in DTYPES]
    ys = compiled(keep, p, *xs)
    dxs = torch.autograd.grad(ys, xs, dys)
    for x, y, dy, dx in zip(xs, ys, dys, dxs, strict=True):
        assert same_bits(y, want(x, keep, float(p), axis=1))
        assert same_bits(dx, want(dy, keep, float(p), axis=1))


@pytest.mark.parametrize(
    "key", [KEY.astype(np.float32), np.zeros(3, np.uint32), KEY[None], KEY.astype(np.int64)]
)
def test_a_program_refuses_a_key_that_is_not_two_words(key):
    f = torch.compile(
        lambda x, key: drop_path(x, 0.37, key=key), fullgraph=True, backend="aot_eager"
    )
    assert same_bits(f(randn(6, 2), KEY), drop_path(randn(6, 2), 0.37, key=KEY))
    # Dynamo of PyTorch 2.11 may hide what was raised
    with pytest.raises(Exception, match=r"key must be uint32 of shape|Observed exception"):
        f(randn(6, 2), key)


@pytest.mark.parametrize(
    "p", [np.float64(0.37), np.float32(0.37), np.int64(0), np.int32(1), np.array(1.0)]
)
@pytest.mark.parametrize("mode", ["row", "balanced"])
def test_a_program_takes_numbers_of_numpy_as_rates(p, mode):
    def both(x, p):
        options = {"key": KEY, "mode": mode}
        plain = drop_path(x, p, **options)
        return plain, drop_path_residual(x, torch.tanh, p, **options)

    x = randn(6, 2)
    for got, eager in zip(torch.compile(both, fullgraph=True)(x, p), both(x, p), strict=True):
        torch.testing.assert_close(got, eager)
        assert torch.equal(got == 0, eager == 0)


@pytest.mark.parametrize("mode", ["row", "balanced", "batch"])
def test_per_sample_gradients_draw_for_each_sample_as_timms_do(mode):
    layer, x = DropPath(0.5, mode=mode), torch.ones(64, 3)

    def loss(w, x):
        return layer((x * w)[None]).sum()

    torch.manual_seed(0)
    per_sample = vmap(grad(loss), in_dims=(None, 0), randomness="different")(torch.ones(3), x)
    assert set(per_sample.flatten().tolist()) == {0.0, 2.0}
    assert torch.equal(per_sample[:, 0], per_sample[:, 2])
    kept = int((per_sample[:, 0] != 0).sum())
    assert 12 < kept < 52  # 32 +- 5 sigma of 4
    with keyed(layer, KEY), pytest.raises(ValueError, match=r"^key must be given for each sample"):
        vmap(grad(loss), in_dims=(None, 0), randomness="different")(torch.ones(3), x)
    with keyed(layer, KEY):  # which a refusal leaves as it was
        assert torch.equal(layer(x), drop_path(x, 0.5, key=droppath.fold_in(KEY, 0), mode=mode))
