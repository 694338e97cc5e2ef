"""A well-known article's DropPath, in its two forms, behind the protocol.

Francesco Zuppichini, "Implementing Stochastic Depth/Drop Path In PyTorch". Source: README.md of
github.com/FrancescoSaverioZuppichini/DropPath at commit 222ff4c: the last `drop_path` that it
prints, which is for any rank, and its `DropPath`. No licence was found there, so no line is quoted:
names, defaults and the order of the tensor operations are the article's, and results equal the
article's bit for bit, but the code is ours. `inplace`, off by default, is left out.

The function takes the probability of keeping. The module calls its argument p, as nn.Dropout calls
the probability of dropping, and hands it on as keep_prob: DropPath(p=0.1) drops nine rows of ten.

`article` tests the module, `article:function` the function.
"""

import torch
from torch import nn

from conformance.adapters.torch_module import TorchModule
from conformance.protocol import Backend


def drop_path(x: torch.Tensor, keep_prob: float = 1.0) -> torch.Tensor:
    """Return x times 1/keep_prob or 0 for each row; always, as the article's has no `training`."""
    factor = torch.empty((x.shape[0],) + (1,) * (x.ndim - 1), dtype=x.dtype, device=x.device)
    return x * factor.bernoulli_(keep_prob).div_(keep_prob)


class DropPath(nn.Module):
    """The article's module: its p is named like a rate of dropping, and is one of keeping."""

    def __init__(self, p: float = 0.5) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return drop_path(x, p) in training, unless p is 0."""
        return drop_path(x, self.p) if self.training and self.p > 0 else x


class CalledInTraining(nn.Module):
    """The function as a careful reader calls it: with 1 - drop_prob, and in training only."""

    def __init__(self, drop_prob: float) -> None:
        super().__init__()
        self.drop_prob = drop_prob

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return drop_path(x, 1 - drop_prob) in training."""
        return drop_path(x, keep_prob=1 - self.drop_prob) if self.training else x


def backend(device: str = "cpu") -> Backend:
    """Return the article's module, its p taken for drop_prob, as in nn.Dropout(p)."""
    return TorchModule("article, module DropPath(p)", DropPath, device=device)


def function(device: str = "cpu") -> Backend:
    """Return the article's function."""
    name = "article, function drop_path(x, keep_prob)"
    return TorchModule(name, CalledInTraining, device=device)
