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

from conformance.adapters.torch import outcome_of
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
        self.device = device
        self.modules: dict[str, nn.Module] = {}

    def info(self) -> Info:
        """Return the claims, and all dtypes."""
        return Info(self.name, self.claims, DTYPES)

    def run(self, call: Call) -> Outcome:
        """Return the outcome of one call."""
        made = repr((call.drop_prob, call.options))
        if made not in self.modules:  # one for all calls: a mask that a module keeps would show
            self.modules[made] = self.make(call.drop_prob, **call.options)
        module = self.modules[made].train(call.training)
        if call.recompute:
            return outcome_of(
                call, self.device, lambda x: checkpoint(module, x, use_reentrant=False)
            )
        return outcome_of(call, self.device, module)


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
