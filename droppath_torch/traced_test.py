"""What torch.fx and torch.jit.script make of the modules."""

import io

import pytest
import torch
from torch import fx, nn

import droppath
from droppath_torch import DropPath, DropPathResidual, drop_path, keyed

KEY = droppath.key(7)
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.function = DropPathResidual(torch.tanh, 0.4)
        self.module = DropPathResidual(nn.Linear(3, 3), 0.4, mode="row")

    def forward(self, x):
        return self.module(self.function(x))


def test_torch_fx_records_each_residual_block_as_one_call_that_draws_at_each_run():
    model = Net()
    traced = fx.symbolic_trace(model)
    calls = [node.target for node in traced.graph.nodes if node.op.startswith("call")]
    assert calls == ["function", "module"]
    x = torch.randn(16, 3)
    with keyed(model, KEY):
        want = model(x)
    with keyed(traced, KEY):
        assert torch.equal(traced(x), want)
    assert not torch.equal(traced(x), traced(x))
    assert torch.equal(traced.eval()(x), model.eval()(x))


@pytest.mark.parametrize("mode", ["row", "balanced"])
def test_torch_fx_records_a_block_at_the_root_as_one_call(mode):
    block = DropPathResidual(nn.Linear(3, 3), 0.4, mode=mode)
    traced = fx.symbolic_trace(block)
    calls = [node.op for node in traced.graph.nodes if node.op.startswith("call")]
    assert calls == ["call_function"]
    x = torch.randn(16, 3)
    assert torch.equal(traced(x, key=KEY), block(x, key=KEY))
    assert list(traced.state_dict()) == list(block.state_dict())
    with pytest.raises(ValueError, match=r"^branch must be a module for torch\.fx"):
        fx.symbolic_trace(DropPathResidual(torch.tanh, 0.4))


def scripted(module):
    """The module as TorchScript, written to a file and read again."""
    file = io.BytesIO()
    torch.jit.save(torch.jit.script(module), file)
    file.seek(0)
    return torch.jit.load(file)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"mode": "batch"},
        {"scale_by_keep": False},
        {"scale_at": "eval"},
        {"axis": 1},
        {"axis": -1},
    ],
)
@pytest.mark.parametrize("p", [0.0, 0.37, 1.0])
def test_a_scripted_DropPath_is_the_module_by_the_same_generator(p, options):
    module, x = nn.Sequential(DropPath(p, **options)), torch.randn(40, 50)
    script = scripted(module)
    ys = []
    for each in (module, script):
        torch.manual_seed(0)
        ys.append(each(x))
    assert torch.equal(*ys)
    assert torch.equal(script.eval()(x), module.eval()(x))


def test_a_scripted_DropPath_draws_at_each_call():
    script = torch.jit.script(DropPath(0.37))
    masks = {tuple((script(torch.ones(20)) != 0).tolist()) for _ in range(5)}
    assert len(masks) == 5
    assert torch.jit.script(DropPath(0.37).eval())(torch.ones(3)).tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    ("module", "text"),
    [
        (
            DropPath(0.1, mode="balanced"),
            "mode must be 'row' or 'batch' for torch.jit.script, got 'balanced'",
        ),
        (
            DropPath(torch.tensor(0.1)),
            "drop_prob must be a float for torch.jit.script, got a tensor",
        ),
        (
            DropPath(0.1, generator=torch.Generator()),
            "generator must be None for torch.jit.script, got a torch.Generator",
        ),
        (
            DropPathResidual(nn.Linear(3, 3), 0.1),
            "branch must not be skipped under torch.jit.script: use DropPath there",
        ),
    ],
)
def test_what_TorchScript_cannot_is_refused_by_name(module, text):
    with pytest.raises(ValueError) as error:
        torch.jit.script(module)
    assert str(error.value) == text


def test_drop_path_in_a_traced_function_is_one_call():
    traced = fx.symbolic_trace(nn.Sequential(DropPath(0.3)))
    assert [n.target for n in traced.graph.nodes if n.op == "call_function"] == [drop_path]


def test_a_scripted_DropPath_scales_by_the_rate_that_it_has():
    script = torch.jit.script(DropPath(0.4))
    script.drop_prob = 0.75
    assert set(script(torch.ones(200)).tolist()) == {0.0, 4.0}
    late = torch.jit.script(DropPath(0.4, scale_at="eval")).eval()
    late.drop_prob = 0.75
    assert late(torch.ones(2)).tolist() == [0.25, 0.25]
