"""set_drop_probs: the rates of the DropPaths of a model that exists.

Not here: swapping other classes for ours. NNX has no library whose DropPath all models share; an
attribute that is assigned is swapped.
"""

from collections.abc import Sequence

import numpy as np
from flax import nnx
from numpy.typing import NDArray

from droppath.layers import rates_of
from droppath_flax.layers import layers_of
from droppath_flax.masks import Rate, check_rate


def set_drop_probs(
    model: nnx.Module,
    rates: Rate | Sequence[Rate] | NDArray[np.floating],
    *,
    layers: Sequence[str] | None = None,
) -> None:
    """Set the rate of every DropPath of a model, DropPathResiduals included.

    Args:
      rates: a rate for all; or one for each DropPath, in the order of definition, where a layer
        that is used twice counts once; or one for each block, which is what holds a DropPath as its
        own attribute, in the order of their first ones. Where there are as many blocks as DropPaths
        this is the same. Rates as in `DropPath`: a float is part of a compiled program, a JAX
        scalar is data.
      layers: the paths of all DropPaths, in the order of the rates, where it is another one.

    Raises: ValueError, before any rate is set, for a rate outside [0, 1], for another number of
      rates than of DropPaths or of blocks, for other `layers`, and if there is no DropPath.

    >>> import droppath
    >>> from droppath_flax import DropPath
    >>> model = nnx.Sequential(DropPath(), DropPath(), DropPath())
    >>> set_drop_probs(model, droppath.drop_path_rates(0.2, 3))
    >>> [layer.drop_prob for layer in model.layers]
    [0.0, 0.1, 0.2]
    """
    found = layers_of(model, layers)
    checked = rates_of(rates, list(found), check_rate)
    for layer, rate in zip(found.values(), checked, strict=True):
        layer.drop_prob = rate
