"""The fractions round as the library does, and as the reference does."""

import math
from fractions import Fraction

import ml_dtypes
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

import droppath
from conformance.make_golden import exact
from conformance.make_golden.exact import FORMATS, nearest

MANY = settings(max_examples=500, derandomize=True, deadline=None)
DTYPES = {name: np.dtype(getattr(ml_dtypes, name, name)) for name in FORMATS}


@given(dtype=st.sampled_from([*FORMATS]), data=st.data())
@MANY
def test_rounding_is_that_of_the_library(dtype, data):
    # bfloat16 from float32, since ml_dtypes goes there from float64 by way of it
    width = 32 if dtype == "bfloat16" else 64
    value = data.draw(st.floats(allow_nan=False, allow_infinity=False, width=width))
    with np.errstate(over="ignore"):
        want = float(np.float64(value).astype(DTYPES[dtype]))
    assert nearest(Fraction(value), dtype) == want


@st.composite
def rows_and_rates(draw):
    """A dtype, 8 of its numbers that are not zero, and a rate below 1."""
    dtype = draw(st.sampled_from([*FORMATS]))
    integers = st.integers(1, 2 ** FORMATS[dtype][0] - 1)
    spread = st.integers(-30, 12) if dtype == "float16" else st.integers(-150, 120)
    x = [math.ldexp(draw(integers), draw(spread)) for _ in range(8)]
    x = [value for value in (nearest(Fraction(value), dtype) for value in x) if value]
    p = draw(st.floats(0, 1, exclude_max=True))
    return dtype, [value for value in x if math.isfinite(value)], p


@given(rows_and_rates())
@MANY
def test_the_fractions_round_as_the_reference_does(case):
    dtype, x, p = case
    array = np.array(x).astype(DTYPES[dtype])
    got = droppath.drop_path(array, np.ones(len(x), bool), p).astype(np.float64)
    s = exact.factor(p, dtype, True)
    assert got.tolist() == [exact.product(value, s, dtype) for value in x]
