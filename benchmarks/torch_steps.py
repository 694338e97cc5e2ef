"""The blocks in PyTorch, and a forward and backward of a stack of them, eager or compiled."""

from collections.abc import Callable, Mapping
from math import isqrt

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.cases import METHODS, WHOLE_LAYERS, Block, Case
from benchmarks.measure import Step
from benchmarks.torch_compiled import compiled
from benchmarks.torch_methods import RAGGED, op, peers, realised_rate, residual
from droppath import key
from droppath_torch import drop_path_stack


class TorchSetup:
    """PyTorch on "cpu" in float32 or "cuda" in bfloat16; see `benchmarks.measure.Setup`.

    Memory: on a CPU the bytes that are saved for the backward, parameters apart; on CUDA what is
    allocated at the peak of a step, less what was before it. Of three steps the most.
    """

    def __init__(self, device: str, compiled: bool) -> None:
        if device == "cuda" and not torch.cuda.is_available():
            raise RuntimeError("PyTorch sees no CUDA device")
        self.name = "torch compiled" if compiled else "torch"
        self.place, self.compiled = device, compiled
        self.device = torch.cuda.get_device_name() if device == "cuda" else device
        self.dtype = torch.bfloat16 if device == "cuda" else torch.float32

    def labels(self, block: Block) -> Mapping[str, str]:
        """Return the methods of a block: "op" has those with a plain op."""
        labels = METHODS | {method: label for method, (label, _) in peers().items()}
        absent = {method for method in ("timm", "torchvision") if method not in peers()}
        absent |= {"dinov2", *RAGGED} if block == "op" else set(RAGGED if self.compiled else ())
        absent |= METHODS.keys() - WHOLE_LAYERS if block == "decoder" else {"plan"}
        labels |= {"none": "copy"} if block == "op" else {}
        return {method: label for method, label in labels.items() if method not in absent}

    def prepare(self, case: Case, method: str) -> Step:
        """Return the step of a method, compiled and run twice."""
        torch.manual_seed(0)
        model = stack(case, method).to(self.place, self.dtype)
        x = torch.randn(_shape(case), device=self.place, dtype=self.dtype, requires_grad=True)
        dy, inputs = torch.randn_like(x), [x, *model.parameters()]
        forward = model
        if self.compiled and isinstance(model, Planned):  # the host calls the layers
            for layer in model.layers:
                layer.compile(fullgraph=True, dynamic=False)
        elif self.compiled:
            forward = compiled(model)

        def run() -> None:  # a branch that is dropped for the whole batch has no gradient
            torch.autograd.grad(forward(x), inputs, dy, allow_unused=True)
            if self.place == "cuda":
                torch.cuda.synchronize()

        run()
        if self.place == "cuda":
            return Step(run, _allocated_by(run))
        parameters = list(model.parameters())
        return Step(run, max(_saved_by(lambda: forward(x), parameters) for _ in range(3)))

    def realised_rate(self, method: str, drop_prob: float, batch: int, draws: int) -> float:
        """Return the share of samples dropped; compiling does not change it."""
        return realised_rate(method, drop_prob, batch, draws)


def stack(case: Case, method: str) -> nn.Module:
    """Return the blocks of a case, one after the other, or the plain op."""
    if case.block == "op":
        return op(method, case.drop_prob)
    branches = BRANCHES[case.block]
    layers = [branch(case.width) for _ in range(case.depth) for branch in branches]
    if method == "plan":
        return Planned(layers, case.rates)
    rates = case.rates if case.block == "decoder" else case.rates * len(layers)
    return nn.Sequential(
        *[residual(method, layer, p) for layer, p in zip(layers, rates, strict=True)]
    )


class Planned(nn.Module):
    """Layers under a plan, another one at each call."""

    def __init__(self, layers: list[nn.Module], rates: list[float]) -> None:
        super().__init__()
        self.layers, self.rates, self.calls = nn.ModuleList(layers), rates, 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return drop_path_stack(x, self.layers, self.rates, key=key(self.calls))


class Attention(nn.Module):
    """x -> LayerNorm, attention with heads of at most 64: [n, tokens, width], the same."""

    def __init__(self, width: int, causal: bool = False) -> None:
        super().__init__()
        self.heads, self.causal = max(width // 64, 1), causal
        self.norm = nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        qkv = self.qkv(self.norm(x)).unflatten(-1, (3, self.heads, -1))
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each [n, heads, tokens, width / heads]
        f = functional.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        return self.out(f.transpose(1, 2).flatten(2))


class Mlp(nn.Sequential):
    """x -> LayerNorm, linear, GELU, linear, four times as wide between: [n, tokens, width]."""

    def __init__(self, width: int) -> None:
        up, down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        super().__init__(nn.LayerNorm(width), up, nn.GELU(approximate="tanh"), down)


class Decoder(nn.Module):
    """x -> what causal attention and then MLP add to x: [n, tokens, width], the same."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.attention, self.mlp = Attention(width, causal=True), Mlp(width)

    def forward(self, x: Tensor) -> Tensor:
        f = self.attention(x)
        return f + self.mlp(x + f)


def convolutions(width: int) -> nn.Module:
    """x -> conv, GroupNorm, ReLU, conv: [n, width, side, side]; samples do not mix."""
    first, second = (nn.Conv2d(width, width, 3, padding=1, bias=False) for _ in range(2))
    return nn.Sequential(first, nn.GroupNorm(8, width), nn.ReLU(), second)


BRANCHES: dict[Block, list[Callable[[int], nn.Module]]] = {
    "vit": [Attention, Mlp],
    "resnet": [convolutions],
    "decoder": [Decoder],
}


def _shape(case: Case) -> tuple[int, ...]:
    if case.block == "resnet":
        return case.batch, case.width, isqrt(case.tokens), isqrt(case.tokens)
    return case.batch, case.tokens, case.width


def _saved_by(forward: Callable[[], Tensor], parameters: list[nn.Parameter]) -> int:
    """Return the bytes of the distinct storages saved for the backward, but for the parameters'."""
    own = {x.untyped_storage().data_ptr() for x in parameters}
    saved: dict[int, int] = {}

    def pack(x: Tensor) -> Tensor:
        storage = x.untyped_storage()
        saved[storage.data_ptr()] = storage.nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        y = forward()  # held, so that no storage is freed and its address taken again
    del y
    return sum(size for address, size in saved.items() if address not in own)


def _allocated_by(run: Callable[[], None]) -> int:
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    for _ in range(3):
        run()
    return torch.cuda.max_memory_allocated() - before
