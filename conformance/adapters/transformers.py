"""The DropPath of Hugging Face transformers behind the protocol.

transformers has no shared one: each model file holds its own copy, in 5.23.0 nearly all of them
generated from SwinDropPath. Tested is that of BEiT, BeitDropPath.
"""

from importlib.metadata import version

from conformance.adapters.torch_module import TorchModule, import_torchvision
from conformance.protocol import Backend


def backend(device: str = "cpu") -> Backend:
    """Return the DropPath of transformers' BEiT on a torch device."""
    import_torchvision()
    from transformers.models.beit.modeling_beit import BeitDropPath

    name = f"transformers {version('transformers')} BeitDropPath"
    return TorchModule(name, BeitDropPath, device=device)
