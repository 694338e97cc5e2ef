"""torchvision.ops.StochasticDepth behind the protocol, with its modes "row" and "batch"."""

from importlib.metadata import version
from typing import Any

from torch import nn

from conformance.adapters.torch_module import TorchModule, import_torchvision
from conformance.protocol import Backend

CLAIMS = "gradient recompute batch"


def backend(device: str = "cpu") -> Backend:
    """Return torchvision's StochasticDepth on a torch device."""
    import_torchvision()
    from torchvision.ops import StochasticDepth

    def make(drop_prob: Any, mode: str = "row") -> nn.Module:
        module: nn.Module = StochasticDepth(drop_prob, mode)
        return module

    name = f"torchvision {version('torchvision')} StochasticDepth"
    return TorchModule(name, make, CLAIMS, device)
