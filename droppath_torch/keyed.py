"""keyed: every DropPath of a model draws from one explicit key.

Layer l, counted in the order of `model.modules()`, draws from fold_in(key, l) (KEY-7), and at each
later call in one forward from that key with the call's number folded in (KEY-8). Nothing random is
stored: the same key gives the same masks again. Not here: the draws (step_masks.py), and which call
it is (calls.py).
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import SupportsIndex

import torch
from torch import nn

from droppath.arguments import check_below
from droppath_torch.arguments import check_module
from droppath_torch.calls import watched
from droppath_torch.foreign import check_draws
from droppath_torch.layers import layers_of
from droppath_torch.masks import Key
from droppath_torch.step_masks import LayerKey, StepMasks


@contextmanager
def keyed(
    model: nn.Module,
    key: Key,
    *,
    offset: SupportsIndex = 0,
    layers: Sequence[str] | None = None,
) -> Iterator[None]:
    """Within the block, let every DropPath of model draw from key.

    Use one block for each forward and backward, with a key of its own, fold_in(key, step). A layer
    that the forward calls again draws another mask (KEY-8). Backward belongs inside too if
    activation checkpointing runs the forward again: each call of it gets its own mask again. A
    `key` or `keep` given to a module takes precedence. On exit, also by an exception, the model is
    as it was. The replicas of nn.DataParallel share one layer's key and are refused: use
    DistributedDataParallel, where each rank passes its offset.

    A forward is a call of `model` itself. Where only parts of it are called, each layer may be
    called once.

    Under torch.compile all calls of a layer belong in one program, within a checkpoint or around
    it. The block itself may be compiled as a part of a step (fullgraph=True, checked with PyTorch
    2.13): another key, NumPy's or a tensor, compiles nothing anew, another `offset` does; all calls
    in the block are then those of one forward, and functions of other libraries are not looked for.

    Args:
      model: the module whose DropPaths draw; the l-th in `model.modules()` from fold_in(key, l).
      key: uint32 [2] as droppath.key makes it, or a tensor [2], as in `keep_mask`. From a tensor on
        a device the masks are drawn there, unread: in a CUDA graph, of the key at each replay.
      offset: global index of the batch's first row, for a shard or a micro-batch.
      layers: the paths of all DropPaths, where layer l is to be another one than the l-th: those of
        a model in another framework that defines its parts in another order.

    Raises: ValueError for another key, offset or layers; for a model that holds no DropPath, or one
      of another library, or that is seen to call such a function; in eager mode also where a second
      forward calls a DropPath, under torch.func.vmap, since several samples would share one mask,
      and in a CUDA graph with a key of the host, whose masks each replay would repeat. RuntimeError
      for a recomputation outside the block, and for one of a layer with several calls where it
      cannot be known which it repeats: within nested checkpoints, or by other means than
      torch.utils.checkpoint.

    >>> import droppath
    >>> from droppath_torch import DropPath
    >>> model = nn.Sequential(DropPath(0.5), DropPath(0.5))
    >>> with keyed(model, droppath.key(7)):
    ...     model(torch.ones(4))
    tensor([4., 4., 0., 0.])
    """
    check_module(model)
    check_draws(model)
    counted = list(layers_of(model, layers).values())
    device = next(model.parameters(), torch.empty(0)).device
    first = check_below(offset, "offset", 1 << 63, "2**63")  # a tensor holds it as int64
    masks = StepMasks(list(counted), key, first, device)
    before = [layer.layer_key for layer in counted]
    try:
        with watched(model) as forwards:
            for index, layer in enumerate(counted):
                layer.layer_key = LayerKey(masks, index, forwards)
            yield
    finally:
        for layer, layer_key in zip(counted, before, strict=True):
            layer.layer_key = layer_key
            layer.was_keyed = True
