"""The masks of a whole model for one key: what `keyed` sets up, and its layers draw from.

Where the host knows the key, the masks of all layers are drawn there at the first layer's call, and
get to x's device by one copy. Under torch.compile, where a rate is a tensor, and where the key is
on a device, all layers draw at once from a tensor of the key. Not here: the modules.
"""

from typing import NamedTuple, Protocol, TypeAlias, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from droppath import masks as host_masks
from droppath.arguments import Mode, check_groups
from droppath.random import as_key as as_host_key
from droppath.random import fold_in as fold_in_on_host
from droppath_torch.arguments import check_captured
from droppath_torch.arrays import (
    is_captured,
    is_compiling,
    is_mapped,
    is_plain_on_cpu,
    to_device,
)
from droppath_torch.calls import Calls, Forwards
from droppath_torch.masks import (
    Drawn,
    Key,
    Rate,
    as_key,
    check_words,
    draw_on_device,
    drop_threshold,
    fold_in,
)
from droppath_torch.sent import Sent, send_rows


class Layer(Protocol):
    """What is asked of a DropPath."""

    drop_prob: Rate
    mode: Mode
    groups: int


How: TypeAlias = tuple[Mode, int, Rate]  # a layer draws


class LayerMask(NamedTuple):
    """The mask of a layer's call, bool [B]: on the host if it is on its way to x too."""

    keep: Tensor | None
    sent: Sent | None = None


NONE_DUE = LayerMask(None)


class HostMasks(NamedTuple):
    """The masks of all layers that the host could draw for a batch size."""

    how: dict[int, How]  # by layer, as it was when it was drawn
    masks: NDArray[np.bool_]  # [L, B]
    keep: tuple[Tensor, ...]  # the same
    sent: dict[torch.device, list[Sent]]


