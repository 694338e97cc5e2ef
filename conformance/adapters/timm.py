"""timm.layers.DropPath behind the protocol."""

from importlib.metadata import version

from conformance.adapters.torch_module import TorchModule, import_torchvision
from conformance.protocol import Backend

CLAIMS = "gradient recompute scale_by_keep"


def backend(device: str = "cpu") -> Backend:
    """Return timm's DropPath on a torch device."""
    import_torchvision()
    from timm.layers import DropPath

    # it takes drop_prob and scale_by_keep, by the names of SPEC.md
    return TorchModule(f"timm {version('timm')} DropPath", DropPath, CLAIMS, device)
