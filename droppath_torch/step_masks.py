"""The masks of a whole model for one key: what `keyed` sets up, and its layers draw from.

In eager mode the masks of all layers alike are drawn together, on the host, at the first layer's
call: one Threefry call in place of one a layer. Under torch.compile, and where the rate is a
tensor, they are drawn on the device, from a tensor that holds the keys. Not here: the modules.
"""

from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from droppath import masks as host_masks
from droppath.arguments import Mode, check_groups
from droppath.random import Words, fold_in
from droppath_torch.arrays import in_backward, is_compiling, is_mapped, to_device
from droppath_torch.masks import Rate, draw_on_device, drop_threshold

OUTSIDE_KEYED = (
    "backward must run within the keyed() block of its forward, since activation checkpointing "
    "runs the forward again"
)


class Layer(Protocol):
    """What is asked of a DropPath."""

    drop_prob: Rate
    mode: Mode
    groups: int


class StepMasks:
    """The masks of all layers for one key, drawn together for each batch size that is met."""

    def __init__(self, layers: list[Layer], key: Words, offset: int, device: torch.device) -> None:
        self.layers = layers
        self.keys = fold_in(key, np.arange(len(layers), dtype=np.uint32))
        self.offset = offset
        words = np.concatenate([self.keys.astype(np.int64), np.full((len(layers), 1), offset)], 1)
        self.words = to_device(words, device)  # int64 [L, 3]: each layer's key, and the offset
        self.of_host: dict[tuple[object, ...], tuple[list[float], tuple[Tensor, ...]]] = {}
        self.of_device: dict[tuple[object, ...], tuple[Tensor, ...]] = {}

    def on_host(self, index: int, batch: int, device: torch.device) -> Tensor:
        """Return the mask of a layer, drawn with all others of its mode and groups: bool [B]."""
        layer = self.layers[index]
        alike = layer.mode, layer.groups, batch, device
        if alike not in self.of_host or self.of_host[alike][0][index] != layer.drop_prob:
            rates = [0.0 if isinstance(p := each.drop_prob, Tensor) else p for each in self.layers]
            masks = host_masks.keep_mask(
                self.keys,
                np.array(rates),
                batch,
                mode=layer.mode,
                groups=layer.groups,
                offset=self.offset,
            )
            self.of_host[alike] = rates, to_device(masks, device).unbind()
        return self.of_host[alike][1][index]

    def on_device(self, index: int, batch: int, device: torch.device) -> Tensor:
        """Return the same mask, drawn from the tensor of the keys and the tensors of rates."""
        mode, groups = self.layers[index].mode, self.layers[index].groups
        if (alike := (mode, groups, batch, device)) not in self.of_device:
            group_size = batch // check_groups(groups, batch)
            at, thresholds = self.words.device, [drop_threshold(e.drop_prob) for e in self.layers]
            column = torch.stack([torch.as_tensor(t, device=at) for t in thresholds])[:, None]
            keys, offset = self.words[:, :2], self.words[0, 2]
            masks = draw_on_device(keys, column, batch, mode, group_size, offset)
            self.of_device[alike] = masks.to(device).unbind()
        return self.of_device[alike][index]


class LayerKey:
    """What one layer draws from within `keyed`."""

    def __init__(self, masks: StepMasks, index: int) -> None:
        self.masks = masks
        self.index = index
        self.called = False

    def keep_mask(self, batch: int, of_x: torch.device, device: torch.device) -> Tensor:
        """Return the layer's mask, bool [B]: on device if the host draws it, else on x's."""
        if is_compiling():
            return self.masks.on_device(self.index, batch, of_x)
        self._check_first_call()
        if isinstance(self.masks.layers[self.index].drop_prob, Tensor):
            return self.masks.on_device(self.index, batch, of_x)
        return self.masks.on_host(self.index, batch, device)

    def _check_first_call(self) -> None:
        if is_mapped():
            raise ValueError(
                "key must be given for each sample under torch.func.vmap, by key=: the samples "
                "would share the mask of keyed"
            )
        if in_backward() and not self.called:
            raise RuntimeError(OUTSIDE_KEYED)
        if self.called and not in_backward():
            raise ValueError(
                "key must serve one call of each DropPath, got a second: enter keyed again with "
                "another key for another forward, and give each branch a DropPath of its own"
            )
        self.called = True
