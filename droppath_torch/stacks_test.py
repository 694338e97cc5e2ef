"""A stack under a plan: the layers that run, by hand; gradients, phases, refusals."""

import numpy as np
import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounter

import droppath
from droppath_torch import drop_path_residual, drop_path_stack, layer_plan

RATES = droppath.drop_path_rates(0.5, 6, whole=True)
KEY = droppath.key(4)


def layers(width=4, dtype=torch.float64):
    torch.manual_seed(0)
    return nn.ModuleList(nn.Linear(width, width, dtype=dtype) for _ in RATES)


class Branch(nn.Module):
    """A layer of one's own, since Dynamo compiles no call of PyTorch's modules by itself."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return self.layer(x)


def test_the_layers_of_the_plan_run_and_no_others():
    calls = []

    def layer(index):
        return lambda x: calls.append(index) or torch.full_like(x, index + 1.0)

    y = drop_path_stack(torch.zeros(3, 2), [layer(i) for i in range(6)], RATES, key=KEY)
    runs = np.flatnonzero(droppath.layer_plan(KEY, RATES)).tolist()
    assert calls == runs
    assert len(runs) == droppath.planned_depth(RATES) == 5
    want = sum((i + 1) / (1 - RATES[i]) for i in runs)
    assert torch.allclose(y, torch.full((3, 2), want))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("scale_by_keep", [True, False])
def test_values_and_gradients_are_those_of_blocks_that_keep_or_drop_the_batch(dtype, scale_by_keep):
    stack = layers(dtype=dtype)
    x = torch.randn(5, 4, dtype=dtype, requires_grad=True)
    y = drop_path_stack(x, stack, RATES, key=KEY, scale_by_keep=scale_by_keep)
    one_by_one = x
    for layer, p, run in zip(stack, RATES, layer_plan(KEY, RATES), strict=True):
        keep = run.expand(len(x))
        options = {"mode": "batch", "scale_by_keep": scale_by_keep}
        one_by_one = drop_path_residual(one_by_one, layer, p, keep=keep, **options)
    assert y.dtype == dtype
    assert torch.equal(y, one_by_one)
    grads = [torch.autograd.grad(z.sum(), x)[0] for z in (y, one_by_one)]
    assert torch.equal(*grads)


def test_a_layer_that_is_dropped_has_no_gradient_in_this_step():
    stack = layers()
    drop_path_stack(torch.ones(2, 4, dtype=torch.float64), stack, RATES, key=KEY).sum().backward()
    ran = [layer.weight.grad is not None for layer in stack]
    assert ran == droppath.layer_plan(KEY, RATES).tolist()


DROPPED = next(
    droppath.key(seed)
    for seed in range(99)
    if not droppath.layer_plan(droppath.key(seed), RATES)[2]
)


@pytest.mark.parametrize("zero_gradients", [False, True])
def test_adamw_leaves_a_dropped_layer_alone_or_moves_it_on(zero_gradients):
    # AdamW, betas 0.9 and 0.999: one step with gradient g and one with none, or with zero.
    g, lr, decay = 2.0, 0.1, 0.5
    stack = layers()
    weight = stack[2].weight
    optimizer = torch.optim.AdamW(stack.parameters(), lr=lr, weight_decay=decay)
    optimizer.zero_grad()
    for layer in stack:
        layer.weight.grad = torch.full_like(layer.weight, g)
    optimizer.step()
    first = weight.detach().clone()

    optimizer.zero_grad()
    x = torch.ones(2, 4, dtype=torch.float64)
    drop_path_stack(x, stack, RATES, key=DROPPED, zero_gradients=zero_gradients).sum().backward()
    optimizer.step()
    if not zero_gradients:
        assert weight.grad is None
        assert torch.equal(weight, first)
        assert optimizer.state[weight]["step"] == 1
        return
    assert (weight.grad == 0).all()
    m, v = 0.9 * 0.1 * g / (1 - 0.9**2), 0.999 * 0.001 * g**2 / (1 - 0.999**2)
    assert torch.allclose(weight, first * (1 - lr * decay) - lr * m / (v**0.5 + 1e-8))


def test_zeros_for_gradients_change_no_value_and_no_other_gradient():
    x, results = torch.randn(2, 4, dtype=torch.float64), []
    for zero_gradients in (False, True):
        stack = layers()
        stack[0].bias.requires_grad_(False)
        y = drop_path_stack(x, stack, RATES, plan=np.zeros(6, bool), zero_gradients=zero_gradients)
        assert torch.equal(y, x)
        assert y.requires_grad == zero_gradients
        y = drop_path_stack(x, stack, RATES, key=KEY, zero_gradients=zero_gradients)
        y.square().sum().backward()
        results.append((y, [w.grad for w in stack.parameters()]))
    (y, grads), (same, others) = results
    assert torch.equal(y, same)
    assert [w.grad is None for w in stack.parameters()] == [i == 1 for i in range(12)]
    assert any(g is None for g in grads)
    for got, want in zip(others, grads, strict=True):
        if got is not None:
            assert torch.equal(got, torch.zeros_like(got) if want is None else want)


@pytest.mark.parametrize("training", [True, False])
def test_a_layer_that_does_not_run_keeps_its_state(training):
    norms = nn.ModuleList(nn.BatchNorm1d(4) for _ in RATES)
    drop_path_stack(torch.randn(5, 4), norms, RATES, training, key=KEY if training else None)
    seen = [norm.num_batches_tracked.item() == 1 for norm in norms]
    assert seen == (droppath.layer_plan(KEY, RATES).tolist() if training else [True] * 6)


@pytest.mark.parametrize(
    ("options", "factor"),
    [
        ({}, lambda p: 1.0),
        ({"scale_at": "eval"}, lambda p: 1 - p),
        ({"scale_by_keep": False}, lambda p: 1.0),
    ],
)
def test_all_layers_run_in_evaluation(options, factor):
    y = drop_path_stack(torch.zeros(1), [torch.ones_like] * 6, RATES, False, **options)
    assert y.item() == pytest.approx(sum(factor(p) for p in RATES))


def test_a_plan_that_is_given_decides():
    plan = np.array([True, False, True, False, False, False])
    branches = [lambda x, i=i: torch.full_like(x, 2.0**i) for i in range(6)]
    for given in (plan, torch.from_numpy(plan)):
        y = drop_path_stack(torch.zeros(1), branches, RATES, plan=given, scale_by_keep=False)
        assert y.item() == 1 + 4
    ones = drop_path_stack(torch.zeros(1), branches, [1.0] * 6, plan=plan)
    assert ones.item() == 0


def test_layers_that_are_compiled_by_themselves_are_not_compiled_again_for_another_plan():
    counter = CompileCounter()
    torch._dynamo.reset()
    stack, x = [Branch(layer) for layer in layers()], torch.ones(2, 4, dtype=torch.float64)
    for branch in stack:
        branch.compile(backend=counter, fullgraph=True)
    with torch.no_grad():
        drop_path_stack(x, stack, RATES, plan=np.ones(6, bool))
        programs = counter.frame_count
        assert 1 <= programs <= 6
        for step in range(8):
            drop_path_stack(x, stack, RATES, key=droppath.fold_in(KEY, step))
    assert counter.frame_count == programs


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"rates": RATES[:5]}, "rates must be a list of 6 rates, got "),
        ({"rates": [RATES]}, "rates must be a list of 6 rates, got "),
        ({"rates": [1.5] * 6}, "rates must be a number in [0, 1], got 1.5"),
        ({"key": None}, "key must be given to drop in training, or plan, got none"),
        ({"plan": [True] * 6}, "key and plan must not both be given"),
        (
            {"key": None, "plan": np.ones(5, bool)},
            "plan must be bool of shape (6,), got bool",
        ),
        ({"key": None, "plan": np.ones(6)}, "plan must be bool of shape (6,), got float64 of (6,)"),
        ({"branches": [torch.neg, None]}, "branches must be callable, got None"),
        ({"branches": [torch.sum] * 6}, "branches must return the shape it is given"),
        ({"branches": [], "rates": []}, "rates must have a layer, got []"),
        ({"x": torch.ones(3, dtype=torch.int64)}, "x must be "),
        ({"x": torch.tensor(1.0)}, "x must have the batch axis"),
        ({"training": 1}, "training must be "),
        ({"zero_gradients": None}, "zero_gradients must be "),
        ({"scale_at": "never"}, "scale_at must be "),
        ({"key": torch.zeros(2, dtype=torch.int64, device="meta")}, "key must be on the CPU"),
    ],
)
def test_what_is_wrong_is_named_before_a_layer_runs(changes, text):
    ran = []
    branches = [lambda x: ran.append(1) or x] * 6
    right = {"x": torch.ones(3, 2), "branches": branches, "rates": RATES, "key": KEY}
    with pytest.raises(ValueError) as error:
        drop_path_stack(**right | changes)
    assert str(error.value).startswith(text)
    assert not ran
