"""What may change from call to call without a new program: the batch, the offset; jit.trace."""

import shutil

import numpy as np
import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

import droppath
from droppath_torch import DropPath, DropPathResidual, drop_path, keep_mask

KEY = torch.from_numpy(droppath.key(5).astype(np.int64))


def compiled(f):
    """f under torch.compile as users call it, and the counter of its programs."""
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("aot_eager")
    return torch.compile(f, backend=counter, fullgraph=True), counter


@pytest.mark.parametrize(
    "layer",
    [
        DropPath(0.4),
        DropPath(0.4, mode="batch"),
        DropPath(0.4, mode="balanced"),
        DropPathResidual(torch.neg, 0.4, mode="row"),
        DropPathResidual(torch.neg, 0.4, mode="balanced"),
    ],
)
def test_batches_of_several_sizes_take_two_programs(layer):
    f, counter = compiled(layer)
    for batch in (4, 6, 8, 10, 7, 12):
        y = f(torch.ones(batch, 3))
        assert y.shape == (batch, 3)
        rows = (y != 1).any(1) if isinstance(layer, DropPathResidual) else (y != 0).any(1)
        assert 0 <= int(rows.sum()) <= batch
    assert counter.frame_count <= 2  # one for the first size, one for all others


def test_a_key_draws_the_right_mask_at_every_size_and_offset_by_a_few_programs():
    def f(x, key, offset):
        return drop_path(x, 0.4, key=key, offset=offset)

    program, counter = compiled(f)
    for batch, offset in ((4, 0), (6, 0), (8, 4), (10, 8), (12, 16), (9, 20)):
        y = program(torch.ones(batch), KEY, offset)
        assert (y != 0).tolist() == keep_mask(KEY, 0.4, batch, offset=offset).tolist()
    assert counter.frame_count <= 4


@pytest.mark.skipif(not shutil.which("g++"), reason="Inductor compiles C++ for a CPU")
@pytest.mark.parametrize("key", [KEY, droppath.key(5)], ids=["tensor", "numpy"])
def test_inductor_draws_the_right_mask_at_an_offset_that_varies(key):
    torch._dynamo.reset()
    program = torch.compile(lambda x, offset: drop_path(x, 0.4, key=key, offset=offset))
    for offset in (0, 4, 70_000, 2**32 - 4, 2**40 + 3):
        kept = program(torch.ones(9), offset) != 0
        assert kept.tolist() == keep_mask(KEY, 0.4, 9, offset=offset).tolist()


@pytest.mark.skipif(not shutil.which("g++"), reason="Inductor compiles C++ for a CPU")
def test_inductor_keeps_whole_rows_where_groups_that_vary_have_one_row():
    torch._dynamo.reset()
    program = torch.compile(
        lambda x, groups: drop_path(x, 0.37, key=KEY, mode="balanced", groups=groups), dynamic=True
    )
    for batch, groups in ((7, 7), (8, 2), (5, 5)):
        kept = program(torch.ones(batch, 2), groups) != 0
        want = keep_mask(KEY, 0.37, batch, mode="balanced", groups=groups)
        assert torch.equal(kept, want[:, None].expand(batch, 2))


@pytest.mark.filterwarnings(
    "ignore::torch.jit.TracerWarning", "ignore:`torch.jit:DeprecationWarning"
)
@pytest.mark.parametrize("mode", ["row", "batch"])
def test_torch_jit_trace_records_a_draw(mode):
    layer = DropPath(0.5, mode=mode)
    traced = torch.jit.trace(layer, torch.ones(64, 3), check_trace=False)
    ys = [traced(torch.ones(64, 3)) for _ in range(16)]
    assert len({tuple(y[:, 0].tolist()) for y in ys}) > 1
    assert set(torch.cat(ys).flatten().tolist()) == {0.0, 2.0}
