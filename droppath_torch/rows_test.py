"""The rows that run: in which memory layout, and how they get to another device."""

import numpy as np
import pytest
import torch
from torch import nn

import droppath
from droppath_torch import drop_path, drop_path_residual
from droppath_torch.rows import pick_rows
from droppath_torch.sent import send_rows

KEY = droppath.key(7)  # keeps in batch mode
MODES = ["row", "balanced", "batch"]
LAST = torch.channels_last


def images(*shape, dtype=torch.float32):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=dtype)
    return x.to(memory_format=LAST)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("skip", [None, False])
@pytest.mark.parametrize("mode", MODES)
def test_a_residual_block_keeps_channels_last(mode, skip, dtype):
    conv = nn.Conv2d(3, 3, 3, padding=1).to(memory_format=LAST, dtype=dtype)
    layouts = []

    def branch(h):
        layouts.append(h.is_contiguous(memory_format=LAST))
        return conv(h)

    for x in (images(8, 3, 5, 4, dtype=dtype), images(8, 3, 5, 4, dtype=dtype).requires_grad_()):
        y = drop_path_residual(x, branch, 0.4, key=KEY, mode=mode, skip=skip)
        assert y.is_contiguous(memory_format=LAST)
    (dx,) = torch.autograd.grad(y, x, torch.ones_like(y))
    assert dx.is_contiguous(memory_format=LAST)
    assert layouts == [True, True]
    plain = drop_path_residual(x.contiguous(), conv, 0.4, key=KEY, mode=mode, skip=skip)
    torch.testing.assert_close(y, plain)


@pytest.mark.parametrize("mode", MODES)
def test_a_compiled_residual_block_keeps_channels_last(mode):
    conv = nn.Conv2d(3, 3, 3, padding=1).to(memory_format=LAST)
    key = torch.from_numpy(KEY.astype("int64"))

    @torch.compile(fullgraph=True, backend="aot_eager")
    def block(x):
        return drop_path_residual(x, conv, 0.4, key=key, mode=mode)

    x = images(8, 3, 5, 4).requires_grad_()
    y = block(x)
    (dx,) = torch.autograd.grad(y, x, torch.ones_like(y))
    assert y.is_contiguous(memory_format=LAST)
    assert dx.is_contiguous(memory_format=LAST)
    torch.testing.assert_close(y, drop_path_residual(x, conv, 0.4, key=key, mode=mode))


@pytest.mark.parametrize("channels", [4, 40])  # either side of on_cpu's WORTH_A_FUNCTION
@pytest.mark.parametrize("mode", MODES)
def test_drop_path_keeps_channels_last(mode, channels):
    x = images(8, channels, 25, 24).requires_grad_()
    y = drop_path(x, 0.4, key=KEY, mode=mode)
    (dx,) = torch.autograd.grad(y, x, torch.ones_like(y))
    assert y.is_contiguous(memory_format=LAST)
    assert dx.is_contiguous(memory_format=LAST)


def test_any_dense_layout_is_kept_whichever_axis_is_the_batch():
    x = torch.randn(5, 2, 8, 3).permute(2, 0, 3, 1)  # [8, 5, 3, 2] over memory of another order
    seen = []

    def branch(h):
        seen.append(h.stride())
        return h * 2

    y = drop_path_residual(x, branch, 0.4, key=KEY)
    assert y.stride() == x.stride() == (3, 48, 1, 24)
    rows = y.ne(x).flatten(1).any(1).sum()
    assert 0 < rows < 8
    assert seen[0][1:] != (6, 2, 1)  # not NCHW
    assert torch.empty(seen[0]).dim() == x.dim()
    other = drop_path_residual(x.movedim(0, 1), torch.neg, 0.4, key=KEY, axis=1)
    assert other.stride() == x.movedim(0, 1).stride()


def test_rows_that_are_sent_are_those_that_a_device_picks():
    keep = np.array([np.arange(9) % 3 == 1, np.arange(9) < 0, np.arange(9) != 4, np.arange(9) < 9])
    sent = send_rows(keep, torch.device("cpu"))
    assert [len(rows.kept) for rows in sent] == [3, 0, 8, 9]
    for mask, rows in zip(keep[:3], sent, strict=False):
        want = pick_rows(torch.from_numpy(mask), max(int(mask.sum()), 1), 1)
        assert torch.equal(rows.taken, want.taken)
        assert torch.equal(rows.kept, want.taken[want.real])
        assert torch.equal(rows.place, want.place)
        assert torch.equal(rows.place >= 0, want.keep)
    assert sent[3].place.tolist() == sent[3].taken.tolist() == [*range(9)]
    parts = [part for rows in sent for part in (rows.taken, rows.kept, rows.place)]
    assert {part.dtype for part in parts} == {torch.int64}
    assert len({part.untyped_storage().data_ptr() for part in parts}) == 1  # one copy


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("keep", [[0, 1, 1, 0, 1, 0], [0] * 6])
def test_what_no_kernel_takes_is_added_and_scaled_as_where_a_device_picks(keep, dtype):
    keep = torch.tensor(keep, dtype=torch.bool)
    [rows] = send_rows(keep.numpy()[None], torch.device("cpu"))
    same = pick_rows(keep, max(int(keep.sum()), 1), 1)
    x = images(6, 3, 5, 4, dtype=dtype)
    f = rows.take(x, 0).flip(1).to(memory_format=LAST)
    for got, want in (
        (rows.take(x, 0), same.take(x, 0)),
        (rows.add(x, f, 1.7, 0), same.add(x, f, 1.7, 0)),
        (rows.scaled(x, 1.7, dtype, 0), same.scaled(x, 1.7, dtype, 0)),
    ):
        assert torch.equal(got, want)
        assert got.stride() == want.stride()


@pytest.mark.parametrize("mode", MODES)
def test_where_all_is_kept_nothing_is_selected(mode):
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as seen:
        keep = torch.ones(8, dtype=torch.bool)
        drop_path_residual(torch.ones(8, 3), torch.neg, 0.4, keep=keep, mode=mode)
    ran = {event.key for event in seen.key_averages()}
    assert {"aten::neg", "aten::add"} <= ran
    assert not ran & {"aten::where", "aten::index_select", "aten::index_add_", "aten::index_copy_"}
