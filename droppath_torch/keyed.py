"""keyed: every DropPath of a model draws from one explicit key.

Layer l, counted in the order of `model.modules()`, draws from fold_in(key, l). In eager mode the
masks of all layers are drawn together, on the host, at the first layer's call: one Threefry call in
place of one a layer. Under torch.compile each layer draws on its device, from a tensor that holds
its key. Nothing random is stored: the same key gives the same masks again.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import SupportsIndex

import numpy as np
import torch
from torch import Tensor, nn

from droppath import masks as host_masks
from droppath.arguments import check_axis, check_below, check_groups
from droppath.random import Words, fold_in
from droppath_torch.masks import (
    as_host_key,
    draw_on_device,
    drop_threshold,
    dtype_text,
    to_device,
)
from droppath_torch.modules import DropPath, in_backward, was_keyed


@contextmanager
def keyed(model: nn.Module, key: Words, *, offset: SupportsIndex = 0) -> Iterator[None]:
    """Within the block, let every DropPath of model draw from key.

    Use one block for each forward and backward, with a key of its own, fold_in(key, step). Backward
    belongs inside too if activation checkpointing runs the forward again. A `key` or `keep` given
    to a module goes first. On exit, also by an exception, the model is as it was.

    Args:
      model: the module whose DropPaths draw; the l-th in `model.modules()` from fold_in(key, l).
      key: uint32 [2] as droppath.key makes it.
      offset: global index of the batch's first row, for a shard or a micro-batch.

    Raises: ValueError for another key or offset, and, in eager mode, if a DropPath is called twice
      in one block, since both calls would drop the same samples.

    >>> import droppath
    >>> model = nn.Sequential(DropPath(0.5), DropPath(0.5))
    >>> with keyed(model, droppath.key(7)):
    ...     model(torch.ones(4))
    tensor([4., 4., 0., 0.])
    """
    layers = [module for module in model.modules() if isinstance(module, DropPath)]
    device = next(model.parameters(), torch.empty(0)).device
    first = check_below(offset, "offset", 1 << 63, "2**63")  # a tensor holds it as int64
    masks = StepMasks(layers, as_host_key(key), first, device)
    before = [layer.layer_key for layer in layers]
    for index, layer in enumerate(layers):
        layer.layer_key = LayerKey(masks, index)
    try:
        yield
    finally:
        for layer, layer_key in zip(layers, before, strict=True):
            layer.layer_key = layer_key
            was_keyed.add(layer)


class StepMasks:
    """The masks of all layers for one key, drawn together for each batch size that is met."""

    def __init__(
        self, layers: list[DropPath], key: Words, offset: int, device: torch.device
    ) -> None:
        self.layers = layers
        self.keys = fold_in(key, np.arange(len(layers), dtype=np.uint32))
        self.offset = offset
        words = np.concatenate([self.keys.astype(np.int64), np.full((len(layers), 1), offset)], 1)
        self.words = to_device(words, device)  # int64 [L, 3]: each layer's key, and the offset
        self.drawn: dict[tuple[object, ...], tuple[Tensor, ...]] = {}
        self.rates: dict[tuple[object, ...], list[float]] = {}  # what on_host drew at

    def on_host(self, index: int, batch: int, device: torch.device) -> Tensor:
        """Return the mask of a layer, drawn with all others of its mode and groups: bool [B]."""
        layer = self.layers[index]
        drawing = layer.mode, layer.groups, batch, device
        if drawing not in self.drawn or self.rates[drawing][index] != layer.drop_prob:
            rates = [0.0 if isinstance(p := each.drop_prob, Tensor) else p for each in self.layers]
            masks = host_masks.keep_mask(
                self.keys,
                np.array(rates),
                batch,
                mode=layer.mode,
                groups=layer.groups,
                offset=self.offset,
            )
            self.drawn[drawing], self.rates[drawing] = to_device(masks, device).unbind(), rates
        return self.drawn[drawing][index]

    def on_device(self, index: int, batch: int, device: torch.device) -> Tensor:
        """Return the same mask, drawn from the tensor of the keys and the tensors of rates."""
        mode, groups = self.layers[index].mode, self.layers[index].groups
        if (drawing := (device, mode, groups, batch)) not in self.drawn:
            group = batch // check_groups(groups, batch)
            rates = [drop_threshold(layer.drop_prob) for layer in self.layers]
            drops = torch.stack([torch.as_tensor(t, device=self.words.device) for t in rates])
            masks = draw_on_device(
                self.words[:, :2], drops[:, None], batch, mode, group, self.words[0, 2]
            )
            self.drawn[drawing] = masks.to(device).unbind()
        return self.drawn[drawing][index]


class LayerKey:
    """What one layer draws from within `keyed`."""

    def __init__(self, masks: StepMasks, index: int) -> None:
        self.masks = masks
        self.index = index
        self.called = False

    def keep_mask(self, layer: DropPath, x: Tensor, device: torch.device) -> Tensor:
        """Return the layer's mask for x, bool [B]: on device if the host draws it, else on x's."""
        batch = x.shape[check_axis(layer.axis, x.shape, dtype_text(x))]
        if not torch.compiler.is_compiling():
            self._check_first_call()
        if torch.compiler.is_compiling() or isinstance(layer.drop_prob, Tensor):
            return self.masks.on_device(self.index, batch, x.device)
        return self.masks.on_host(self.index, batch, device)

    def _check_first_call(self) -> None:
        if in_backward() and not self.called:
            raise RuntimeError("backward must run within the keyed() of its forward, to checkpoint")
        if self.called and not in_backward():
            raise ValueError(
                "key must serve one call of each DropPath, got a second: enter keyed again with "
                "another key for another forward, and give each branch a DropPath of its own"
            )
        self.called = True
