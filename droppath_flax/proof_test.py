"""What skip_dropped refuses, and which branches stay masked, with the reason.

Not here: what is skipped (skipping_test.py).
"""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from droppath_flax import DropPath, DropPathResidual, skip_dropped
from droppath_flax.skipping_test import (
    WIDTH,
    B,
    Block,
    Stack,
    assert_agree,
    drops_of,
    example,
    made,
    reasons,
    rows_in,
    skipped,
)


class Simple(nnx.Module):
    """x + drop_path(branch(x)), for any branch."""

    def __init__(self, branch, mode="balanced", rate=0.4):
        self.branch = branch
        self.drop_path = DropPath(rate, mode=mode, rngs=nnx.Rngs(dropout=0))

    def __call__(self, x):
        return x + self.drop_path(self.branch(x))


class Function(nnx.Module):
    def __init__(self, f):
        self.f = f

    def __call__(self, x):
        return self.f(x)


def linear():
    return nnx.Linear(WIDTH, WIDTH, rngs=nnx.Rngs(0))


def why(module):
    """Why the one DropPath stays masked; the model is as it was but for that."""
    before = nnx.graphdef(module)
    skip_dropped(module, example())
    (reason,) = reasons(module)
    assert reason
    assert drops_of(module)[0].skips_from == ()
    skip_dropped(module, undo=True)
    assert nnx.graphdef(module) == before
    return reason


def test_what_mixes_the_samples_stays_masked():
    centred = nnx.Sequential(linear(), Function(lambda x: x - x.mean(0)))
    assert why(Simple(centred)) == "output 0 differs from masking's"


def test_batch_norm_is_named_and_what_comes_after_it_is_skipped():
    norm = nnx.BatchNorm(WIDTH, rngs=nnx.Rngs(0))
    reason = "BatchNorm mixes the samples: output 0 differs from masking's"
    assert why(Simple(nnx.Sequential(linear(), norm))) == reason

    class Later(Simple):
        def __call__(self, x):
            return x + self.drop_path(self.linear(self.branch(x)))

    model = Later(nnx.BatchNorm(WIDTH, rngs=nnx.Rngs(0)))
    model.linear = linear()
    masked = nnx.clone(model)
    skip_dropped(model, example())
    assert reasons(model) == [""]
    assert model.drop_path.skips_from == ("linear",)
    assert_agree(model, masked, example())


def test_statistics_of_a_branch_that_reach_no_output_are_seen():
    class Watching(nnx.Module):
        def __init__(self):
            self.mean = nnx.BatchStat(jnp.zeros(()))

        def __call__(self, x):
            self.mean[...] = x.mean()
            return x

    reason = why(Simple(nnx.Sequential(linear(), Watching())))
    assert reason == "state 0 differs from masking's"


def test_a_branch_of_zeros_shows_nothing():
    reason = why(Simple(nnx.Sequential(linear(), Function(jnp.zeros_like))))
    assert reason == "result 0 of drop_path is zero, which shows nothing"


def test_a_branch_without_a_module_before_stays_masked():
    class Bare(Simple):
        def __call__(self, x):
            return x + self.drop_path(jnp.tanh(x))

    assert why(Bare(None)) == "its block calls no module with these rows before"


def test_a_branch_that_reads_the_number_of_rows_before_it_begins_stays_masked():
    class Reading(Simple):
        def __call__(self, x):
            batch = len(x)
            return x + self.drop_path(self.branch(x).reshape(batch, -1, WIDTH))

    assert why(Reading(linear())).startswith("TypeError: cannot reshape array of shape ")


def test_a_branch_that_returns_more_than_its_rows_is_skipped_or_says_why():
    class Pair(nnx.Module):
        def __init__(self):
            self.linear = linear()

        def __call__(self, x):
            return self.linear(x), x

    class Second(Simple):
        def __call__(self, x):
            y, same = self.branch(x)
            return same + self.drop_path(y)

    assert why(Second(Pair())).startswith("TypeError: add got incompatible shapes")


