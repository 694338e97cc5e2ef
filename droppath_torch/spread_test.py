"""The two maps of spread.py, for each kind of rows: bits of drop_path, gradients, and spares."""

import pytest
import torch

from droppath_torch import drop_path
from droppath_torch.functional_test import same_bits
from droppath_torch.rows import DeviceRows, pick_host_rows, pick_rows
from droppath_torch.sent import send_rows
from droppath_torch.spread import Begun

KEEP = torch.tensor([True, False, True, True, False])
B, KEPT = len(KEEP), 3
KINDS = {
    "kept, of the host": pick_host_rows(KEEP.numpy(), False),
    "kept, sent to a device": send_rows(KEEP.numpy()[None], torch.device("cpu"))[0],
    "all, of the host": pick_host_rows(KEEP.numpy(), True),
    "kept and a spare": pick_rows(KEEP, 4, 1),
    "all, of a device": DeviceRows(KEEP),
}


def begun(kind):
    return Begun(KINDS[kind], B)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("p", [0.0, 0.3, torch.tensor(0.3)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_what_is_spread_are_the_bits_of_drop_path(kind, p, dtype):
    x = torch.randn(B, 3, generator=torch.Generator().manual_seed(0)).to(dtype)
    x[1] = float("inf")
    x[4] = -1.0
    for axis, given in ((0, x), (1, x.T.contiguous())):
        rows = begun(kind).take(given, axis)
        wide = torch.promote_types(dtype, torch.float32)
        q = 1 - (p.to(wide) if isinstance(p, torch.Tensor) else p)
        got = begun(kind).spread(rows, 1 / q, axis)
        assert same_bits(got, drop_path(given, p, keep=KEEP, axis=axis))


@pytest.mark.parametrize("kind", KINDS)
def test_both_have_their_derivatives(kind):
    x = torch.randn(B, 2, dtype=torch.double, requires_grad=True)

    def block(x):
        return x + begun(kind).spread(begun(kind).take(x, 0) ** 3, 1.7, 0)

    assert torch.autograd.gradcheck(block, x)
    assert torch.autograd.gradgradcheck(block, x)
    taken = begun(kind).take(x, 0)
    ran = {"kept, of the host": KEPT, "kept, sent to a device": KEPT, "kept and a spare": 4}
    assert len(taken) == ran.get(kind, B)


def test_no_gradient_comes_of_a_spare_that_is_NaN():
    x = torch.zeros(B, 2, requires_grad=True)
    rows = begun("kept and a spare")
    rows.spread(rows.take(x, 0).sqrt(), 2.0, 0).sum().backward()
    assert torch.isinf(x.grad[KEEP]).all()  # of a root at 0
    assert same_bits(x.grad[~KEEP], torch.zeros(2, 2))


def test_a_layout_in_memory_is_kept():
    x = torch.randn(B, 3, 4, 4).to(memory_format=torch.channels_last)
    for kind in KINDS:
        y = begun(kind).spread(begun(kind).take(x, 0), 2.0, 0)
        assert y.is_contiguous(memory_format=torch.channels_last)
        assert not y._is_view()


def test_all_rows_that_count_are_scaled_as_they_are():
    x = torch.randn(B, 3)
    assert Begun(None, B).take(x, 0) is x
    assert same_bits(Begun(None, B).spread(x, 2.0, 0), 2 * x)


@pytest.mark.parametrize("n", [2, 5])
def test_other_rows_than_it_began_with_are_refused(n):
    with pytest.raises(ValueError) as error:
        begun("kept, of the host").spread(torch.ones(n, 3), 1.0, 0)
    want = f"x must have the 3 rows that its branch began with, got ({n}, 3)"
    assert str(error.value) == want