class StepMasks:
    """The masks of all layers for one key, drawn together for each batch size and call."""

    def __init__(self, layers: list[Layer], key: Key, offset: int, device: torch.device) -> None:
        self.layers = layers
        self.first_row = offset
        self.host_keys: NDArray[np.uint32] | None = None
        self.of_host: dict[tuple[int, int], HostMasks] = {}
        self.of_device: dict[tuple[object, ...], Drawn] = {}
        self.offset: Tensor | None = None
        if isinstance(key, Tensor):
            check_words(key)
        if is_compiling():  # `keyed` itself: the key is data of the program
            self.key = as_key(key)
            check_words(self.key)
            self.offset = torch.full((1,), offset, dtype=torch.int64, device=self.key.device)
        elif isinstance(key, Tensor) and not is_plain_on_cpu(key):
            self.key = key  # as it is: a CUDA graph reads it at each replay
        else:
            words = _host_words(key)
            check_captured(device, key=words)
            self.host_keys = fold_in_on_host(words, np.arange(len(layers), dtype=np.uint32))
            # data of a compiled program: the key, and the offset
            self.source = to_device(torch.tensor([*words.tolist(), offset]), device)

    def _offset(self, device: torch.device) -> Tensor:
        """Return the offset, int64 [1]; made at the call, since a CUDA graph holds what it makes.

        What was made before, the graph would read where other numbers stand by then.
        """
        if self.offset is not None:
            return to_device(self.offset, device)
        return torch.full((1,), self.first_row, dtype=torch.int64, device=device)

    def on_host(self, index: int, call: int, batch: int, device: torch.device) -> LayerMask:
        """Return the mask of a layer's call; where x is on another device, with its rows there."""
        drawn = self.of_host.get((call, batch))
        if drawn is None or drawn.how.get(index) != self._how(index):
            drawn = self.of_host[call, batch] = self._draw_on_host(index, call, batch)
        if device.type == "cpu":
            return LayerMask(drawn.keep[index])
        check_captured(device, key=self.host_keys)
        if device not in drawn.sent:
            rows = send_rows(drawn.masks, device)
            keep = torch.stack([cast(Tensor, each.place) for each in rows]) >= 0
            drawn.sent[device] = [*map(Sent, keep.unbind(), rows)]
        return LayerMask(drawn.keep[index], drawn.sent[device][index])

    def _how(self, index: int) -> How:
        layer = self.layers[index]
        return layer.mode, layer.groups, layer.drop_prob

    def _draw_on_host(self, index: int, call: int, batch: int) -> HostMasks:
        """Draw for all layers that can, those of a mode and groups by one Threefry call.

        One that cannot, since its groups do not divide this batch say, is refused at its own call.
        """
        assert self.host_keys is not None
        all_keys = fold_in_on_host(self.host_keys, call + 1) if call else self.host_keys  # KEY-8
        how, drawn = [self._how(i) for i in range(len(self.layers))], dict[int, How]()
        by_host = [i for i, (_, _, p) in enumerate(how) if not isinstance(p, Tensor)]
        masks = np.ones((len(how), batch), bool)
        for first in (index, *by_host):
            if first in drawn:
                continue
            mode, groups, _ = how[first]
            alike = [i for i in by_host if how[i][:2] == (mode, groups)]
            keys, rates = all_keys[alike], np.array([how[i][2] for i in alike])
            try:
                masks[alike] = host_masks.keep_mask(
                    keys, rates, batch, mode=mode, groups=groups, offset=self.first_row
                )
            except (TypeError, ValueError):
                if first == index:
                    raise
            else:
                drawn |= {i: how[i] for i in alike}
        return HostMasks(drawn, masks, torch.from_numpy(masks).unbind(), {})

    def on_device(self, index: int, call: int, batch: int, device: torch.device) -> LayerMask:
        """Return the same mask on x's device, from the tensor of the key."""
        mode, groups, p = self._how(index)
        group_size = batch // check_groups(groups, batch)
        check_captured(device, key=self.host_keys)
        # what was drawn before a CUDA graph would stay in it
        alike = mode, groups, call, batch, device, is_captured(device)
        if alike not in self.of_device:
            if self.host_keys is None:
                key, offset = to_device(self.key, device), self._offset(device)
            else:
                key, offset = to_device(self.source, device).split([2, 1])
            keys = fold_in(as_key(key), len(self.layers))  # KEY-7
            keys = fold_in(keys, 1, first=call + 1)[..., 0, :] if call else keys  # KEY-8
            self.of_device[alike] = draw_on_device(keys, batch, mode, group_size, offset[0])
        order, up = self.of_device[alike]
        one = Drawn(order[index], None if up is None else up[index])
        return LayerMask(one.kept(drop_threshold(p), group_size))


def _host_words(key: Key) -> NDArray[np.uint32]:
    """Return the two words of a key that the host knows."""
    if isinstance(key, Tensor):
        return as_key(key).numpy().astype(np.uint32)
    return as_host_key(key, several=False)


class LayerKey:
    """What one layer draws from within `keyed`."""

    def __init__(self, masks: StepMasks, index: int, forwards: Forwards) -> None:
        self.masks = masks
        self.index = index
        self.calls = Calls(forwards)

    def keep_mask(self, batch: int, device: torch.device) -> LayerMask:
        """Return the mask of the layer's next call, for x on a device."""
        if is_compiling():
            call = self.calls.number_in_program()
            if call is not None:
                return self.masks.on_device(self.index, call, batch, device)
            return self._keep_mask_outside_the_program(batch, device)
        return self._keep_mask(batch, device)

    def _keep_mask(self, batch: int, device: torch.device) -> LayerMask:
        masks, index = self.masks, self.index
        if is_mapped():
            raise ValueError(
                "key must be given for each sample under torch.func.vmap, by key=: the samples "
                "would share the mask of keyed"
            )
        call = self.calls.number()
        if masks.host_keys is None or isinstance(masks.layers[index].drop_prob, Tensor):
            return masks.on_device(index, call, batch, device)
        return masks.on_host(index, call, batch, device)

    @torch.compiler.disable
    def _keep_mask_outside_the_program(self, batch: int, device: torch.device) -> LayerMask:
        """Return the mask of a call that earlier programs do not know: a graph break."""
        return self._keep_mask(batch, device)
