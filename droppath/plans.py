"""Depth plans: which layers of a model run in a step, as a pure function of (key, rates).

Each layer is dropped with its own probability, and yet the same number of layers run in every step:
systematic sampling (Madow 1949) on the layers in a random order (SPEC.md, area PLAN). Every
decision is made in integers. Not here: running the layers, which is the backends' work.
"""

from collections.abc import Sequence
from typing import Any, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from droppath.arguments import check_drop_prob, check_source
from droppath.masks import DRAW_BITS, draw23, drop_threshold
from droppath.random import Words, as_key, fold_in, random_bits
from droppath.schedules import TEXT

Rates = Sequence[float] | NDArray[np.floating[Any]]
Stages = Sequence[Rates]


@overload
def layer_plan(key: ArrayLike, rates: Rates) -> NDArray[np.bool_]: ...
@overload
def layer_plan(key: ArrayLike, rates: Stages) -> list[NDArray[np.bool_]]: ...
def layer_plan(
    key: ArrayLike, rates: Rates | Stages
) -> NDArray[np.bool_] | list[NDArray[np.bool_]]:
    """Return which layers run: True where a layer runs, False where it is dropped.

    P(layer l is dropped) is T / 2**23 with T = ceil(float32(rates[l]) * 2**23), as in `keep_mask`.
    At most `planned_depth(rates)` layers run, and at least one less; exactly so many if the sum of
    the T is a multiple of 2**23, which `drop_path_rates(..., whole=True)` sees to.

    Args:
      key: uint32 [2], or [..., 2] for several plans at once.
      rates: the drop_prob of each of L layers; or a list of them for each stage, whose plan is
        drawn from fold_in(key, stage).

    Returns: bool [..., L], or a list with one for each stage.
    Raises: ValueError for a rate outside [0, 1], no layer, a key that is none.

    >>> from droppath import key
    >>> layer_plan(key(1), [0.0, 0.25, 0.5, 0.25])
    array([ True,  True, False,  True])

    Source: Madow 1949, Annals of Mathematical Statistics 20(3).
    """
    words, stages, nested = as_key(key), stages_of(rates), is_nested(rates)
    if nested:  # PLAN-4
        return [_plan(fold_in(words, s), stage) for s, stage in enumerate(stages)]
    return _plan(words, stages[0])


def planned_depth(rates: Rates | Stages) -> int:
    """Return the most layers that a plan runs, of all stages together: known before any draw.

    It is L - floor(sum of T / 2**23) for each stage (PLAN-3). Raises ValueError as `layer_plan`.

    >>> planned_depth([0.25] * 12), planned_depth([[0.0, 0.5], [0.5, 0.75]])
    (9, 3)
    """
    stages = [thresholds(stage) for stage in stages_of(rates)]
    return sum(len(of_layers) - int(of_layers.sum() >> DRAW_BITS) for of_layers in stages)


def check_stack(
    rates: Any, layers: int, key: object, plan: object, training: bool, *arrays: type
) -> None:
    """Raise unless rates are those of so many layers, and one of key and plan is given to train.

    arrays: as in `stages_of`.
    """
    stages_of(rates, *arrays)
    if is_nested(rates, *arrays) or len(rates) != layers:
        raise ValueError(f"rates must be a list of {layers} rates, got {rates!r}")
    if key is not None and plan is not None:
        raise ValueError("key and plan must not both be given: plan says what runs, key draws it")
    if training and plan is None:
        check_source(key, "plan")


def check_plan(shape: Sequence[int], dtype: str, layers: int) -> None:
    """Raise unless plan is bool [L]; layers: L."""
    if tuple(shape) != (layers,) or dtype != "bool":
        raise ValueError(f"plan must be bool of shape ({layers},), got {dtype} of {tuple(shape)}")


def thresholds(rates: Rates) -> NDArray[np.int64]:
    """Return the T of each layer of a stage whose rates are checked: int64 [L]."""
    return drop_threshold(np.array([float(p) for p in rates]))


def stages_of(rates: Any, *arrays: type) -> list[Any]:
    """Return the rates of each stage, of one stage if they are not nested.

    arrays: types that are the rates of a stage too, whose numbers are not read. Raises ValueError
    for rates that are no numbers in [0, 1] or no lists, and where there is no layer.
    """
    nested = is_nested(rates, *arrays)
    for stage in rates if nested else [rates]:
        if not _is_list(stage, *arrays):
            raise ValueError(f"rates must be a list, or one for each stage, got {stage!r}")
        for p in stage if not isinstance(stage, arrays) else ():
            check_drop_prob(p, "rates")
    stages = [*rates] if nested else [rates]
    if not sum(len(stage) for stage in stages):
        raise ValueError(f"rates must have a layer, got {rates!r}")
    return stages


def is_nested(rates: object, *arrays: type) -> bool:
    """Return whether rates are those of stages."""
    return isinstance(rates, Sequence) and any(_is_list(stage, *arrays) for stage in rates)


def _is_list(rates: object, *arrays: type) -> bool:
    array = isinstance(rates, (np.ndarray, *arrays)) and getattr(rates, "ndim", 0) == 1
    return array or (isinstance(rates, Sequence) and not isinstance(rates, TEXT))


def _plan(key: Words, rates: Rates) -> NDArray[np.bool_]:
    """PLAN-1: the layers on which marks 2^23 apart fall are dropped, in a random order."""
    of_layers = thresholds(rates)
    order = random_bits(fold_in(key, 0), len(of_layers)).argsort(kind="stable")
    ends = of_layers[order].cumsum(-1)  # PLAN-5: the order is any, so that neighbours are too
    u = draw23(random_bits(fold_in(key, 1), 1))
    # PLAN-2: a layer is as long as its rate, and one mark falls on each unit of the sum (PLAN-3)
    dropped = (ends - of_layers[order] + u) >> DRAW_BITS < (ends + u) >> DRAW_BITS
    plan = np.empty_like(dropped)
    np.put_along_axis(plan, order, ~dropped, -1)
    return plan
