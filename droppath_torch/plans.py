"""Depth plans as tensors, equal to droppath.layer_plan (area PLAN).

They are drawn on the host, which calls the layers: no device is asked, and nothing waits.
"""

from typing import TypeAlias, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from droppath import plans
from droppath.plans import Rates, Stages
from droppath_torch.masks import as_key

Key: TypeAlias = NDArray[np.uint32] | Tensor


@overload
def layer_plan(key: Key, rates: Rates) -> Tensor: ...
@overload
def layer_plan(key: Key, rates: Stages) -> list[Tensor]: ...
def layer_plan(key: Key, rates: Rates | Stages) -> Tensor | list[Tensor]:
    """Return which layers run: True where a layer runs, False where it is dropped.

    P(layer l is dropped) is that of `keep_mask` at rates[l], and the number that runs is
    `droppath.planned_depth(rates)` or one less: always the former if the sum of the rates is a
    whole number (`droppath.drop_path_rates(..., whole=True)`).

    Args:
      key: uint32 [2] as droppath.key makes it, or a tensor as `keep_mask` takes it, on the CPU.
      rates: the drop_prob of each of L layers; or a list of them for each stage, whose plan is
        drawn from fold_in(key, stage).

    Returns: bool tensor [L] on the CPU, or a list with one for each stage.
    Raises: ValueError for a rate outside [0, 1], no layer, a key that is none or on a device.

    >>> import droppath
    >>> layer_plan(droppath.key(1), [0.0, 0.25, 0.5, 0.25])
    tensor([ True,  True, False,  True])

    Source: Madow 1949, Annals of Mathematical Statistics 20(3); droppath/SPEC.md, area PLAN.
    """
    if isinstance(key, Tensor) and not key.is_cpu:
        raise ValueError(f"key must be on the CPU, which calls the layers, got {key.device}")
    drawn = plans.layer_plan(as_key(key).numpy().astype(np.uint32), rates)
    if isinstance(drawn, list):
        return [torch.from_numpy(plan) for plan in drawn]
    return torch.from_numpy(drawn)
