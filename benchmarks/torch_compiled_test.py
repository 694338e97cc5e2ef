from functools import wraps

import pytest
import torch
from torch import nn

from benchmarks.torch_compiled import compiled


@pytest.mark.parametrize("older", [False, True], ids=["this PyTorch", "before 2.12"])
def test_more_models_of_one_code_are_compiled_than_pytorch_keeps_programs(older, monkeypatch):
    compiler = torch.compile
    if older:

        @wraps(compiler)
        def without(module, *, fullgraph, dynamic):
            return compiler(module, fullgraph=fullgraph, dynamic=dynamic, backend="eager")

        del without.__wrapped__  # else its signature would be torch.compile's
        monkeypatch.setattr(torch, "compile", without)
    else:
        monkeypatch.setattr(
            torch, "compile", wraps(compiler)(lambda *a, **b: compiler(*a, backend="eager", **b))
        )
    limit = 8  # PyTorch's own; a worker's other tests may have set another
    with torch._dynamo.config.patch(recompile_limit=limit):
        models = [compiled(nn.Sequential(nn.Linear(width, 2))) for width in range(1, limit + 4)]
        for width, model in enumerate(models, start=1):
            assert model(torch.ones(1, width)).shape == (1, 2)
