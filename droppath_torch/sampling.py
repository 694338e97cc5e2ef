"""Masks from PyTorch's own generators, where there is no key: the same rates, no agreed bits.

Not here: masks that a key draws, which are droppath_torch/masks.py's.
"""

from typing import Any, SupportsIndex

import torch
from torch import Tensor

from droppath.arguments import Mode, check_groups
from droppath.masks import DRAW_BITS
from droppath_torch.arrays import is_plain_on_cpu, is_transformed, to_device
from droppath_torch.masks import Rate, drop_threshold, keep_smallest, rank
from droppath_torch.on_cpu import WORTH_NUMPY, keep_smallest_by_numpy

RANDOM_BITS = 62  # of a number to sort by: two of a group are equal once in 2**62 pairs


def sample_mask(
    drop_prob: Rate,
    batch: int,
    *,
    mode: Mode = "row",
    groups: SupportsIndex = 1,
    generator: torch.Generator | None = None,
    device: torch.device | None = None,
) -> Tensor:
    """Return a mask drawn from `generator`, by default torch's own of the device: bool [B].

    It is where it was drawn, on the generator's device, or where a rate that is no host's is.
    Arguments and errors as in `keep_mask`, but that mode is checked, and drop_prob is what
    `check_rate` returned. What is drawn does not depend on x's dtype (MASK-3).
    """
    group_size = batch // check_groups(groups, batch)
    device = device if generator is None else generator.device
    if mode == "balanced":
        return _sample_balanced(drop_prob, batch, group_size, generator, device)
    drawn = 1 if mode == "batch" else batch
    if isinstance(drop_prob, Tensor):
        u = torch.rand(drawn, generator=generator, device=device)
        u = u if drop_prob.is_cpu else to_device(u, drop_prob.device)
        keep = u >= drop_prob.to(torch.float32)
    elif is_transformed():  # under a vmap each sample gets a draw of its own, and none in place
        keep = torch.rand(drawn, generator=generator, device=device) >= drop_prob
    else:  # the drop is drawn: 1 - drop_prob would round
        drop = torch.empty(drawn, dtype=torch.bool, device=device)
        keep = drop.bernoulli_(drop_prob, generator=generator).logical_not_()
    return keep if drawn == batch else keep.expand(batch)


def _sample_balanced(
    drop_prob: Rate,
    batch: int,
    group_size: int,
    generator: torch.Generator | None,
    device: torch.device | None,
) -> Tensor:
    """Drop, in each group, group_size * p rows, rounded up or down at random."""
    if not batch:
        return torch.ones(0, dtype=torch.bool, device=device)
    groups, threshold = batch // group_size, drop_threshold(drop_prob)
    # a program has one size alone where a generator is named, None too
    given: dict[str, Any] = {} if generator is None else {"generator": generator}
    random = torch.randint(1 << RANDOM_BITS, (groups + batch,), device=device, **given)
    if isinstance(threshold, Tensor) and not threshold.is_cpu:
        random = to_device(random, threshold.device)
    shift = RANDOM_BITS - DRAW_BITS
    if groups <= WORTH_NUMPY and isinstance(threshold, int) and is_plain_on_cpu(random):
        words = random.numpy()
        up = (words[:groups] >> shift).tolist()
        return keep_smallest_by_numpy(words[groups:], up, threshold, group_size)
    ranks = rank(random[groups:], group_size)
    return keep_smallest(ranks, random[:groups] >> shift, threshold, group_size)
