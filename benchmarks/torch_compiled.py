"""torch.compile for one of several models in a process, which share the code of their modules."""

from inspect import signature
from typing import Any, cast

import torch
from torch import nn

MANY = 1 << 10  # more programs of one code than a benchmark compiles in a process


def compiled(module: nn.Module) -> nn.Module:
    """Return a module compiled as a whole, whatever else has been compiled of the same code.

    Without more, PyTorch keeps eight programs of one code. Each module has programs of its own from
    PyTorch 2.12 on; before, all share MANY.
    """
    compiler: Any = torch.compile  # whose types, in 2.13, leave isolate_recompiles out
    own = {"isolate_recompiles": True}
    if not own.keys() <= signature(compiler).parameters.keys():
        torch._dynamo.config.recompile_limit = MANY
        own = {}
    return cast(nn.Module, compiler(module, fullgraph=True, dynamic=False, **own))
