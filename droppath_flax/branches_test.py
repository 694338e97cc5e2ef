"""What goes into a branch beside x, and into its DropPath, and where it may begin.

Not here: which branches are skipped (skipping_test.py, proof_test.py).
"""

import re
from functools import cache

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from droppath_flax import DropPath, skip_dropped
from droppath_flax.skipping_test import (
    ROWS,
    TOKENS,
    WIDTH,
    B,
    Probe,
    assert_agree,
    drops_of,
    example,
    made,
    reasons,
    rows_in,
)


class Given(nnx.Module):
    """A branch with a mask of each sample, and rotary tables, also of each sample."""

    def __init__(self, p=0.4, *, rngs):
        self.norm, self.mix = nnx.LayerNorm(WIDTH, rngs=rngs), Mix(rngs=rngs)
        self.drop_path, self.probe = DropPath(p, mode="balanced", rngs=rngs), Probe()

    def __call__(self, x, mask=None, tables=None):
        return x + self.drop_path(self.probe(self.mix(self.norm(x), mask, tables=tables)))


class Mix(nnx.Module):
    def __init__(self, *, rngs):
        self.linear = nnx.Linear(WIDTH, WIDTH, rngs=rngs)

    def __call__(self, x, mask, tables=None):  # mask: [B or 1, tokens]; tables: [B, tokens, width]
        y = self.linear(x)
        y = y if mask is None else y * mask[..., None]
        return y if tables is None else y * tables[0] + tables[1]


def by_sample():
    mask = jax.random.bernoulli(jax.random.key(1), 0.5, (B, TOKENS))
    tables = jax.random.normal(jax.random.key(2), (2, B, TOKENS, WIDTH))
    return mask, tuple(tables)


def first_line(error):
    return str(error.value).split("\n")[0]  # JAX adds more where it traces


@cache
def skipped_given():
    return skip_dropped(made(Given), example(), *by_sample())


def test_per_sample_arguments_follow_their_rows():
    model = nnx.clone(skipped_given())
    assert reasons(model) == [""]
    assert_agree(model, made(Given), example(), *by_sample())
    assert rows_in(model, example(), mask=by_sample()[0]) == [ROWS]


def test_an_argument_of_all_samples_stays_whole():
    model = nnx.clone(skipped_given())
    assert rows_in(model, example(), mask=jnp.ones((1, TOKENS))) == [ROWS]
    assert rows_in(model, example()) == [ROWS]


def test_an_argument_of_each_sample_that_the_example_lacked_is_refused():
    model = skip_dropped(made(Given), example())
    text = "1 of Mix must be in skip_dropped's example to be given by sample, got (10, 3)"
    with pytest.raises(ValueError, match=f"^{re.escape(text)}") as error:
        rows_in(model, example(), mask=by_sample()[0])
    assert first_line(error) == text
    assert rows_in(model, example(), mask=jnp.ones((1, TOKENS))) == [ROWS]


class Handing(nnx.Module):
    """As NNX code hands on what it is given; `literal` is what it makes up itself."""

    def __init__(self, literal=None, *, rngs):
        self.linear, self.probe = nnx.Linear(WIDTH, WIDTH, rngs=rngs), Probe()
        self.drop_path, self.literal = DropPath(0.4, mode="balanced"), literal

    def __call__(self, x, *, deterministic=None, rngs=None, key=None):
        given = {"deterministic": deterministic, "rngs": rngs, "key": key}
        if self.literal is not None:
            given["deterministic"] = self.literal
        return x + self.drop_path(self.probe(self.linear(x)), **given)


@cache
def skipped_handing():
    rngs = nnx.Rngs(dropout=3)
    model = skip_dropped(made(Handing), example(), deterministic=False, rngs=rngs)
    assert int(rngs.dropout.count[...]) == 0  # the example's stream is not advanced
    return model


def test_what_a_block_hands_to_its_drop_path_is_known_where_the_branch_begins():
    model, x = nnx.clone(skipped_handing()), example()
    assert reasons(model) == [""]
    rngs = [nnx.Rngs(dropout=5), nnx.Rngs(dropout=5)]
    got, want = (m(x, rngs=r) for m, r in zip((model, made(Handing)), rngs, strict=True))
    assert (got != x).any()
    assert jnp.allclose(got, want, atol=1e-5)
    assert [int(r.dropout.count[...]) for r in rngs] == [1, 1]
    assert rows_in(model, x, key=jax.random.key(0)) == [ROWS]
    assert rows_in(model, x, deterministic=True) == [B]


def test_what_a_block_makes_up_for_its_drop_path_leaves_the_branch_masked():
    model = skip_dropped(made(Handing, literal=False), example(), key=jax.random.key(0))
    assert reasons(model) == [
        "its call is given deterministic, which is no argument of its block by that name"
    ]


def test_what_is_handed_in_training_otherwise_than_in_the_example_is_refused():
    model = nnx.clone(skipped_handing())
    model.literal = False
    with pytest.raises(RuntimeError) as error:
        rows_in(model, example(), key=jax.random.key(0))
    assert first_line(error) == (
        "deterministic of DropPath must be what it was in skip_dropped's example: an argument of "
        "its block by the same name, or nothing"
    )


class Branching(Given):
    def __call__(self, x, mask=None, tables=None):
        y = self.mix(self.norm(x), mask, tables=tables)
        return y if self.short else x + self.drop_path(y)


def test_a_way_that_the_example_did_not_take_is_told():
    model = made(Branching)
    model.short = False
    skip_dropped(model, example())
    model.short = True
    with pytest.raises(RuntimeError) as error:
        rows_in(model, example())
    assert first_line(error) == (
        "Branching must take the way of skip_dropped's example: a branch began and did not come to "
        "its DropPath"
    )


def test_what_is_called_outside_of_its_block_gets_all_rows():
    block = nnx.clone(skipped_given())
    assert len(block.mix(block.norm(example()), None)) == B


def test_a_branch_that_begins_within_another_module_has_its_name():
    class Outside(nnx.Module):
        """The block's code lies in its owner."""

        def __init__(self, *, rngs):
            self.parts = nnx.Dict(given=Given(rngs=rngs))

        def __call__(self, x):
            part = self.parts["given"]
            return x + part.drop_path(part.probe(part.mix(part.norm(x), None)))

    model = skip_dropped(made(Outside), example())
    assert reasons(model) == [""]
    assert drops_of(model)[0].skips_from == ("parts.given.norm",)
    assert rows_in(model, example()) == [ROWS]
