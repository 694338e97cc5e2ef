"""What is measured: which block, at which sizes and rates, by which methods.

Not the product of all of these, which would take hours: each group varies one thing. Not here: how
a method works (`torch_methods`, `flax_methods`), and how time is taken (`measure`).
"""

from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from droppath import drop_path_rates

Block: TypeAlias = Literal["vit", "resnet", "decoder", "op"]

METHODS = {  # name -> what it is called where no version says it better
    "none": "no drop",
    "timm": "timm's method",
    "torchvision": "torchvision",
    "dinov2": "DINOv2's method",
    "torchtune": "torchtune's method",
    "row": "ours, row",
    "row-skip": "ours, row, skipping",
    "balanced": "ours, balanced",
    "batch": "ours, batch",
    "plan": "ours, a plan",
}
MASKED = "timm"  # what ratios are to: all samples are computed, and those dropped masked
BASES = (MASKED, "dinov2", "none")  # to whose steps all others are set
CORE = ("none", MASKED, "dinov2", "row", "balanced")
WHOLE_LAYERS = ("none", MASKED, "batch", "plan")  # those that are measured on decoders

EAGER = ("torch", "flax")
COMPILED = (*EAGER, "torch compiled")

RATES = (0.05, 0.1, 0.2, 0.4, 0.5)
BATCHES = (2, 4, 8, 16, 32, 64, 128, 256)
REFERENCE = ("vit-small", "vit-large", "compiled")  # the groups that `acceptance` judges


@dataclass(frozen=True)
class Case:
    """A stack of `depth` blocks on [batch, tokens, width], dropped at drop_prob.

    block: "vit", attention and MLP, so two residual branches; "resnet", two convolutions on a
    square image of `tokens` pixels and `width` channels; "decoder", layers of causal attention and
    MLP, one residual branch each, in JAX a scan over them; "op", the plain drop_path of a tensor.
    """

    group: str
    block: Block
    batch: int
    tokens: int
    width: int
    depth: int
    drop_prob: float
    setups: tuple[str, ...] = EAGER
    methods: tuple[str, ...] = tuple(METHODS)

    @property
    def rates(self) -> list[float]:
        """The drop_prob of each branch of a decoder, linear over depth; one for all of others."""
        if self.block == "decoder":
            return drop_path_rates(self.drop_prob, self.depth, whole=True)
        return [self.drop_prob]

    @property
    def size(self) -> str:
        """The size as text: batch, tokens, width and depth."""
        return f"{self.batch} x {self.tokens} x {self.width}, depth {self.depth}"


def on_cpu() -> list[Case]:
    """Return the full grid for a CPU, in float32."""
    return [
        *_over_rates(Case("vit-small", "vit", 32, 65, 192, 4, 0)),
        *_over_rates(Case("vit-large", "vit", 16, 197, 384, 2, 0)),
        *_over_rates(Case("compiled", "vit", 32, 65, 192, 1, 0, COMPILED, CORE), 0.1, 0.4, 0.5),
        *_over_rates(Case("resnet", "resnet", 32, 256, 32, 2, 0)),
        *_over_batches(Case("batch", "vit", 0, 65, 64, 1, 0.1, EAGER, (*CORE, "torchtune"))),
        Case("batch-2", "vit", 2, 65, 192, 2, 0.05, COMPILED),
        Case("batch-2", "vit", 2, 197, 384, 2, 0.05, COMPILED),
        _decoder(8, 128, 256, 12, 0.5),
        _decoder(8, 128, 256, 24, 0.5),
        _decoder(4, 128, 512, 12, 0.5),
        *_over_rates(Case("op", "op", 32, 256, 512, 1, 0, COMPILED), 0.1, 0.4),
        Case("op", "op", 32, 65, 192, 1, 0.1),
    ]


def on_cuda() -> list[Case]:
    """Return the full grid for a GPU, in bfloat16, at the sizes of a ViT-L."""
    return [
        *_over_rates(Case("vit-small", "vit", 64, 197, 1024, 4, 0)),
        *_over_rates(Case("vit-large", "vit", 128, 257, 1024, 4, 0)),
        *_over_rates(Case("compiled", "vit", 64, 257, 1024, 2, 0, COMPILED, CORE), 0.1, 0.4, 0.5),
        *_over_rates(Case("resnet", "resnet", 128, 784, 256, 4, 0)),
        *_over_batches(Case("batch", "vit", 0, 257, 1024, 2, 0.1, EAGER, (*CORE, "torchtune"))),
        Case("batch-2", "vit", 2, 257, 1024, 4, 0.05, COMPILED),
        _decoder(8, 512, 1024, 12, 0.5),
        _decoder(8, 512, 1024, 24, 0.5),
        *_over_rates(Case("op", "op", 64, 1024, 1024, 1, 0, COMPILED), 0.1, 0.4),
        Case("op", "op", 32, 65, 192, 1, 0.1),
    ]


def quick() -> list[Case]:
    """Return a grid of small sizes, in which every method takes part in every setup."""
    return [
        *_over_rates(Case("vit-small", "vit", 16, 65, 96, 1, 0), 0.1, 0.4),
        Case("resnet", "resnet", 16, 64, 16, 1, 0.4, COMPILED),
        Case("batch-2", "vit", 2, 65, 192, 1, 0.05),
        _decoder(4, 32, 64, 4, 0.5),
        Case("op", "op", 32, 256, 256, 1, 0.4, COMPILED),
    ]


def _decoder(batch: int, tokens: int, width: int, depth: int, drop_prob: float) -> Case:
    size = batch, tokens, width, depth, drop_prob
    return Case("decoder", "decoder", *size, COMPILED, WHOLE_LAYERS)


def _over_rates(case: Case, *rates: float) -> list[Case]:
    return [replace(case, drop_prob=p) for p in rates or RATES]


def _over_batches(case: Case) -> list[Case]:
    return [replace(case, batch=batch) for batch in BATCHES]
