"""Every error text of the shared checks, and the values that they let through."""

from fractions import Fraction

import numpy as np
import pytest

from droppath import arguments as a

FLOATS = "float64, float32, float16 or bfloat16"

NAN = float("nan")


@pytest.mark.parametrize(
    ("p", "shown"),
    [
        (-0.1, "-0.1"),
        (1.5, "1.5"),
        (-5e-324, "-5e-324"),
        (np.nextafter(1.0, 2.0), "1.0000000000000002"),
        (NAN, "nan"),
        (float("inf"), "inf"),
        (None, "None"),
        ("0.1", "'0.1'"),
        (True, "True"),
        (np.True_, "True"),
        (np.array(True), "True"),
        (np.float32(NAN), "nan"),
        (0.1j, "0.1j"),
        ([0.1], "[0.1]"),
        (np.array([0.1]), "array([0.1])"),
    ],
)
def test_what_is_not_a_probability_is_refused_as_it_was_given(p, shown):
    with pytest.raises(ValueError) as error:
        a.check_drop_prob(p)
    assert str(error.value) == f"drop_prob must be a number in [0, 1], got {shown}"


def test_a_probability_is_refused_by_the_name_that_the_caller_typed():
    with pytest.raises(ValueError, match=r"^drop_path_rate must be a number in \[0, 1\], got 2$"):
        a.check_drop_prob(2, "drop_path_rate")


@pytest.mark.parametrize(
    ("p", "value"),
    [
        (0, 0.0),
        (1, 1.0),
        (0.1, 0.1),
        (-0.0, 0.0),
        (Fraction(1, 4), 0.25),
        (np.float64(0.1), 0.1),
        (np.float32(0.1), 0.100000001490116119384765625),  # the float32 itself, not 0.1
        (np.float16(0.1), 0.0999755859375),
        (np.array(0.25), 0.25),
        (np.int64(1), 1.0),
    ],
)
def test_a_probability_of_any_real_type_becomes_a_float(p, value):
    checked = a.check_drop_prob(p)
    assert type(checked) is float
    assert checked == value


