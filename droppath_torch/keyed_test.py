"""keyed: the mask of each layer, what is restored, checkpointing, and compiling."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch.utils.checkpoint import checkpoint

import droppath
from droppath_torch import DropPath, convert, keyed, set_drop_probs
from droppath_torch.functional_test import same_bits

KEY = droppath.key(7)
RATES = [0.37, 0.1, 0.0, 0.9]


def layers() -> list[DropPath]:
    """DropPaths of each kind; the one in a tensor draws on the device."""
    options = [{}, {"mode": "balanced", "groups": 2}, {}, {"mode": "batch"}, {"axis": 1}]
    rates = [*RATES, torch.tensor(0.37)]
    return [DropPath(p, **o) for p, o in zip(rates, options, strict=True)]


def want_mask(key, index: int, layer: DropPath, batch: int, offset: int = 0) -> list[bool]:
    options = {"mode": layer.mode, "groups": layer.groups, "offset": offset}
    p = float(layer.drop_prob)
    return droppath.keep_mask(droppath.fold_in(key, index), p, batch, **options).tolist()


def masks(model: nn.Sequential, batch: int) -> list[list[bool]]:
    """What each layer keeps of ones, each called by itself."""
    return [(m(torch.ones(batch, batch)).select(1 - m.axis, 0) != 0).tolist() for m in model]


def mlp() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 4), DropPath(0.37), nn.Linear(4, 4), DropPath(0.1))


@pytest.mark.parametrize("offset", [0, 12])
def test_layer_l_draws_from_fold_in_of_l(offset):
    model = nn.Sequential(*layers())
    seen = set()
    for step in range(20):
        key = droppath.fold_in(KEY, step)
        with keyed(model, key, offset=offset):
            got = masks(model, 12)
        assert got == [want_mask(key, i, layer, 12, offset) for i, layer in enumerate(model)]
        seen.add(str(got))
    assert len(seen) == 20


def test_layers_count_in_the_order_of_modules_and_whatever_their_rate():
    model = nn.ModuleDict({"b": mlp(), "a": nn.Sequential(DropPath(0.0), mlp())})
    drops = [m for m in model.modules() if isinstance(m, DropPath)]
    assert [m.drop_prob for m in drops] == [0.37, 0.1, 0.0, 0.37, 0.1]
    with keyed(model, KEY):
        got = [m(torch.ones(50)) != 0 for m in drops]
    assert [g.tolist() for g in got] == [want_mask(KEY, i, m, 50) for i, m in enumerate(drops)]


def test_a_list_of_layers_is_the_order_in_which_they_count():
    model = nn.ModuleDict({"a": DropPath(0.5), "b": DropPath(0.5), "c": DropPath(0.5)})
    order = ["c", "a", "b"]
    with keyed(model, KEY, layers=order):
        got = [(model[name](torch.ones(50)) != 0).tolist() for name in order]
    assert got == [want_mask(KEY, i, model[name], 50) for i, name in enumerate(order)]
    with pytest.raises(ValueError, match="layers must name each of 3 DropPaths once"):
        keyed(model, KEY, layers=["c", "a"]).__enter__()
    assert all(layer.layer_key is None for layer in model.values())
    set_drop_probs(model, [0.1, 0.2, 0.3], layers=order)
    assert [layer.drop_prob for layer in model.values()] == [0.2, 0.3, 0.1]


def test_micro_batches_with_their_offsets_are_the_whole_batch():
    model, x = mlp(), torch.randn(12, 4)
    with keyed(model, KEY):
        whole = model(x)
    parts = []
    for start in (0, 5, 6):
        with keyed(model, KEY, offset=start):
            parts.append(model(x[start : {0: 5, 5: 6, 6: 12}[start]]))
    assert (whole == 0).all(1).any()
    assert torch.equal(torch.cat(parts) == 0, whole == 0)
    torch.testing.assert_close(torch.cat(parts), whole)


def test_the_global_generator_is_left_alone():
    model, before = nn.Sequential(*layers()), torch.get_rng_state()
    with keyed(model, KEY):
        masks(model, 12)
    assert torch.equal(torch.get_rng_state(), before)


def test_evaluation_and_rate_0_return_x():
    model, x = nn.Sequential(*layers()), torch.randn(12, 12)
    with keyed(model, KEY):
        assert model.eval()(x) is x
        assert model.train()[2](x) is x


def test_a_key_or_a_mask_given_to_a_module_goes_first():
    layer, x, other = DropPath(0.37), torch.ones(50), droppath.key(1)
    with keyed(layer, KEY):
        assert same_bits(layer(x, key=other), DropPath(0.37)(x, key=other))
        assert (layer(x, keep=torch.arange(50) < 3) != 0).sum() == 3
        assert (layer(x) != 0).tolist() == want_mask(KEY, 0, layer, 50)


def test_all_is_as_before_on_exit_also_by_an_exception_and_when_nested():
    model = nn.Sequential(*layers())
    names = {name: dict(module.__dict__) for name, module in model.named_modules()}
    with pytest.raises(ValueError, match="batch axis"), keyed(model, KEY):
        model(torch.ones(()))
    assert {m.layer_key for m in model} == {None}
    with keyed(model, KEY):
        outer = [m.layer_key for m in model]
        with keyed(model[:2], droppath.key(1)):
            inner = masks(model[:2], 12)
        assert [m.layer_key for m in model] == outer
        assert masks(model, 12) == [want_mask(KEY, i, m, 12) for i, m in enumerate(model)]
    assert inner == [want_mask(droppath.key(1), i, m, 12) for i, m in enumerate(model[:2])]
    for name, module in model.named_modules():
        passing = {"layer_key": None, "was_keyed": isinstance(module, DropPath)}
        assert {**names[name], **passing} == {**passing, **module.__dict__}
    torch.manual_seed(0)
    drawn = masks(model, 12)
    torch.manual_seed(0)
    assert drawn == masks(nn.Sequential(*layers()), 12)  # from torch's generator again


def test_a_state_dict_has_no_trace_of_it():
    model = mlp()
    names = list(model.state_dict())
    assert names == ["0.weight", "0.bias", "2.weight", "2.bias"]
    with keyed(model, KEY):
        model(torch.ones(4, 4))
        state = model.state_dict()
        assert list(state) == names
        mlp().load_state_dict(state, strict=True)
    model.load_state_dict(state, strict=True)
    assert repr(copy.deepcopy(model)) == repr(mlp())


def gradients(model, checkpointed, reentrant):
    model.zero_grad()
    x = torch.randn(8, 4, generator=torch.Generator().manual_seed(1)).requires_grad_()
    with keyed(model, KEY):
        y = checkpoint(model, x, use_reentrant=reentrant) if checkpointed else model(x)
        y.square().sum().backward()
    return [y, x.grad, *[p.grad for p in model.parameters()]]


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("p", [0.37, torch.tensor(0.37)])
def test_gradients_with_activation_checkpointing_are_those_without(p, reentrant):
    model = mlp()
    model[1].drop_prob = p
    results = [gradients(model, checkpointed, reentrant) for checkpointed in (False, True)]
    assert all(same_bits(a, b) for a, b in zip(*results, strict=True))
    assert results[0][0].abs().sum() > 0


@pytest.mark.parametrize("reentrant", [True, False])
def test_a_recomputation_after_the_block_ended_is_refused_and_the_next_step_is_not(reentrant):
    model, x = mlp(), torch.randn(8, 4, requires_grad=True)
    with keyed(model, KEY):
        y = checkpoint(model, x, use_reentrant=reentrant)
    with pytest.raises(RuntimeError) as error:
        y.sum().backward()
    text = "backward must run within the keyed() block of its forward, since activation"
    assert str(error.value) == f"{text} checkpointing runs the forward again"
    checkpoint(model, x, use_reentrant=reentrant).sum().backward()  # without a key
    gradients(model, True, reentrant)


@pytest.mark.parametrize(
    ("key", "offset", "text"),
    [
        ([0, 5], 0, "key must be uint32 of shape (2,), such as droppath.key(7), got int64 of (2,)"),
        (
            droppath.split(KEY, 2),
            0,
            "key must be uint32 of shape (2,), such as droppath.key(7), got uint32 of (2, 2)",
        ),
        (7, 0, "key must be uint32 of shape (2,), such as droppath.key(7), got int64 of ()"),
        (KEY, -1, "offset must be an integer in [0, 2**63), got -1"),
        (KEY, 2**63, "offset must be an integer in [0, 2**63), got 9223372036854775808"),
        (KEY, 0.5, "offset must be an integer, got 0.5"),
    ],
)
def test_a_bad_argument_is_named_and_the_model_is_left_alone(key, offset, text):
    model = mlp()
    with pytest.raises(ValueError) as error, keyed(model, key, offset=offset):
        pass
    assert str(error.value) == text
    assert model[1].layer_key is None


def test_a_0d_x_is_refused_as_it_is_outside():
    layer = DropPath(0.1)
    with pytest.raises(ValueError) as error, keyed(layer, KEY):
        layer(torch.ones(()))
    assert str(error.value) == "x must have the batch axis 0, got shape ()"


def test_64_keys_and_offsets_compiled_once_give_the_masks_of_eager():
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("aot_eager")
    model = nn.Sequential(DropPath(0.37), DropPath(0.1, mode="balanced", groups=2), DropPath(0.0))
    f, x = torch.compile(model, fullgraph=True, dynamic=False, backend=counter), torch.ones(12, 2)
    seen = set()
    for step in range(64):
        key, offset = droppath.fold_in(KEY, step), 6 * (step % 3)
        with keyed(model, key, offset=offset):
            y = f(x)
        a, b = (want_mask(key, i, model[i], 12, offset) for i in range(2))
        assert (y[:, 0] != 0).tolist() == np.logical_and(a, b).tolist()
        seen.add(str(y))
    assert len(seen) > 60
    assert counter.frame_count == 1


def test_compiled_training_steps_are_eager_ones():
    torch._dynamo.reset()
    model, x = mlp(), torch.randn(8, 4)
    f = torch.compile(model, fullgraph=True, dynamic=False, backend="aot_eager")
    for step in range(5):
        results = []
        for call in (model, f):
            model.zero_grad()
            with keyed(model, droppath.fold_in(KEY, step)):
                y = call(x)
                y.square().sum().backward()
            results.append([y, *[p.grad for p in model.parameters()]])
        assert all(same_bits(a, b) for a, b in zip(*results, strict=True))


def test_a_rate_that_changes_within_the_block_is_the_one_that_draws():
    model = nn.Sequential(DropPath(0.1), DropPath(0.1))
    key = droppath.key(3)
    with keyed(model, key):
        model[0](torch.ones(64))
        model[1].drop_prob = 0.9
        kept = model[1](torch.ones(64)) != 0
    want = droppath.keep_mask(droppath.fold_in(key, 1), 0.9, 64)
    assert kept.tolist() == want.tolist()


def test_a_checkpoint_of_an_earlier_block_is_refused_in_a_later_one():
    layer = DropPath(0.5)
    with keyed(layer, droppath.key(0)):
        y = checkpoint(layer, torch.ones(8, requires_grad=True), use_reentrant=False)
    with keyed(layer, droppath.key(1)), pytest.raises(RuntimeError, match="of its forward"):
        y.sum().backward()


def test_what_is_no_model_is_refused_before_anything_is_changed():
    for model in (None, 5, [DropPath(0.1)], nn.Linear):
        text = f"model must be a torch.nn.Module, got {type(model).__name__}"
        for call in (
            lambda m: keyed(m, KEY).__enter__(),
            convert,
            lambda m: set_drop_probs(m, 0.1),
        ):
            with pytest.raises(ValueError) as error:
                call(model)
            assert str(error.value) == text


def test_an_offset_belongs_to_keyed_and_is_refused_at_a_call_within_it():
    layer, x = DropPath(0.5), torch.ones(8)
    with keyed(layer, KEY):
        for offset in (8, torch.tensor(8)):
            with pytest.raises(ValueError, match=r"^offset must be given to keyed"):
                layer(x, offset=offset)
        assert (layer(x) != 0).tolist() == want_mask(KEY, 0, layer, 8)


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint32])
def test_a_key_in_a_tensor_is_the_key(dtype):
    model = nn.Sequential(*layers())
    key = torch.from_numpy(KEY.astype(np.int64)).to(dtype)
    with keyed(model, key, offset=12):
        got = masks(model, 12)
    assert got == [want_mask(KEY, i, layer, 12, 12) for i, layer in enumerate(model)]


def test_a_layer_that_cannot_draw_is_no_hindrance_to_the_others():
    model = nn.Sequential(DropPath(0.37), DropPath(0.37, mode="balanced", groups=3))
    with keyed(model, KEY, offset=4):
        assert masks(model[:1], 8) == [want_mask(KEY, 0, model[0], 8, 4)]
        with pytest.raises(ValueError, match=r"^groups must divide the batch"):
            model[1](torch.ones(8))
