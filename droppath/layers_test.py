"""What is accepted and what is refused of a list of layers, and of their rates."""

import numpy as np
import pytest

from droppath.arguments import check_drop_prob
from droppath.layers import Layer, Summary, in_order, rates_of

PATHS = ["a.x", "a.y", "b"]  # two layers of the block "a", and one of the model itself


@pytest.mark.parametrize(
    ("layers", "got"),
    [
        ("a.x", "'a.x'"),
        ([1, 2, 3], r"\[1, 2, 3\]"),
        (["a.x", "a.y"], "nothing of 'b'"),
        (["a.x", "a.y", "b", "b"], "'b' twice"),
        (["a.x", "a.y", "c"], "'c', which is none"),
        ({"b", "a.x", "a.y"}, "{"),
    ],
)
def test_a_list_of_layers_must_have_each_once(layers, got):
    with pytest.raises(ValueError, match=f"^layers must .*, got {got}"):
        in_order(PATHS, layers)


def test_a_list_of_layers_is_their_order():
    assert in_order(PATHS, ("b", "a.x", "a.y")) == ["b", "a.x", "a.y"]


@pytest.mark.parametrize(
    ("rates", "want"),
    [
        (0.1, [0.1, 0.1, 0.1]),
        (np.array(0.1), [0.1, 0.1, 0.1]),
        ([0.1, 0.2, 0.3], [0.1, 0.2, 0.3]),
        (np.array([0.1, 0.2]), [0.1, 0.1, 0.2]),
    ],
)
def test_rates_are_one_for_all_for_each_or_for_each_block(rates, want):
    assert rates_of(rates, PATHS, check_drop_prob) == want


@pytest.mark.parametrize(
    ("rates", "text"),
    [
        ([0.1], "rates must be 3, one for each DropPath, or 2, one for each block.* got 1$"),
        ([], "rates must be 3, .* got 0$"),
        ([0.1, 1.5], r"rates\[1\] must be a number in \[0, 1\], got 1.5"),
        ("0.1", r"rates must be a number in \[0, 1\], got '0.1'"),
    ],
)
def test_other_rates_are_refused(rates, text):
    with pytest.raises(ValueError, match=text):
        rates_of(rates, PATHS, check_drop_prob)


def test_a_summary_is_a_table():
    lines = Layer("a.x", "DropPath", 0.1, "row", 1, "no"), Layer("b", "Identity", *[None] * 3, "no")
    table = "path  class     rate   mode  calls  skips\na.x   DropPath  0.100  row   1      no\n"
    assert str(Summary(lines)) == table + "b     Identity                      no"
    assert str(Summary(())).endswith("\nno layer drops paths")
