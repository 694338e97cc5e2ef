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
    check_offset,
    check_one_source,
    check_skip,
    check_source,
)
from droppath.masks import keep_mask


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
    check_groups(groups, 0)  # whether it divides the batch is seen where a mask is drawn
    check_offset(offset, 0)
    check_one_source(key, keep)  # ARG-4
    p = check_drop_prob(drop_prob)  # ARG-1
    check_flags(training=training)
    if keep is not None:
        check_keep(keep.shape, keep.dtype.name, check_batch(batch))
        return keep  # PURE-3
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
    skip: bool | None = None,
) -> NDArray[np.bool_]:
    """Return the rows that a residual block runs its branch on in training, with the mask at hand.

    They are the kept ones (RES-4). Where none is kept, the first row runs, but in batch mode none.
    Where the number of rows must be known before the draw, it is `droppath.kept_capacity`.

    keep: bool [B], drawn in this mode at this rate. skip: False runs all rows. Returns bool [B].

    >>> rows_that_run(np.array([False, False, True]), 0.5), rows_that_run(np.array([False]), 0.5)
    (array([False, False,  True]), array([ True]))
    """
    check_mode(mode)
    check_skip(skip)
    run = keep & (check_drop_prob(drop_prob) < 1)  # DROP-2
    if skip is False:
        return np.ones_like(keep)
    if mode != "batch" and not run.any():
        run[:1] = True  # RES-4: a rank that runs no row would skip what the others wait for
    return run
