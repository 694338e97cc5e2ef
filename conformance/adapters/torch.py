"""droppath_torch behind the protocol, eager or compiled, on any device."""

from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from torch.utils.checkpoint import checkpoint

from conformance.protocol import Backend, Call, Info, Outcome
from droppath_torch import DropPath, drop_path, keyed

CLAIMS = "gradient recompute keyed keep batch balanced axis scale_by_keep scale_at model"


class Torch:
    """Calls droppath_torch.drop_path; `seed` seeds torch's own generator."""

    def __init__(self, device: str = "cpu", compiled: bool = False) -> None:
        self.device = device
        self.how = "compiled" if compiled else "eager"
        self.drop_path: Callable[..., torch.Tensor] = drop_path
        if compiled:  # each rate, shape and dtype anew: the suite takes minutes, and no limit
            torch._dynamo.config.accumulated_recompile_limit = 1 << 20
            torch._dynamo.config.recompile_limit = 1 << 20
            self.drop_path = torch.compile(drop_path, fullgraph=True, dynamic=False)

    def info(self) -> Info:
        """Return the claims of droppath_torch."""
        name = f"droppath_torch {version('droppath')}, torch {torch.__version__}"
        dtypes = ("float64", "float32", "float16", "bfloat16")
        return Info(f"{name}, {self.how}, {self.device}", frozenset(CLAIMS.split()), dtypes)

    def run(self, call: Call) -> Outcome:
        """Return the outcome of one call."""
        if call.op == "model":
            return Outcome(self._model(call))
        return outcome_of(call, self.device, lambda x: self._apply(call, x))

    def _apply(self, call: Call, x: torch.Tensor) -> torch.Tensor:
        options: dict[str, Any] = {"key": call.key, "keep": call.keep, **call.options}
        if isinstance(call.keep, np.ndarray):
            options["keep"] = torch.from_numpy(call.keep)
        if not call.recompute:
            return self.drop_path(x, call.drop_prob, call.training, **options)
        return checkpoint(
            self.drop_path, x, call.drop_prob, call.training, use_reentrant=False, **options
        )

    def _model(self, call: Call) -> np.ndarray:
        """Return the masks of a stack of DropPaths, bool [L, B], all from call.key."""
        layers = torch.nn.ModuleList([DropPath(p) for p in call.drop_prob])
        x = torch.ones(call.x.shape, device=self.device)
        with keyed(layers, call.key):
            return np.stack([to_numpy(layer(x))[:, 0] != 0 for layer in layers]) * 1.0


def outcome_of(call: Call, device: str, apply: Callable[[torch.Tensor], torch.Tensor]) -> Outcome:
    """Return what apply makes of the call's x, once torch's generator is seeded as it says."""
    x = torch.tensor(call.x, dtype=getattr(torch, call.dtype), device=device)
    x.requires_grad_(call.dy is not None)
    if call.seed is not None:
        torch.manual_seed(call.seed)
    before = generator_state(device)
    y = apply(x)
    drew = not torch.equal(before, generator_state(device))
    dx = None
    if call.dy is not None:
        dy = torch.tensor(call.dy, dtype=y.dtype, device=device)
        (dx,) = torch.autograd.grad(y, x, dy)
    return Outcome(
        to_numpy(y),
        dtype_text(y),
        None if dx is None else to_numpy(dx),
        None if dx is None else dtype_text(dx),
        to_numpy(x),
        drew,
    )


def generator_state(device: str) -> torch.Tensor:
    """Return the state of torch's own generator of a device."""
    on_gpu = torch.device(device).type == "cuda"
    return torch.cuda.get_rng_state(device) if on_gpu else torch.get_rng_state()


def to_numpy(x: torch.Tensor) -> np.ndarray:
    """Return the numbers of a tensor as float64."""
    return x.detach().to("cpu", torch.float64).numpy()


def dtype_text(x: torch.Tensor) -> str:
    """Return "float32" for torch.float32."""
    return str(x.dtype).removeprefix("torch.")


def backend(device: str = "cpu", compiled: bool = False) -> Backend:
    """Return droppath_torch on a torch device."""
    return Torch(device, compiled)
