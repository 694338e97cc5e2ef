"""Activation checkpointing of layers that are called again: each call's own mask, or a refusal."""

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint, set_checkpoint_early_stop

from droppath_torch import keyed
from droppath_torch.calls_test import KEY, Block, X
from droppath_torch.functional_test import same_bits


def gradients(model):
    model.zero_grad()
    x = X.clone().requires_grad_()
    with keyed(model, KEY):
        y = model(x)
        y.square().sum().backward()
    return [y, x.grad, *[p.grad for p in model.parameters()]]


def model_of(p, **options):
    torch.manual_seed(0)
    return nn.Sequential(*[Block(p, **options) for _ in range(2)])


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("p", [0.37, torch.tensor(0.37)])
@pytest.mark.parametrize(
    "checkpointed", [("first",), ("second",), ("first", "second"), ("both",)], ids="+".join
)
def test_a_recomputed_call_gets_its_own_mask(checkpointed, p, reentrant):
    plain = gradients(model_of(p))
    options = {"checkpointed": checkpointed, "reentrant": reentrant}
    for early_stop in (True, False):
        with set_checkpoint_early_stop(early_stop):
            got = gradients(model_of(p, **options))
        assert all(same_bits(a, b) for a, b in zip(got, plain, strict=True))
    assert same_bits(gradients(model_of(p, **options))[1], plain[1])


def test_a_backward_that_is_run_twice_repeats_each_call_twice():
    plain, model = gradients(model_of(0.37)), model_of(0.37, checkpointed=("first", "second"))
    x = X.clone().requires_grad_()
    with keyed(model, KEY):
        loss = model(x).square().sum()
        for _ in range(2):
            (dx,) = torch.autograd.grad(loss, x, retain_graph=True)
            assert same_bits(dx, plain[1])


def test_a_recomputation_that_backward_did_not_ask_for_repeats_its_call():
    model = Block(0.37, checkpointed=("first", "second"))
    with keyed(model, KEY):
        y = model(X.clone().requires_grad_())
        inner = y.grad_fn.next_functions[1][0]
        while not hasattr(inner, "_saved_result"):
            inner = inner.next_functions[0][0]
        saved = inner._saved_result  # tanh's, which is recomputed for it
        y.sum().backward()
    with keyed(plain := Block(0.37), KEY):
        plain.load_state_dict(model.state_dict())
        assert same_bits(saved, plain.b(plain.first(X)).tanh())


UNKNOWN = (
    "checkpointing must run again what tells which call of a DropPath it repeats, got one of 2 "
    "calls and no sign which: give each branch a DropPath of its own, or do not nest checkpoints "
    "around this one"
)


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")  # reentrant in it
@pytest.mark.parametrize("reentrant", [True, False])
def test_a_nested_checkpoint_is_refused_where_a_layer_is_called_again(reentrant):
    model = Block(checkpointed=("first", "second"), reentrant=reentrant)
    x = X.clone().requires_grad_()
    with keyed(model, KEY), pytest.raises(RuntimeError) as error:
        checkpoint(model, x, use_reentrant=reentrant).sum().backward()
    assert str(error.value) == UNKNOWN


def test_a_recomputation_by_other_means_is_refused_where_a_layer_is_called_again():
    class Again(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, f):
            ctx.f = f
            ctx.save_for_backward(x)
            return f(x)

        @staticmethod
        def backward(ctx, dy):
            with torch.enable_grad():
                x = ctx.saved_tensors[0].detach().requires_grad_()
                return torch.autograd.grad(ctx.f(x), x, dy)[0], None

    model = Block()
    model.forward = lambda x: model.second(Again.apply(x, model.first))
    with keyed(model, KEY), pytest.raises(RuntimeError) as error:
        model(X.clone().requires_grad_()).sum().backward()
    assert str(error.value) == UNKNOWN