def test_modes_and_rates_that_no_program_can_skip_are_told():
    assert why(Simple(linear(), mode="row")) == "mode is 'row'"
    assert why(Simple(linear(), mode="batch")) == "mode is 'batch'"
    assert why(Simple(linear(), rate=jnp.float32(0.4))) == "drop_prob is a JAX array"


def test_a_drop_path_that_is_not_called_and_one_within_a_branch_are_told():
    model = Simple(Simple(linear()))
    model.spare = DropPath(0.4, mode="balanced", rngs=nnx.Rngs(dropout=0))
    skip_dropped(model, example())
    assert [model.spare.why_masked, model.branch.drop_path.why_masked] == [
        "the example does not call it",
        "",
    ]
    assert model.drop_path.why_masked.startswith("the branch holds another DropPath: ")


def test_half_of_a_block_may_be_skipped():
    model = made(Block)
    model.drop_path1.mode = "row"
    masked = nnx.clone(model)
    skip_dropped(model, example())
    assert reasons(model) == ["mode is 'row'", ""]
    assert_agree(model, masked, example())


def test_what_passes_the_blocks_by_is_seen_in_the_whole_model():
    class Outer(Stack):
        """Takes the rows that a module has been given for the size of the batch."""

        def __call__(self, x):
            y = self.blocks[0](x)
            return y / self.blocks[0].branch.rows

    class Counting(nnx.Module):
        def __init__(self):
            self.linear, self.rows = linear(), nnx.static(B)

        def __call__(self, x):
            self.rows = len(x)
            return self.linear(x)

    model = Outer(Simple(Counting()))
    skip_dropped(model, example())
    text = "the blocks agree, but output 0 of the model differs from masking's"
    assert reasons(model) == [text]
    assert type(model.blocks[0]) is Simple


def refusal(model, *given, **options):
    before = nnx.graphdef(model) if isinstance(model, nnx.Module) else None
    with pytest.raises(ValueError) as error:
        skip_dropped(model, *given, **options)
    assert before is None or nnx.graphdef(model) == before
    return str(error.value)


def test_a_model_that_cannot_be_skipped_is_refused_by_name():
    x, model = example(), made(Block)
    no_module = "model must be a flax.nnx.Module, got int"
    none = "model must hold a DropPath of droppath_flax beside residual blocks, got none"
    assert refusal(5, x) == no_module
    assert refusal(linear(), x) == none
    assert refusal(DropPathResidual(linear(), 0.4), x) == none
    assert refusal(skipped(), x) == "model must not be skipped: undo it first"
    assert refusal(model, undo=True) == "model must have been skipped to be undone"
    assert refusal(skipped(), x, undo=True) == "example must not be given with undo=True"
    assert refusal(model, x[:3]) == "example must hold at least 4 samples, got 3"
    assert re.match("undo must be ", refusal(model, x, undo=None))
    model.eval()
    text = "model must be in training mode, got one in evaluation mode"
    assert refusal(model, x) == text


def test_what_the_model_raises_for_the_example_is_raised_and_nothing_is_changed():
    model = made(Block)
    before, state = nnx.split(model)
    with pytest.raises(TypeError, match="cannot reshape"):
        skip_dropped(model, jnp.ones((8, 3, WIDTH + 1)))
    graphdef, after = nnx.split(model)
    assert graphdef == before
    assert all((a == b).all() for a, b in zip(*map(jax.tree.leaves, (state, after)), strict=True))


def test_an_example_of_numpy_will_do():
    model = skip_dropped(Simple(linear()), np.asarray(example()))
    assert reasons(model) == [""]
    x = np.asarray(example())
    assert jnp.allclose(model(x)[0], x[0]) or (model(x) != x).any()
    assert rows_in(model, example()) == []
