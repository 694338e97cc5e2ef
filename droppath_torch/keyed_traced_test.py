"""keyed within a compiled step: the masks of eager, one program for all keys."""

import numpy as np
import pytest
import torch
from torch import nn
from torch._dynamo.exc import Unsupported
from torch._dynamo.testing import CompileCounterWithBackend
from torch.utils.checkpoint import checkpoint

import droppath
from droppath_torch import DropPath, DropPathResidual, keyed
from droppath_torch.calls_test import BROKEN, Block, X
from droppath_torch.functional_test import same_bits

KEY = droppath.key(7)


def network():
    torch.manual_seed(0)
    layers = DropPath(0.1, mode="balanced", groups=2), DropPath(torch.tensor(0.37)), DropPath()
    block = DropPathResidual(nn.Linear(4, 4), 0.37)
    return nn.Sequential(Block(), *layers, block, DropPath(0.37, mode="batch"))


def step(model, key, offset=0):
    with keyed(model, key, offset=offset):
        y = model(X)
        loss = y.square().sum()
    return y, loss


def as_numpy(key):
    return key


def as_tensor(key):
    return torch.from_numpy(key.astype(np.int64))


def compiled(f=step):
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("aot_eager")
    return torch.compile(f, fullgraph=True, dynamic=False, backend=counter), counter


def gradients(model, f, *given):
    model.zero_grad()
    y, loss = f(model, *given)
    loss.backward()
    return [y, *[p.grad for p in model.parameters() if p.grad is not None]]


@pytest.mark.parametrize("form", [as_numpy, as_tensor])
def test_masks_are_those_of_eager_and_another_key_compiles_nothing(form):
    model, (f, counter) = network(), compiled()
    seen = set()
    for i in range(8):
        key = form(droppath.fold_in(KEY, i))
        got, want = (gradients(model, call, key) for call in (f, step))
        assert len(got) == len(want) > 5
        torch.testing.assert_close(got, want, rtol=1e-6, atol=1e-6)  # a skipped row is not summed
        assert torch.equal(got[0] == 0, want[0] == 0)
        seen.add(str(want[0]))
    assert len(seen) > 4
    assert counter.frame_count == 1


def test_an_offset_is_that_of_eager():
    model, (f, _) = nn.Sequential(DropPath(0.37)), compiled()
    for offset in (0, 16):
        got, want = f(model, KEY, offset)[0], step(model, KEY, offset)[0]
        assert same_bits(got, want)


def test_a_layer_that_is_called_again_draws_again():
    model, (f, counter) = Block(), compiled()
    for i in range(4):
        key = droppath.fold_in(KEY, i)
        assert same_bits(f(model, key)[0], step(model, key)[0])
    assert counter.frame_count == 1


def test_the_model_is_left_as_it_was():
    model, (f, _) = network(), compiled()
    f(model, KEY)
    layers = [m for m in model.modules() if isinstance(m, DropPath)]
    assert {layer.layer_key for layer in layers} == {None}
    assert all(layer.was_keyed for layer in layers)
    assert [len(m._forward_pre_hooks) for m in model.modules()] == [0] * len([*model.modules()])
    assert same_bits(step(model, KEY)[0], step(model, KEY)[0])


@pytest.mark.parametrize(
    ("model", "key"),
    [(Block(), droppath.split(KEY, 2)), (Block(), torch.tensor([1, 2, 3])), (nn.Tanh(), KEY)],
)
def test_a_bad_argument_is_no_program(model, key):
    f, _ = compiled()
    with pytest.raises((Unsupported, ValueError), match="must"):
        f(model, key)


class Stack(nn.Module):
    """Blocks that are called as they are, or as programs within checkpoints."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList([Block(), Block()])
        self.programs, self.reentrant = [], False

    def forward(self, x):
        for block in [] if self.programs else self.blocks:
            x = block(x)
        for program in self.programs:
            x = checkpoint(program, x, use_reentrant=self.reentrant)
        return x


@BROKEN
@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("fullgraph", [False, True])
def test_a_checkpoint_around_a_program_runs_it_again_with_its_masks(reentrant, fullgraph):
    torch._dynamo.reset()
    model, counter, frames = Stack(), CompileCounterWithBackend("aot_eager"), []
    model.reentrant = reentrant
    programs = [
        torch.compile(block, fullgraph=fullgraph, backend=counter) for block in model.blocks
    ]
    for i in range(3):
        results = []
        for model.programs in (programs, []):
            model.zero_grad()
            x = X.clone().requires_grad_()
            with keyed(model, droppath.fold_in(KEY, i)):
                y = model(x)
                y.square().sum().backward()
                if model.programs and not fullgraph:
                    with pytest.raises(ValueError, match=r"^key must serve one"):
                        programs[0](X)
            results.append([y, x.grad, *[p.grad for p in model.parameters()]])
        assert all(same_bits(a, b) for a, b in zip(*results, strict=True))
        frames.append(counter.frame_count)
    assert frames[1] == frames[2]
