"""Masks that the host knows, as x's device needs them: which rows run, by one copy for all masks.

Not here: what is done with the rows (rows.py).
"""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from droppath_torch.arrays import to_device
from droppath_torch.rows import HostRows


class Sent(NamedTuple):
    """A mask that the host knows, where `keyed` has sent it to a device: bool [B], and its rows."""

    keep: Tensor
    rows: HostRows


def send_rows(keep: NDArray[np.bool_], device: torch.device) -> list[HostRows]:
    """Return the rows that run of masks [L, B] that the host knows: those kept, one at least.

    They get to the device by one copy, and there by no kernel: all are views of it.
    """
    parts: list[NDArray[np.int64]] = []
    counts: list[int] = []
    for mask in keep:
        kept = mask.nonzero()[0]
        place = np.empty(len(mask), np.int64)
        place.fill(-1)
        place[kept] = np.arange(len(kept))
        parts += place, kept if len(kept) else np.zeros(1, np.int64)
        counts.append(len(kept))
    sent = to_device(torch.from_numpy(np.concatenate(parts)), device)
    views = sent.split_with_sizes([len(part) for part in parts])
    return [
        HostRows(taken, taken if count else taken[:0], place=place)
        for place, taken, count in zip(views[::2], views[1::2], counts, strict=True)
    ]
