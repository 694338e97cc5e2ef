"""droppath_torch behind the protocol, eager or compiled, on any device."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch._dynamo import lookup_backend
from torch.utils.checkpoint import checkpoint

import droppath
from conformance.protocol import (
    Backend,
    Call,
    Info,
    Outcome,
    as_float64,
    counting,
    joined,
    outcome_from,
    outcome_of_plan,
    parts,
)
from droppath_torch import (
    DropPath,
    DropPathResidual,
    drop_path,
    drop_path_residual,
    drop_path_stack,
    keyed,
    layer_plan,
)

CLAIMS = (
    "gradient recompute keyed keep batch balanced axis scale_by_keep scale_at model unkeyed "
    "calls residual skip compile scan vmap shard plan stack"
)

Function = Callable[..., torch.Tensor]


class Torch:
    """Calls droppath_torch's functions; `seed` seeds torch's own generator.

    compiled: every call, by Inductor; else those that ask for it, by AOTAutograd alone, which takes
    a tenth of the time.
    """

    def __init__(self, device: str = "cpu", compiled: bool = False) -> None:
        self.device = device
        self.compiled = compiled
        self.built = 0
        compiler = lookup_backend("inductor" if compiled else "aot_eager")

        def program(f: Function, dynamic: bool | None) -> Function:
            def noted(graph: Any, inputs: Any) -> Any:
                self.built += 1
                return compiler(graph, inputs)

            return torch.compile(f, backend=noted, fullgraph=True, dynamic=dynamic)

        self.program = partial(program, dynamic=None if compiled else False)
        self.layers: dict[Function, Function] = {}  # of stacks, compiled
        torch._dynamo.config.accumulated_recompile_limit = 1 << 20  # no limit to their number
        torch._dynamo.config.recompile_limit = 1 << 20
        self.eager: dict[str, Function] = {"drop_path": drop_path, "residual": drop_path_residual}
        # Each rate, shape and dtype anew; or as users compile, so that what varies becomes data.
        functions = {**self.eager, "layers": layers}
        self.fixed = {op: program(f, False) for op, f in functions.items()}
        self.programs = (
            {op: program(f, None) for op, f in functions.items()} if compiled else self.fixed
        )

    def info(self) -> Info:
        """Return the claims of droppath_torch; under Inductor every call is compiled."""
        how = "compiled" if self.compiled else "eager"
        name = f"droppath_torch {droppath.__version__}, torch {torch.__version__}"
        dtypes = ("float64", "float32", "float16", "bfloat16")
        name = f"{name}, {how}, {self.device}"
        return Info(name, frozenset(CLAIMS.split()), dtypes, compiles=self.compiled)

    def run(self, call: Call) -> Outcome:
        """Return the outcome of one call."""
        if call.shards > 1:
            return joined([self.run(part) for part in parts(call)], call.options.get("axis", 0))
        if call.op == "planned_depth":
            return Outcome(as_float64(droppath.planned_depth(**call.options)))
        if call.op == "layer_plan":
            return outcome_of_plan(layer_plan(**call.options))
        if call.op == "model":
            return Outcome(self._model(call))
        built, ran = self.built, list[int]()
        outcome = outcome_of(call, self.device, lambda x: self._apply(call, x, ran))
        traced = call.compiled and call.op != "stack"  # a program is traced, not run, at first
        counted = None if traced else sum(ran)
        return replace(outcome, ran=counted, built=self.built > built)

    def _apply(self, call: Call, x: torch.Tensor, ran: list[int]) -> torch.Tensor:
        if call.op == "stack":
            return self._stack(call, x, ran)
        if call.op == "layers":
            keys = self._words(droppath.split(call.key, len(call.drop_prob)))
            return self.programs["layers"](
                x, x.new_tensor(call.drop_prob, dtype=torch.float64), keys
            )
        if call.op == "mapped":
            return torch.vmap(lambda x, key: drop_path(x, call.drop_prob, key=key, **call.options))(
                x, self._words(call.key)
            )
        programs = self.programs if call.compiled or self.compiled else self.eager
        if self.compiled and call.options.get("offset", 0) >= 2**63:
            programs = self.fixed  # PyTorch's integers that vary have 63 bits
        f = programs[call.op]
        options: dict[str, Any] = {"key": call.key, "keep": call.keep, **call.options}
        if call.compiled and call.key is not None:
            options["key"] = self._words(call.key)
        if isinstance(call.keep, np.ndarray):
            options["keep"] = torch.from_numpy(call.keep)
        p = call.drop_prob
        if self.compiled and isinstance(p, np.generic | np.ndarray) and p.dtype.kind in "iuf":
            p = p.tolist()  # Dynamo makes data of NumPy's numbers, which no program reads (ARG-1)
        arguments = [x, p, call.training]
        if call.op == "residual":
            options = {"mode": "row", **options}
            branch = options.pop("branch")
            noted = branch if call.compiled else counting(branch, options.get("axis", 0), ran)
            per_sample = [x.new_tensor(w) for w in options.pop("per_sample", ())]
            arguments = [x, noted, *arguments[1:], *per_sample]
        if call.recompute:
            return checkpoint(f, *arguments, use_reentrant=False, **options)
        return f(*arguments, **options)

    def _stack(self, call: Call, x: torch.Tensor, ran: list[int]) -> torch.Tensor:
        """Return x after a stack, whose layers are programs where that is asked for."""
        options = dict(call.options)
        branch, params = options.pop("branch"), x.new_tensor(options.pop("params"))
        if call.compiled or self.compiled:
            branch = self.layers.setdefault(branch, self.program(branch))
        noted = counting(branch, None, ran)
        branches = [partial(noted, w=w) for w in params.unbind()]
        source = {"key": call.key, "plan": call.keep}
        return drop_path_stack(x, branches, call.drop_prob, call.training, **source, **options)

    def _words(self, keys: np.ndarray) -> torch.Tensor:
        """Return keys as a tensor, so that they are data of a program."""
        return torch.from_numpy(keys.astype(np.int64)).to(self.device)

    def _model(self, call: Call) -> np.ndarray:
        """Return the masks of a stack of both modules, [L, B], all from call.key."""
        stack = Stack(call.drop_prob, call.options.get("calls", 1))
        x = torch.ones(call.x.shape, device=self.device)
        if call.seed is not None:
            torch.manual_seed(call.seed)
        with nullcontext() if call.key is None else keyed(stack, call.key):
            ys = stack(x)
        masks = np.stack([to_numpy(y)[:, 0] != 0 for y in ys]) * 1.0
        if "calls" not in call.options:
            return masks
        return masks.reshape(len(call.drop_prob), -1, len(call.x)).swapaxes(0, 1)


class Stack(torch.nn.Module):
    """Layers of both modules in turn, each called so many times one after the other."""

    def __init__(self, rates: list[float], calls: int) -> None:
        super().__init__()
        self.calls = calls
        self.layers = torch.nn.ModuleList(
            DropPathResidual(torch.ones_like, p, mode="row") if i % 2 else DropPath(p)
            for i, p in enumerate(rates)
        )

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Return for each layer and call what it makes of x, zero where dropped."""
        layers = [*enumerate(self.layers)]
        return [layer(x) - i % 2 for i, layer in layers for _ in range(self.calls)]


def layers(x: torch.Tensor, rates: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
    """Return y of each layer, [L, ...], whose rate and key are data."""
    pairs = zip(rates.unbind(), keys.unbind(), strict=True)
    return torch.stack([drop_path(x, p, key=key) for p, key in pairs])


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
    return outcome_from(y, dx, x, drew, to_numpy)


def generator_state(device: str) -> torch.Tensor:
    """Return the state of torch's own generator of a device."""
    on_gpu = torch.device(device).type == "cuda"
    return torch.cuda.get_rng_state(device) if on_gpu else torch.get_rng_state()


def to_numpy(x: torch.Tensor) -> np.ndarray:
    """Return the numbers of a tensor as float64."""
    return x.detach().to("cpu", torch.float64).numpy()


def backend(device: str = "cpu", compiled: bool = False) -> Backend:
    """Return droppath_torch on a torch device."""
    return Torch(device, compiled)
