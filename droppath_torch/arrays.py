"""What a tensor is made of, and what the call that it is in is made by: traced, mapped, captured.

The only file that asks PyTorch's internals (`torch._C`). Not here: anything that computes.
"""

import sys
from types import FrameType, FunctionType
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor
from torch.utils.checkpoint import CheckpointFunction

Device: TypeAlias = torch.device | str | None

# what the functions of torch.utils.checkpoint hold: in a forward, and as it is run again
CHECKPOINT_CELLS = "frame", "target_frame_ref"


def dtype_text(x: Tensor) -> str:
    """Return the dtype as SPEC.md writes it, "float32"."""
    return str(x.dtype).removeprefix("torch.")


def memory_order(x: Tensor) -> tuple[int, ...]:
    """Return x's axes as they lie in memory, the outermost first."""
    return tuple(range(x.ndim)) if x.is_contiguous() else x.dim_order()


def is_integer(x: Tensor) -> bool:
    """Return whether the numbers of a tensor are integers; bools are not."""
    return not (x.is_floating_point() or x.is_complex() or x.dtype == torch.bool)


def is_compiling() -> bool:
    """Return whether torch.compile traces the call: then no value may be read."""
    return torch.compiler.is_compiling()


def is_transformed() -> bool:
    """Return whether a transform of torch.func is at work: vmap, grad, vjp, jvp."""
    return torch._C._are_functorch_transforms_active()


def is_mapped() -> bool:
    """Return whether a vmap of torch.func is at work, alone or within another transform."""
    if is_compiling() or not is_transformed():
        return False
    vmap = torch._C._functorch.TransformType.Vmap
    return any(level.key() == vmap for level in torch._C._functorch.get_interpreter_stack() or ())


def is_eager(x: Tensor) -> bool:
    """Return whether x is a tensor of numbers: nothing traces or transforms the call."""
    return (
        not is_compiling()
        and not torch.jit.is_tracing()
        and not is_transformed()
        # autograd's is_grads_batched
        and not torch._C._functorch.is_legacy_batchedtensor(x)
    )


def is_plain_on_cpu(*tensors: Tensor) -> bool:
    """Return whether values can be read at once: nothing traces, and no device is waited for."""
    for x in tensors:
        if type(x) is not Tensor or not x.is_cpu:
            return False
    return is_eager(tensors[0])


def is_captured(device: torch.device | None) -> bool:
    """Return whether a CUDA graph records the call: what the host draws would stay in it."""
    if device is None or device.type != "cuda" or is_compiling():
        return False
    return torch.cuda.is_current_stream_capturing()


def in_backward() -> bool:
    """Return whether the autograd engine is running: then a forward is a recomputation."""
    return torch._C._current_graph_task_id() != -1


class Segment(NamedTuple):
    """An activation checkpoint that a call is in; run: which recomputation, None in the forward."""

    checkpoint: Any
    run: object | None


def checkpoint_segment() -> Segment | None:
    """Return the innermost torch.utils.checkpoint that this eager call is in, None if none is seen.

    One without reentry is known by what the hooks of its saved tensors hold, a reentrant one by the
    function on the stack that runs it, where gradients are off or the engine is running.
    """
    hooks = torch._C._autograd._top_saved_tensors_default_hooks(True)
    if hooks is not None:
        pack = getattr(hooks[0], "_torchdynamo_orig_callable", hooks[0])
        if not isinstance(pack, FunctionType):
            return None
        cells = zip(pack.__code__.co_freevars, pack.__closure__ or (), strict=True)
        held = {name: cell.cell_contents for name, cell in cells if name in CHECKPOINT_CELLS}
        if type(held.get("frame")).__name__ == "_CheckpointFrame":
            return Segment(held["frame"], None)
        if "target_frame_ref" in held:
            return Segment(held["target_frame_ref"](), hooks[0])
        return None
    if in_backward() or not torch.is_grad_enabled():
        return _reentrant_segment()
    return None


def _reentrant_segment() -> Segment | None:
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_code is CheckpointFunction.forward.__code__:
            return Segment(frame.f_locals["ctx"], None)
        if frame.f_code is CheckpointFunction.backward.__code__:
            return Segment(frame.f_locals["ctx"], torch._C._current_graph_task_id())
        frame = frame.f_back
    return None


def to_device(x: Tensor, device: torch.device | None) -> Tensor:
    """Return x on device; from the host to CUDA by a copy that the host does not wait for."""
    if device is None or x.device == device:
        return x
    if device.type == "cuda" and is_plain_on_cpu(x):
        # contiguous: PyTorch pins no mask that `expand` made, of batch mode
        return x.contiguous().pin_memory().to(device, non_blocking=True)
    return x.to(device)
