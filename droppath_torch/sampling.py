"""Masks from PyTorch's own generators, where there is no key: the same rates, no agreed bits.

Not here: masks that a key draws, which are droppath_torch/masks.py's.
"""

from typing import SupportsIndex

import torch
from torch import Tensor

from droppath.arguments import Mode, check_groups, check_mode
from droppath.masks import DRAW_BITS
from droppath_torch.masks import Device, Rate, drop_threshold, is_plain_on_cpu, keep_smallest

RANDOM_BITS = 62  # of a number to sort by: two of a group are equal once in 2**62 pairs
WORTH_PYTHON = 256  # rows, up to which Python sorts them before PyTorch has begun


def sample_mask(
    drop_prob: Rate,
    batch: int,
    *,
    mode: Mode = "row",
    groups: SupportsIndex = 1,
    generator: torch.Generator | None = None,
    device: Device = None,
) -> Tensor:
    """Return a mask drawn from `generator`, by default torch's own of the device: bool [B].

    Arguments and errors as in `keep_mask`, but that drop_prob is what `check_rate` returned. What
    is drawn does not depend on x's dtype (MASK-3).
    """
    check_mode(mode)
    group = batch // check_groups(groups, batch)
    if mode == "balanced":
        return _sample_balanced(drop_prob, batch, group, generator, device)
    drawn = 1 if mode == "batch" else batch
    if isinstance(drop_prob, Tensor):
        keep = torch.rand(drawn, generator=generator, device=device) >= drop_prob.to(torch.float32)
    else:  # the drop is drawn: 1 - drop_prob would round
        drop = torch.empty(drawn, dtype=torch.bool, device=device)
        keep = drop.bernoulli_(drop_prob, generator=generator).logical_not_()
    return keep if drawn == batch else keep.expand(batch)


def _sample_balanced(
    drop_prob: Rate, batch: int, group: int, generator: torch.Generator | None, device: Device
) -> Tensor:
    """Drop, in each group, group * p rows, rounded up or down at random."""
    if not batch:
        return torch.ones(0, dtype=torch.bool, device=device)
    groups, drops = batch // group, drop_threshold(drop_prob)
    random = torch.randint(1 << RANDOM_BITS, (groups + batch,), generator=generator, device=device)
    if batch <= WORTH_PYTHON and isinstance(drops, int) and is_plain_on_cpu(random):
        keep = bytearray(_keep_on_host(random.tolist(), batch, drops, group))
        return torch.frombuffer(keep, dtype=torch.bool)
    return keep_smallest(random[groups:], random[:groups] >> RANDOM_BITS - DRAW_BITS, drops, group)


def _keep_on_host(random: list[int], batch: int, drops: int, group: int) -> list[bool]:
    """Return what `keep_smallest` does, in Python."""
    keep = [True] * batch
    whole, rest = divmod(group * drops, 1 << DRAW_BITS)
    up, order = random[:-batch], random[-batch:]
    for first, draw in zip(range(0, batch, group), up, strict=True):
        dropped = whole + (draw >> RANDOM_BITS - DRAW_BITS < rest)
        ranked = sorted(range(first, first + group), key=order.__getitem__) if dropped else []
        for row in ranked[group - dropped :]:
            keep[row] = False
    return keep
