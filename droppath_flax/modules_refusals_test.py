"""What an NNX module refuses, at construction and at a call, and that it draws nothing then."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from droppath_flax.modules import DropPath, DropPathResidual

BATCH = 32
ONES = jnp.ones((BATCH, 2))


@pytest.mark.parametrize(
    ("change", "text"),
    [
        *(
            ({"drop_prob": p}, f"drop_prob must be a number in [0, 1], got {p!r}")
            for p in (-0.1, 1.5, float("nan"), None, "0.1", True)
        ),
        (
            {"drop_prob": jnp.float32([0.1])},
            "drop_prob must be a floating scalar, got float32 of shape (1,)",
        ),
        ({"mode": "rows"}, "mode must be one of 'row', 'balanced', 'batch', got 'rows'"),
        ({"scale_at": "test"}, "scale_at must be one of 'train', 'eval', got 'test'"),
        ({"axis": 0.5}, "axis must be an integer, got 0.5"),
        ({"groups": 0}, "groups must divide the batch, got groups=0 for batch=0"),
        ({"scale_by_keep": "no"}, "scale_by_keep must be True or False, got 'no'"),
        ({"deterministic": None}, "deterministic must be True or False, got None"),
        ({"rng_collection": 5}, "rng_collection must be a text, got 5"),
        (
            {"rngs": nnx.Rngs(params=0)},
            "rngs must have a stream 'dropout', or 'default', got params",
        ),
    ],
)
def test_what_cannot_be_constructed_is_refused(change, text):
    for made in (DropPath, partial(DropPathResidual, jnp.negative)):
        with pytest.raises(ValueError) as error:
            made(**{"drop_prob": 0.1, **change})
        assert str(error.value) == text


def test_a_branch_that_cannot_be_called_is_refused_at_construction():
    with pytest.raises(ValueError, match=r"^branch must be callable, got None$"):
        DropPathResidual(None)


BLOCK = partial(DropPathResidual, jnp.negative)
BAD_CALLS = [
    ("x", {"x": "x"}),
    ("x", {"x": jnp.ones(())}),
    ("offset", {"offset": -1}),
    ("offset", {"offset": 0.5}),
    ("deterministic", {"deterministic": "no"}),
]
BAD_OPTIONS = [
    ("groups", {"groups": 3}),
    ("groups", {"groups": 1, "mode": "balanced", "drop_prob": jnp.float32(0.1)}),
    ("x", {"axis": 2}),
    ("mode", {"mode": "rows"}),
    ("scale_by_keep", {"scale_by_keep": "no"}),
    ("drop_prob", {"drop_prob": 2.0}),
    ("rng_collection", {"rng_collection": 5}),
]
BAD_BLOCKS = [
    ("skip", {"skip": 1}, ()),
    ("skip", {"skip": True, "mode": "row"}, ()),
    ("branch", {"branch": None}, ()),
    ("per_sample", {}, (jnp.ones(BATCH - 1),)),
]


@pytest.mark.parametrize(
    ("made", "name", "options", "per_sample", "call"),
    [
        *((made, name, {}, (), call) for made in (DropPath, BLOCK) for name, call in BAD_CALLS),
        *((made, name, options, (), {}) for made in (DropPath, BLOCK)
          for name, options in BAD_OPTIONS),
        *((BLOCK, name, options, given, {}) for name, options, given in BAD_BLOCKS),
    ],
)  # fmt: skip
def test_a_call_that_is_refused_draws_nothing(made, name, options, per_sample, call):
    drop = made(0.37, rngs=nnx.Rngs(0))
    for option, value in options.items():
        setattr(drop, option, value)
    large = isinstance(drop.drop_prob, jax.Array)  # too many rows for a group of a traced rate
    x = call.get("x", jnp.ones((2**20, 1)) if large else ONES)
    with pytest.raises(ValueError, match=rf"^{name} must"):
        drop(x, *per_sample, **{k: v for k, v in call.items() if k != "x"})
    assert drop.rngs.count[...] == 0


def test_a_key_that_cannot_be_indexed_is_refused_before_it_is_drawn():
    drop = DropPath(0.37, rngs=nnx.Rngs(dropout=jax.random.key(0, impl="rbg")))
    with pytest.raises(ValueError, match=r"^offset must be 0 for a key of rbg$"):
        drop(ONES, offset=8)
    assert drop.rngs.count[...] == 0
    drop(ONES)
    assert drop.rngs.count[...] == 1


def test_a_rate_out_of_range_that_is_assigned_is_refused_at_the_call():
    drop = DropPath(0.1)
    drop.drop_prob = 1.5
    with pytest.raises(ValueError, match=r"^drop_prob must be a number in \[0, 1\], got 1.5$"):
        drop(ONES, key=jax.random.key(0))


def test_a_call_in_training_without_a_source_is_refused():
    for drop_prob in (0.1, jnp.float32(0)):
        text = "^key must be given to drop in training, or keep or rngs, got none$"
        with pytest.raises(ValueError, match=text):
            DropPath(drop_prob)(ONES)


@pytest.mark.parametrize("rngs", [7, "dropout", [nnx.Rngs(0)]])
def test_rngs_of_another_kind_are_refused(rngs):
    name = type(rngs).__name__
    with pytest.raises(TypeError) as error:
        DropPath(0.1, rngs=rngs)
    assert str(error.value) == f"rngs must be Rngs, an RngStream or None, got {name}"
    with pytest.raises(TypeError) as error:
        DropPath(0.1)(ONES, rngs=rngs)
    assert str(error.value) == f"rngs must be Rngs, an RngStream or a key, got {name}"


@pytest.mark.parametrize(
    ("rngs", "text"),
    [
        (nnx.Rngs(params=0), "rngs must have a stream 'dropout', or 'default', got params"),
        (
            np.zeros(2),
            "rngs must be uint32 of shape (2,), such as droppath.key(7), got float64 of (2,)",
        ),
        (
            jnp.zeros(3, jnp.uint32),
            "rngs must be uint32 of shape (2,), such as droppath.key(7), got uint32 of (3,)",
        ),
        (
            jax.random.split(jax.random.key(0)),
            "rngs must be one key, got keys of shape (2,)",
        ),
    ],
)
def test_rngs_that_give_no_key_are_refused_by_their_name(rngs, text):
    with pytest.raises(ValueError) as error:
        DropPath(0.1)(ONES, rngs=rngs)
    assert str(error.value) == text


def test_a_stream_of_many_keys_is_refused_before_it_is_drawn():
    rngs = nnx.Rngs(dropout=jax.random.split(jax.random.key(0), 3))
    with pytest.raises(ValueError, match=r"^rngs must be one key, got keys of shape \(3,\)$"):
        DropPath(0.1)(ONES, rngs=rngs)
    assert not rngs.dropout.count[...].any()
