"""The reference's decisions, before anything is computed: which mask a call has, which rows run.

With reference.py this is the whole of SPEC.md in NumPy. Not here: the bits of a mask (masks.py),
and what is computed from it. The backends decide for themselves, and do not import this.
"""

from typing import SupportsIndex, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from droppath.arguments import (
    Mode,
    check_batch,
    check_drop_prob,
    check_flags,
    check_groups,
    check_keep,
    check_mode,
    check_one_source,
    check_skip,
    check_source,
)
from droppath.masks import keep_mask, kept_capacity


def mask_of_call(
    batch: SupportsIndex,
    drop_prob: float,
    *,
    training: bool = True,
    key: ArrayLike | None = None,
    keep: NDArray[np.bool_] | None = None,
    mode: Mode = "row",
    groups: SupportsIndex = 1,
    offset: SupportsIndex = 0,
) -> NDArray[np.bool_]:
    """Return the mask of a call: `keep` if it is given, else the one that `key` draws.

    Nothing is drawn, and no key is needed, outside training and at drop_prob = 0: then all rows are
    kept. Arguments as in `droppath.keep_mask`; keep: bool [batch].

    Returns: bool [batch].
    Raises: ValueError as `keep_mask`; if both key and keep are given; in training with
      drop_prob > 0 if neither is.

    >>> mask_of_call(3, 0.0)
    array([ True,  True,  True])
    """
    check_mode(mode)  # ARG-3
    check_one_source(key, keep)  # ARG-4
    p = check_drop_prob(drop_prob)  # ARG-1
    check_flags(training=training)
    if keep is not None:
        check_keep(keep.shape, keep.dtype.name, check_batch(batch))
        return keep
    if not training or p == 0:  # EVAL-1, EVAL-2: nothing is drawn
        return np.ones(batch, bool)
    check_source(key)  # ARG-5
    given = cast(ArrayLike, key)
    return keep_mask(given, p, batch, mode=mode, groups=groups, offset=offset)  # PURE-2, MASK-3


def rows_that_run(
    keep: NDArray[np.bool_],
    drop_prob: float,
    *,
    mode: Mode = "row",
    groups: SupportsIndex = 1,
    skip: bool | None = None,
) -> NDArray[np.bool_]:
    """Return the rows that a residual block runs its branch on: those kept, and the spare ones.

    keep: bool [B], drawn in this mode at this rate. skip: False runs all rows. Returns bool [B].

    >>> rows_that_run(np.array([True, False, False, False]), 0.5, mode="balanced")
    array([ True,  True, False, False])
    """
    check_mode(mode)
    check_skip(skip)
    if skip is False:
        return np.ones_like(keep)
    if mode != "balanced" or not keep.size:
        return keep
    count = check_groups(groups, len(keep))
    capacity = kept_capacity(drop_prob, len(keep), groups=count) // count  # BAL-4
    first = np.argsort(~keep.reshape(count, -1), axis=1, kind="stable")[:, :capacity]
    run = np.zeros((count, len(keep) // count), bool)
    np.put_along_axis(run, first, True, axis=1)  # RES-4
    return run.reshape(-1)
