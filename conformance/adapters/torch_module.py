"""Any torch.nn.Module that drops paths, behind the protocol: say how it is made.

A DropPath of your own, to be run as `python -m conformance my_module:backend`:

>>> def backend(device="cpu"):
...     return TorchModule("my DropPath", lambda drop_prob: torch.nn.Dropout1d(drop_prob))
>>> backend().info().name == f"my DropPath, torch {torch.__version__}, cpu"
True

The module draws from torch's own generator. Keys and balanced masks are not claimed.
"""

import sys
from collections.abc import Callable
from types import ModuleType

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from conformance.adapters.torch import dtype_text, to_numpy
from conformance.protocol import Call, Info, Outcome

DTYPES = ("float64", "float32", "float16", "bfloat16")


class TorchModule:
    """Calls make(drop_prob, **options), in training or evaluation; `seed` seeds torch.

    claims: "gradient recompute" hold for any module; add what `make` takes of Call.options.
    """

    def __init__(
        self,
        name: str,
        make: Callable[..., nn.Module],
        claims: str = "gradient recompute",
        device: str = "cpu",
    ) -> None:
        self.name = f"{name}, torch {torch.__version__}, {device}"
        self.make = make
        self.claims = frozenset(claims.split())
        self.device = torch.device(device)

    def info(self) -> Info:
        """Return the claims, and all dtypes."""
        return Info(self.name, self.claims, DTYPES)

    def run(self, call: Call) -> Outcome:
        """Return the outcome of one call."""
        x = torch.tensor(call.x, dtype=getattr(torch, call.dtype), device=self.device)
        x.requires_grad_(call.dy is not None)
        if call.seed is not None:
            torch.manual_seed(call.seed)
        before = self._generator_state()
        module = self.make(call.drop_prob, **call.options).train(call.training)
        y = checkpoint(module, x, use_reentrant=False) if call.recompute else module(x)
        drew = not torch.equal(before, self._generator_state())
        dx = None
        if call.dy is not None:
            dy = torch.tensor(call.dy, dtype=y.dtype, device=self.device)
            (dx,) = torch.autograd.grad(y, x, dy)
        return Outcome(
            to_numpy(y),
            dtype_text(y),
            None if dx is None else to_numpy(dx),
            None if dx is None else dtype_text(dx),
            to_numpy(x),
            drew,
        )

    def _generator_state(self) -> torch.Tensor:
        on_gpu = self.device.type == "cuda"
        return torch.cuda.get_rng_state(self.device) if on_gpu else torch.get_rng_state()


def import_torchvision() -> None:
    """Import torchvision, also where its wheel was built for another torch than the one here.

    Its C++ operators then do not load, which torchvision allows, but registering shape rules for
    them raises. Nothing tested here uses an operator, so that file is left out. timm and
    transformers import torchvision too. If it is not installed, they say so if they need it.
    """
    try:
        import torchvision
    except ModuleNotFoundError:
        return
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
        name = "torchvision._meta_registrations"
        sys.modules[name] = ModuleType(name)
        import torchvision  # noqa: F401
