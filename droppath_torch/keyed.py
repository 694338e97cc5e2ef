"""keyed: every DropPath of a model draws from one explicit key.

Layer l, counted in the order of `model.modules()`, draws from fold_in(key, l) (KEY-7). Nothing
random is stored: the same key gives the same masks again. Not here: the draws (step_masks.py).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import SupportsIndex

import torch
from torch import nn

from droppath.arguments import check_below
from droppath_torch.arguments import check_module
from droppath_torch.masks import Key
from droppath_torch.modules import DropPath
from droppath_torch.step_masks import LayerKey, StepMasks


@contextmanager
def keyed(model: nn.Module, key: Key, *, offset: SupportsIndex = 0) -> Iterator[None]:
    """Within the block, let every DropPath of model draw from key.

    Use one block for each forward and backward, with a key of its own, fold_in(key, step). Backward
    belongs inside too if activation checkpointing runs the forward again. A `key` or `keep` given
    to a module takes precedence. On exit, also by an exception, the model is as it was. The
    replicas of nn.DataParallel share one layer's key and are refused: use
    DistributedDataParallel, where each rank passes its offset.

    Args:
      model: the module whose DropPaths draw; the l-th in `model.modules()` from fold_in(key, l).
      key: uint32 [2] as droppath.key makes it, or a tensor [2], as in `keep_mask`. From a tensor on
        a device the masks are drawn there, unread: in a CUDA graph, of the key at each replay.
      offset: global index of the batch's first row, for a shard or a micro-batch.

    Raises: ValueError for another model, key or offset; and, in eager mode, if a DropPath is called
      twice in one block, or under torch.func.vmap, since several samples would share one mask,
      or in a CUDA graph with a key of the host, whose masks each replay would repeat.

    >>> import droppath
    >>> model = nn.Sequential(DropPath(0.5), DropPath(0.5))
    >>> with keyed(model, droppath.key(7)):
    ...     model(torch.ones(4))
    tensor([4., 4., 0., 0.])
    """
    check_module(model)
    layers = [module for module in model.modules() if isinstance(module, DropPath)]
    device = next(model.parameters(), torch.empty(0)).device
    first = check_below(offset, "offset", 1 << 63, "2**63")  # a tensor holds it as int64
    masks = StepMasks(list(layers), key, first, device)
    before = [layer.layer_key for layer in layers]
    for index, layer in enumerate(layers):
        layer.layer_key = LayerKey(masks, index)
    try:
        yield
    finally:
        for layer, layer_key in zip(layers, before, strict=True):
            layer.layer_key = layer_key
            layer.was_keyed = True