BIG = 2**64
NOT_IN_WORD = "seed must be an integer in [0, 2**32), got "
OFFSETS = "offset must be an integer in [0, 2**64 - 3 + 1), got "


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (
            lambda: a.check_mode("rows"),
            "mode must be one of 'row', 'balanced', 'batch', got 'rows'",
        ),
        (lambda: a.check_mode(None), "mode must be one of 'row', 'balanced', 'batch', got None"),
        (
            lambda: a.check_mode("row,"),
            "mode must be one of 'row', 'balanced', 'batch', got 'row,'",
        ),
        (lambda: a.check_scale_at("test"), "scale_at must be one of 'train', 'eval', got 'test'"),
        (
            lambda: a.check_axis(0, (), "float32"),
            "x must have the batch axis 0, got shape ()",
        ),
        (
            lambda: a.check_axis(2, (4, 3), "float32"),
            "x must have the batch axis 2, got shape (4, 3)",
        ),
        (
            lambda: a.check_axis(-3, (4, 3), "float32"),
            "x must have the batch axis -3, got shape (4, 3)",
        ),
        (
            lambda: a.check_axis(0, (4,), "int64"),
            f"x must be {FLOATS}, got int64",
        ),
        (lambda: a.check_axis(1.0, (4,), "float32"), "axis must be an integer, got 1.0"),
        (lambda: a.check_axis(None, (4,), "float32"), "axis must be an integer, got None"),
        (
            lambda: a.check_keep((3,), "bool", 4),
            "keep must be bool of shape (4,), got bool of (3,)",
        ),
        (
            lambda: a.check_keep((4, 1), "bool", 4),
            "keep must be bool of shape (4,), got bool of (4, 1)",
        ),
        (
            lambda: a.check_keep((4,), "float32", 4),
            "keep must be bool of shape (4,), got float32 of (4,)",
        ),
        (
            lambda: a.check_key((2,), "int64"),
            "key must be uint32 of shape (2,), such as droppath.key(7), got int64 of (2,)",
        ),
        (
            lambda: a.check_key((), "uint32"),
            "key must be uint32 of shape (2,), such as droppath.key(7), got uint32 of ()",
        ),
        (
            lambda: a.check_key((4,), "uint32"),
            "key must be uint32 of shape (2,), such as droppath.key(7), got uint32 of (4,)",
        ),
        (
            lambda: a.check_key((3, 2), "uint32"),
            "key must be uint32 of shape (2,), such as droppath.key(7), got uint32 of (3, 2)",
        ),
        (
            lambda: a.check_key((2, 3), "uint32", several=True),
            "key must be uint32 of shape (2,), such as droppath.key(7), got uint32 of (2, 3)",
        ),
        (
            lambda: a.check_one_source(0, 0),
            "key and keep must not both be given: keep is the mask, key draws one",
        ),
        (lambda: a.check_word(-1, "seed"), NOT_IN_WORD + "-1"),
        (lambda: a.check_word(2**32, "seed"), NOT_IN_WORD + "4294967296"),
        (lambda: a.check_word(True, "seed"), "seed must be an integer, got True"),
        (lambda: a.check_word("1", "seed"), "seed must be an integer, got '1'"),
        (lambda: a.check_batch(-1), "batch must be an integer in [0, 2**31), got -1"),
        (lambda: a.check_batch(4.0), "batch must be an integer, got 4.0"),
        (lambda: a.check_groups(3, 4), "groups must divide the batch, got groups=3 for batch=4"),
        (lambda: a.check_groups(0, 4), "groups must divide the batch, got groups=0 for batch=4"),
        (lambda: a.check_groups(-2, 4), "groups must divide the batch, got groups=-2 for batch=4"),
        (lambda: a.check_groups(2.0, 4), "groups must be an integer, got 2.0"),
        (
            lambda: a.check_shards(6, 4),
            "groups must be a multiple of the 4 devices that share the batch, got 6: "
            "else rows travel between devices, which costs more than skipping saves "
            "(or take skip=False)",
        ),
        (lambda: a.check_offset(-1, 3), OFFSETS + "-1"),
        (lambda: a.check_offset(BIG - 2, 3), OFFSETS + "18446744073709551614"),
        (
            lambda: a.check_offset(BIG, 0),
            "offset must be an integer in [0, 2**64 - 1 + 1), got 18446744073709551616",
        ),
        (lambda: a.check_skip(1), "skip must be None, True or False, got 1"),
        (lambda: a.check_skip("no"), "skip must be None, True or False, got 'no'"),
        (
            lambda: a.check_skip(True, "nothing is known"),
            "skip must be None or False here, got True: nothing is known",
        ),
        (
            lambda: a.check_per_sample([(4, 2), (3, 4)], 4),
            "per_sample must begin with the batch of 4, got shape (3, 4)",
        ),
        (
            lambda: a.check_per_sample([()], 4),
            "per_sample must begin with the batch of 4, got shape ()",
        ),
        (
            lambda: a.check_branch((4, 1), "float32", (4, 2)),
            "branch must return the shape it is given, (4, 2), got (4, 1)",
        ),
        *(
            (
                lambda dtype=dtype: a.check_branch((4, 2), dtype, (4, 2)),
                f"branch must return {FLOATS}, got {dtype}",
            )
            for dtype in ("int64", "bool", "complex64", "float8_e4m3fn")
        ),
        (lambda: a.check_flags(a=True, b="False"), "b must be True or False, got 'False'"),
        (
            lambda: a.check_integer(np.array(True), "axis"),
            "axis must be an integer, got array(True)",
        ),
        (lambda: a.check_callable(None), "branch must be callable, got None"),
        (
            lambda: a.check_source(None, "keep or rngs"),
            "key must be given to drop in training, or keep or rngs, got none",
        ),
        (
            lambda: a.check_scalar("offset", "integer", False, "float32", ()),
            "offset must be an integer scalar, got float32 of shape ()",
        ),
        (
            lambda: a.check_scalar("drop_prob", "floating", True, "float32", (1,)),
            "drop_prob must be a floating scalar, got float32 of shape (1,)",
        ),
        (lambda: a.check_options("row", "train", 0.0, 1), "axis must be an integer, got 0.0"),
        (
            lambda: a.check_options("row", "train", 0, 0),
            "groups must divide the batch, got groups=0 for batch=0",
        ),
        (
            lambda: a.check_offset(6, 8, 4),
            "offset must be a multiple of the group's 4 rows, got offset=6",
        ),
    ],
)
def test_a_bad_argument_is_named_with_what_must_hold_and_what_was_given(call, text):
    with pytest.raises(ValueError) as error:
        call()
    assert str(error.value) == text


def test_the_last_value_within_each_range_passes():
    assert a.check_axis(-2, (4, 3), "float32") == 0
    assert a.check_axis(1, (4, 3), "float32") == 1
    assert a.check_word(2**32 - 1, "seed") == 2**32 - 1
    assert a.check_groups(4, 4) == 4
    assert a.check_groups(5, 0) == 5  # five groups of no rows
    assert a.check_offset(BIG - 3, 3) == BIG - 3
    assert a.check_offset(BIG - 1, 0) == BIG - 1
    assert a.check_offset(12, 8, 4) == 12
    a.check_shards(8, 4)
    a.check_keep((4,), "bool", 4)
    a.check_key((2,), "uint32")
    a.check_key((5, 3, 2), "uint32", several=True)
    a.check_one_source(0, None)
    a.check_skip(True)
    a.check_skip(None, "nothing is known")
    a.check_skip(False, "nothing is known")
    a.check_per_sample([(4,), (4, 2)], 4)
    a.check_branch((4, 2), "bfloat16", (4, 2))
    a.check_source(0)
    a.check_callable(abs)
    a.check_options("row", "eval", -1, 3)
    a.check_scalar("offset", "integer", True, "int64", ())
