"""summary: the table, the calls that an example shows, and that the model stays as it is."""

import copy

import pytest
import torch
from torch import fx, nn

from droppath_torch import DropPath, DropPathResidual, skip_dropped, summary
from droppath_torch.calls_test import Block
from droppath_torch.foreign_test import ByFunction
from droppath_torch.functional_test import same_bits
from droppath_torch.surgery_test import layer

TABLE = """
path         class               rate   mode      calls  skips
0            DropPath            0.100  batch            no: see skip_dropped
1            DropPathResidual    0.250  balanced         rows that are dropped
2            DropPathResidual    0.250  batch            all or nothing
3            DropPathResidual    0.250  balanced         no: skip=False
4            DropPathResidual    0.250  balanced         no: the rate is a tensor
5            DropPathResidual    0.000  balanced         no: the rate is 0
6.drop_path  Identity                                    no: convert(model) swaps it
6.b          SwinDropPath                                no: convert(model) swaps it
7            stochastic_depth()                          no: a function, out of reach of keyed
7.drop_path  DropPath            0.100  row              no: see skip_dropped
"""


def test_each_layer_has_a_line_and_what_it_skips():
    branch = nn.Tanh()
    model = nn.Sequential(
        DropPath(0.1, mode="batch"),
        DropPathResidual(branch, 0.25),
        DropPathResidual(branch, 0.25, mode="batch"),
        DropPathResidual(branch, 0.25, skip=False),
        DropPathResidual(branch, torch.tensor(0.25)),
        DropPathResidual(branch),
        nn.ModuleDict({"drop_path": nn.Identity(), "b": layer("SwinDropPath", drop_prob=0.1)}),
        ByFunction(),
    )
    assert f"\n{summary(model)}\n" == TABLE


def test_calls_are_counted_where_an_example_is_given():
    model = nn.ModuleDict({"block": Block(), "idle": DropPath(0.1)})
    model.forward = lambda x, times=1: [model["block"](x) for _ in range(times)]
    assert [line.calls for line in summary(model).layers] == [None, None]
    assert [line.calls for line in summary(model, torch.ones(2, 4)).layers] == [2, 0]
    assert [line.calls for line in summary(model, torch.ones(2, 4), times=3).layers] == [6, 0]
    lines = summary(DropPath(0.1), x=torch.ones(2)).layers
    assert [(line.path, line.calls) for line in lines] == [("model", 1)]


def test_a_model_is_left_as_it_was_also_by_an_exception():
    model = nn.Sequential(nn.BatchNorm1d(4), DropPath(0.1).eval(), nn.Dropout(0.5))
    state, rng = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    summary(model, torch.randn(8, 4, generator=torch.Generator().manual_seed(0)))
    with pytest.raises(RuntimeError, match="running_mean"):
        summary(model, torch.ones(8, 3))
    assert all(same_bits(value, state[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), rng)
    assert [module.training for module in model.modules()] == [True, True, False, True]
    assert [len(module._forward_pre_hooks) for module in model.modules()] == [0] * 4


def test_where_nothing_drops_the_table_says_so():
    table = "path  class  rate  mode  calls  skips\nno layer drops paths"
    assert str(summary(nn.Linear(2, 2))) == table


def test_what_torch_fx_recorded_is_told():
    (line,) = summary(fx.symbolic_trace(nn.Sequential(DropPath(0.1)))).layers
    assert (line.path, line.kind) == ("model", "drop_path()")


def test_what_is_no_model_is_refused():
    with pytest.raises(ValueError, match=r"^model must be a torch.nn.Module, got int$"):
        summary(5)


def test_what_skip_dropped_found_is_told():
    class Branches(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.BatchNorm1d(4)
            self.drop_path1, self.drop_path2 = DropPath(0.25), DropPath(0.25)

        def forward(self, x):
            x = x + self.drop_path1(self.a(x))
            return x + self.drop_path2(self.b(x))

    model = skip_dropped(Branches(), torch.randn(8, 4))
    one, two = (line.skips for line in summary(model).layers)
    assert one == "rows that are dropped"
    assert two == f"no: {model.drop_path2.why_masked}"
    assert model.drop_path2.why_masked
