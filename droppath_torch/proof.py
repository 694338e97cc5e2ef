"""Whether a branch may run on the kept rows alone: the block's results are compared with masking's.

Compared are what the DropPaths and the block return, and all gradients, for other parameters and
noisy inputs, so that nothing is hidden by a zero or by samples that are alike. Not here: where a
branch begins (branches.py).
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._pytree import tree_leaves, tree_map

from droppath_torch.branches import Call, Start, is_drop
from droppath_torch.modules import DropPath
from droppath_torch.trial import FixedMasks

NOISE = 0.5  # of the standard deviation: samples differ, and attention is not saturated


class Outcome(NamedTuple):
    """What a run of a block gives, by what is compared on one scale."""

    results: dict[str, list[Tensor]]


def run(call: Call, masks: list[FixedMasks]) -> Outcome:
    """Run a block forward and backward, on noise over what it was given."""
    block, drops = call.module, call.drops
    start_over(drops, masks)
    leaves = list[Tensor]()
    args, kwargs = tree_map(lambda value: _noisy(value, leaves), call.given)
    seen = list[Tensor]()
    handles = [
        drop.register_forward_hook(lambda _, __, y: seen.append(y.detach().clone()))
        for drop in drops
    ]
    try:
        with torch.enable_grad():
            output = block(*args, **kwargs)
    finally:
        for handle in handles:
            handle.remove()
    ys = [y for y in tree_leaves(output) if isinstance(y, Tensor) and y.is_floating_point()]
    results = {f"output {i}": [y.detach().clone()] for i, y in enumerate(ys)}
    seen = seen[: len(call.drop_calls)]  # the backward may run the forward again
    results |= {f"result {i} of drop_path": [y] for i, y in enumerate(seen)}
    parameters = [p for p in block.parameters() if p.requires_grad]
    for p in parameters:
        p.grad = None
    # weights of either sign: the sum of a norm's output is constant
    loss = sum((y * torch.randn_like(y)).sum() for y in ys)
    if isinstance(loss, Tensor) and loss.requires_grad:
        loss.backward()
    dx = {f"gradient of argument {i}": [_grad(x)] for i, x in enumerate(leaves)}
    return Outcome(results | dx | {"gradient of a parameter": [_grad(p) for p in parameters]})


def start_over(drops: list[DropPath], masks: list[FixedMasks]) -> None:
    """Let a run draw what the one before drew, also where that one was broken off."""
    for drop in drops:
        drop.is_open, drop.begun = False, None
    for each in masks:
        each.calls = [0, 0]
    torch.manual_seed(0)


def _grad(x: Tensor) -> Tensor:
    return torch.zeros_like(x) if x.grad is None else x.grad.detach().clone()


def _noisy(value: Any, leaves: list[Tensor]) -> Any:
    """Return a tensor's copy; of a floating one that holds no mask another, with its gradient."""
    if not isinstance(value, Tensor):
        return value
    x = value.detach().clone()
    if not x.is_floating_point() or not x.numel() or not x.abs().max() < 1e4:  # a mask of -inf
        return x
    std = float(x.float().std(correction=0)) or 1.0
    noise = torch.randn_like(x)
    if x.ndim > 1:  # a pattern of each sample, along the first and the last axis
        for axis in (1, -1):
            shape = [n if i in (0, axis % x.ndim) else 1 for i, n in enumerate(x.shape)]
            noise = noise + torch.randn(shape, dtype=x.dtype, device=x.device)
    leaf = (x + NOISE * std * noise).requires_grad_()
    leaves.append(leaf)
    return leaf.clone()  # a block may write into what it is given


def difference(got: Outcome, want: Outcome, eps: float) -> str:
    """Return where two runs differ, nothing if they agree.

    Allowed is sqrt(eps) of the largest number: sums of another shape round otherwise (3.5e-4 in
    float32, 1.5e-8 in float64, 0.09 in bfloat16). One sample in a mean over all moves it by more.
    """
    if got.results.keys() != want.results.keys():
        return "the block returns other outputs"
    for name, ys in want.results.items():
        shapes = [tuple(y.shape) for y in got.results[name]], [tuple(y.shape) for y in ys]
        if shapes[0] != shapes[1]:
            return f"{name} has the shape {shapes[0][0]}, masking's {shapes[1][0]}"
        largest = max((float(y.abs().max()) for y in ys if y.numel()), default=0.0)
        if name.startswith("result") and not largest > 0:
            return f"{name} is zero, which shows nothing"
        pairs = [(a, b) for a, b in zip(got.results[name], ys, strict=True) if b.numel()]
        furthest = max((float((a - b).abs().max()) for a, b in pairs), default=0.0)
        if not furthest <= eps**0.5 * largest:  # NaN fails it
            return f"{name} differs from masking's by {furthest:.2g} of {largest:.2g}"
    return ""


def precision(outcome: Outcome) -> float:
    """Return the eps of the coarsest dtype that a run computes in."""
    tensors = [y for ys in outcome.results.values() for y in ys]
    dtypes = {y.dtype for y in tensors}
    for kind in {y.device.type for y in tensors}:
        if torch.is_autocast_enabled(kind):
            dtypes.add(torch.get_autocast_dtype(kind))
    return max(torch.finfo(dtype).eps for dtype in dtypes)


def why_not(start: Start, calls: list[Call], wants: list[Outcome], masks: list[FixedMasks]) -> str:
    """Return why a branch that begins there may not be skipped; nothing if it may.

    Its hooks stay if it may.
    """
    handles = start.hook()
    why = ""
    for call, want in zip(calls, wants, strict=True):
        try:
            why = difference(run(call, masks), want, precision(want))
        except Exception as error:  # whatever the block's code raises for fewer rows
            why = first_line(error)
        if why:
            break
    if not why:
        return ""
    for handle in handles:
        handle.remove()
    return _named(calls[0], start) + why


def first_line(error: Exception) -> str:
    """Return an error's kind and the first line of its text."""
    return f"{type(error).__name__}: {error}".split("\n")[0]


def _named(call: Call, start: Start) -> str:
    """Return what in the branch is known to mix samples, for the text of a refusal."""
    modules = [c.module for c in call.calls]
    later = modules[modules.index(start.begin) :]
    held = [m for module in later if not is_drop(module) for m in module.modules()]
    for module in held:
        if isinstance(module, DropPath):
            return "the branch holds another DropPath: "
        if isinstance(module, _BatchNorm) and module.training:
            return f"{type(module).__name__} mixes the samples: "
    return ""


def model_output(
    model: nn.Module, drops: list[DropPath], args: Any, kwargs: Any, masks: list[FixedMasks]
) -> Outcome:
    """Return what the whole model returns, without a gradient."""
    start_over(drops, masks)
    with torch.no_grad():
        ys = tree_leaves(model(*args, **kwargs))
    ys = [y for y in ys if isinstance(y, Tensor) and y.is_floating_point()]
    return Outcome({f"output {i} of the model": [y] for i, y in enumerate(ys)})
