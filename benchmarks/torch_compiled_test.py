from functools import wraps

import pytest
import torch
from torch import nn

from benchmarks.torch_compiled import compiled


@pytest.mark.parametrize("older", [False, True], ids=["this PyTorch", "before 2.12"])
def test_more_models_of_one_code_are_compiled_than_pytorch_keeps_programs(older, monkeypatch):
    compiler = torch.compile
    if older:

        def eager(module, *, fullgraph, dynamic):
            return compiler(module, fullgraph=fullgraph, dynamic=dynamic, backend="eager")
    else:

        @wraps(compiler)  # with its signature
        def eager(module, **options):
            return compiler(module, backend="eager", **options)

    monkeypatch.setattr(torch, "compile", eager)
    limit = 8  # PyTorch's own; a worker's other tests may have set another
    with torch._dynamo.config.patch(recompile_limit=limit):
        models = [compiled(nn.Sequential(nn.Linear(width, 2))) for width in range(1, limit + 4)]
        for width, model in enumerate(models, start=1):
            assert model(torch.ones(1, width)).shape == (1, 2)
