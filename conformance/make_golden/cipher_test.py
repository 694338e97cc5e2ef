"""The masks are those of the reference."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

import droppath
from conformance.make_golden import cipher


@given(
    key=st.tuples(*[st.integers(0, 2**32 - 1)] * 2),
    p=st.floats(0, 1),
    mode=st.sampled_from(["row", "batch", "balanced"]),
    group_size=st.integers(1, 9),
    groups=st.integers(1, 4),
    start=st.integers(0, 2**33),
)
@settings(max_examples=500, derandomize=True, deadline=None)
def test_the_masks_are_those_of_the_reference(key, p, mode, group_size, groups, start):
    options = {"mode": mode, "groups": groups, "offset": start * group_size}
    want = droppath.keep_mask(np.array(key, np.uint32), p, group_size * groups, **options)
    assert cipher.keep_mask(key, p, group_size * groups, **options) == want.tolist()
