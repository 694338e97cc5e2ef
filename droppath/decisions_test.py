"""The reference's decisions by hand."""

import numpy as np
import pytest

from droppath import keep_mask, key
from droppath.decisions import mask_of_call, rows_that_run

KEEP = np.array([True, False, True])


def test_a_mask_is_given_or_drawn_or_nothing_is_drawn():
    k = key(7)
    assert mask_of_call(3, 0.5, keep=KEEP) is KEEP
    assert mask_of_call(3, 0.5, key=k, offset=4).tolist() == keep_mask(k, 0.5, 3, offset=4).tolist()
    for options in ({"training": False}, {}):
        p = 0.0 if not options else 0.5
        assert mask_of_call(3, p, **options).tolist() == [True] * 3


@pytest.mark.parametrize(
    ("batch", "options", "text"),
    [
        (3, {}, "key must be given to drop in training, or keep, got none"),
        (
            3,
            {"key": key(7), "keep": KEEP},
            "key and keep must not both be given: keep is the mask, key draws one",
        ),
        (4, {"keep": KEEP}, "keep must be bool of shape (4,), got bool of (3,)"),
        (
            3,
            {"training": False, "groups": 0},
            "groups must divide the batch, got groups=0 for batch=0",
        ),
        (
            3,
            {"training": False, "offset": -1},
            "offset must be an integer in [0, 2**64 - 1 + 1), got -1",
        ),
        (3, {"mode": "rows"}, "mode must be one of 'row', 'balanced', 'batch', got 'rows'"),
    ],
)
def test_a_mask_that_cannot_be_is_refused(batch, options, text):
    with pytest.raises(ValueError) as error:
        mask_of_call(batch, 0.5, **options)
    assert str(error.value) == text


def test_the_branch_runs_on_the_kept_rows_and_on_one_if_there_are_none():
    keep = np.array([False, False, True, True, False, True])
    for mode in ("row", "balanced", "batch"):
        assert rows_that_run(keep, 0.5, mode=mode).tolist() == keep.tolist()
        assert rows_that_run(keep, 0.5, mode=mode, skip=False).tolist() == [True] * 6
        first = mode != "batch"
        for none, p in ((keep & False, 0.5), (keep, 1.0)):
            assert rows_that_run(none, p, mode=mode).tolist() == [first] + [False] * 5
        assert rows_that_run(keep[:0], 0.5, mode=mode).tolist() == []
    assert keep.tolist() == [False, False, True, True, False, True]
