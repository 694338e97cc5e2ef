"""A trial of a model: what it may change is put back after it, and chance plays no part in it.

Put back are torch's generators, the buffers, the gradients, and the attributes of modules. What a
module holds in lists or dictionaries of its own, and Python's and NumPy's generators, are not.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from droppath_torch.arrays import in_backward
from droppath_torch.modules import DropPath
from droppath_torch.step_masks import LayerMask


@contextmanager
def put_back(model: nn.Module) -> Iterator[None]:
    """Within the block, let a model be run; after it all is as it was."""
    held = [(vars(m), dict(vars(m)), m._buffers, dict(m._buffers)) for m in model.modules()]
    contents = [(buffer, buffer.clone()) for buffer in model.buffers()]
    grads = [(p, p.grad) for p in model.parameters()]
    devices = {p.get_device() for p, _ in grads if p.is_cuda}
    try:
        with torch.random.fork_rng(sorted(devices)), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of runs that are no training
            yield
    finally:
        for now, before, buffers, buffers_before in held:
            now.update({k: v for k, v in before.items() if not k.startswith("_")})
            buffers.update(buffers_before)
        with torch.no_grad():
            for buffer, content in contents:
                buffer.copy_(content)
        for p, grad in grads:
            p.grad = grad


@contextmanager
def other_parameters(block: nn.Module) -> Iterator[None]:
    """Within the block, let other floating parameters stand in: of zeros nothing is seen.

    LayerScale's 1e-5 and norms that begin at 0 get values that can be seen.
    """
    places = [(m._parameters, k, p) for m in block.modules() for k, p in m._parameters.items()]
    plain = [(held, k, p) for held, k, p in places if p is not None and type(p) is nn.Parameter]
    others = dict[nn.Parameter, nn.Parameter]()
    try:
        for held, name, p in plain:
            if p.is_floating_point():
                held[name] = others.setdefault(p, _another(p))
        yield
    finally:
        for held, name, p in plain:
            held[name] = p


def _another(p: nn.Parameter) -> nn.Parameter:
    fan_in = p[0].numel() if p.ndim > 1 and len(p) else 1
    spread = 0.5 * max(fan_in, 1) ** -0.5
    return nn.Parameter(p.detach() + spread * torch.randn_like(p), requires_grad=p.requires_grad)


class FixedMasks:
    """In place of what `keyed` sets up: for each call of a layer a mask that keeps most rows."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.calls = [0, 0]  # in the forward; in the backward, which may run it again

    def keep_mask(self, batch: int, device: torch.device) -> LayerMask:
        """Return the mask of the next call: of B rows B // 2 + 1, which divides no B, are kept."""
        again = in_backward()
        call = self.calls[again] % self.calls[0] if again else self.calls[0]
        self.calls[again] += 1
        generator = torch.Generator().manual_seed(1000 * self.index + call)
        return LayerMask(torch.randperm(batch, generator=generator) < batch // 2 + 1)


@contextmanager
def fixed_masks(model: nn.Module) -> Iterator[list[FixedMasks]]:
    """Within the block, let every DropPath drop, by masks that are the same in each run."""
    drops = [module for module in model.modules() if isinstance(module, DropPath)]
    held, made = [dict(vars(drop)) for drop in drops], [FixedMasks(i) for i in range(len(drops))]
    try:
        for drop, masks in zip(drops, made, strict=True):
            changed: dict[str, Any] = {"drop_prob": 0.5, "mode": "row", "groups": 1}
            vars(drop).update(changed | {"training": True, "layer_key": masks})
        yield made
    finally:
        for drop, before in zip(drops, held, strict=True):
            vars(drop).clear()
            vars(drop).update(before)


class WithoutDropout(TorchDispatchMode):
    """Within it dropout keeps all: what it draws for fewer rows cannot be compared."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, kwargs = func._schema.name, kwargs or {}
        if name == "aten::native_dropout":
            return args[0].clone(), torch.ones_like(args[0], dtype=torch.bool)
        if name == "aten::bernoulli_":
            p = args[1] if len(args) > 1 else kwargs.get("p", 0.5)
            if not isinstance(p, Tensor):
                return args[0].fill_(p)  # the CPU's dropout divides by the rate that it draws
        names = [argument.name for argument in func._schema.arguments]
        if "dropout_p" in names:  # attention
            at = names.index("dropout_p")
            args = (*args[:at], 0.0, *args[at + 1 :])
            kwargs.pop("dropout_p", None)
        return func(*args, **kwargs)
