"""The stack of the reference, by hand: which layers run, their factors, refusals."""

import numpy as np
import pytest

import droppath

PLAN = np.array([True, False, True, True])
RATES = [0.0, 0.5, 0.5, 1.0]


@pytest.mark.parametrize(
    ("options", "want"),
    [
        ({}, 1 + 2 * 3),  # the second is dropped, the fourth counts for nothing at 1
        ({"scale_by_keep": False}, 1 + 3),
        ({"scale_at": "eval"}, 1 + 3),
        ({"training": False}, 1 + 2 + 3 + 4),
        ({"training": False, "scale_at": "eval"}, 1 + 2 / 2 + 3 / 2),
    ],
)
def test_the_layers_that_run_are_added_with_their_factors(options, want):
    calls = []

    def layer(number):
        return lambda x: calls.append(number) or np.full_like(x, number)

    branches = [layer(i) for i in (1, 2, 3, 4)]
    y = droppath.drop_path_stack(np.zeros(2), branches, PLAN, RATES, **options)
    assert y.tolist() == [want, want]
    trains = options.get("training", True)
    all_count = options == {"training": False}
    assert calls == ([1, 3] if trains else [1, 2, 3, 4] if all_count else [1, 2, 3])


def test_a_layer_sees_what_the_layers_before_it_made():
    branches = [lambda x: x, lambda x: x + 5]
    y = droppath.drop_path_stack(np.ones(1), branches, np.array([True, True]), [0.5, 0.0])
    assert y.tolist() == [(1 + 2) * 2 + 5]


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"rates": [0.5]}, "rates must be a list of 4 rates, got [0.5]"),
        ({"rates": [0.5, 2.0, 0.5, 0.5]}, "rates must be a number in [0, 1], got 2.0"),
        ({"plan": PLAN[:3]}, "plan must be bool of shape (4,), got bool of (3,)"),
        ({"plan": PLAN * 1.0}, "plan must be bool of shape (4,), got float64 of (4,)"),
        ({"plan": None}, "key must be given to drop in training, or plan, got none"),
        ({"branches": [np.negative, None, 0, 0]}, "branches must be callable, got None"),
        ({"x": np.arange(3)}, "x must be "),
        ({"training": 1}, "training must be "),
        ({"scale_at": "never"}, "scale_at must be "),
    ],
)
def test_what_is_wrong_is_named(changes, text):
    right = {"x": np.ones(3), "branches": [np.negative] * 4, "plan": PLAN, "rates": RATES}
    with pytest.raises(ValueError) as error:
        droppath.drop_path_stack(**right | changes)
    assert str(error.value).startswith(text)
