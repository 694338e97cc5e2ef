"""skip_dropped: what runs, and that the numbers are masking's, on small models of others' form.

The blocks are written as one writes those of ViT, Swin and ConvNeXt in NNX. Not here: what is
refused or stays masked (proof_test.py); transforms (skipping_transforms_test.py).
"""

import copy
import pickle
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import droppath
from droppath_flax import DropPath, skip_dropped
from droppath_flax.order import modules_of

B, TOKENS, WIDTH, HEADS, P = 10, 3, 8, 2, 0.4
ROWS = droppath.kept_capacity(P, B)
CLOSE = {"rtol": 1e-4, "atol": 1e-5}  # float32; sums over other shapes round otherwise
QUICK = {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else None
SEEN = []  # the batch sizes that probes were given


class Probe(nnx.Module):
    def __call__(self, x):
        SEEN.append(len(x))
        return x


class Block(nnx.Module):
    """As in timm: an attention and a perceptron, each behind a norm, with a DropPath of its own."""

    def __init__(self, p=P, mode="balanced", dropout=0.0, *, rngs):
        self.norm1, self.norm2 = nnx.LayerNorm(WIDTH, rngs=rngs), nnx.LayerNorm(WIDTH, rngs=rngs)
        self.attn = nnx.MultiHeadAttention(HEADS, WIDTH, decode=False, rngs=rngs)
        self.gamma = nnx.Param(jnp.full(WIDTH, 1e-5))
        self.fc1 = nnx.Linear(WIDTH, 2 * WIDTH, rngs=rngs)
        self.dropout = nnx.Dropout(dropout, rngs=rngs)
        self.fc2, self.probe = nnx.Linear(2 * WIDTH, WIDTH, rngs=rngs), Probe()
        self.drop_path1 = DropPath(p, mode=mode, rngs=rngs)
        self.drop_path2 = DropPath(p, mode=mode, rngs=rngs)

    def __call__(self, x, mask=None):
        x = x + self.drop_path1(self.gamma * self.attn(self.norm1(x), mask=mask))
        y = self.dropout(nnx.gelu(self.fc1(self.norm2(x))))
        return x + self.drop_path2(self.probe(self.fc2(y)))


class Twice(nnx.Module):
    """As in transformers: one DropPath, two branches, and a factor that is no module's."""

    def __init__(self, p=P, *, rngs):
        self.norm1, self.norm2 = nnx.LayerNorm(WIDTH, rngs=rngs), nnx.LayerNorm(WIDTH, rngs=rngs)
        self.mix, self.mlp = (nnx.Linear(WIDTH, WIDTH, rngs=rngs) for _ in range(2))
        self.drop_path = DropPath(p, mode="balanced", rngs=rngs)

    def __call__(self, x):
        hidden = self.drop_path(0.5 * self.mix(self.norm1(x))) + x
        return self.drop_path(self.mlp(self.norm2(hidden))) + hidden


class Convolved(nnx.Module):
    """As in ConvNeXt: a convolution for each channel, a norm, a perceptron."""

    def __init__(self, p=P, *, rngs):
        self.conv = nnx.Conv(4, 4, (3, 3), feature_group_count=4, rngs=rngs)
        self.norm, self.mlp = nnx.LayerNorm(4, rngs=rngs), nnx.Linear(4, 4, rngs=rngs)
        self.drop_path = DropPath(p, mode="balanced", groups=2, rngs=rngs)

    def __call__(self, x):
        return x + self.drop_path(nnx.gelu(self.mlp(self.norm(self.conv(x)))))


class Parallel(nnx.Module):
    """As in timm: each branch is a Sequential that ends in its DropPath."""

    def __init__(self, p=P, *, rngs):
        branches = []
        for _ in range(2):
            norm, linear = nnx.LayerNorm(WIDTH, rngs=rngs), nnx.Linear(WIDTH, WIDTH, rngs=rngs)
            drop_path = DropPath(p, mode="balanced", rngs=rngs)
            branches.append(nnx.Sequential(norm, linear, drop_path))
        self.branches = nnx.List(branches)

    def __call__(self, x):
        return x + sum(branch(x) for branch in self.branches)


class Stack(nnx.Module):
    """Blocks that all get the same further arguments."""

    def __init__(self, *blocks):
        self.blocks = nnx.List(blocks)

    def __call__(self, x, *given, **named):
        for block in self.blocks:
            x = block(x, *given, **named)
        return x


def example(make=Block, batch=B):
    shape = (batch, 5, 5, 4) if make is Convolved else (batch, TOKENS, WIDTH)
    return jax.random.normal(jax.random.key(7), shape)


def made(make, count=1, **options):
    """A block of this class, or several in a row."""
    rngs = nnx.Rngs(0, dropout=1)
    blocks = [make(rngs=rngs, **options) for _ in range(count)]
    return blocks[0] if count == 1 else Stack(*blocks)


@cache
def _skipped(make, count):
    return skip_dropped(made(make, count), example(make))


def skipped(make=Block, count=1):
    """A new copy of a model of such blocks that skips; the trial is held once."""
    return nnx.clone(_skipped(make, count))


def drops_of(model):
    return [module for module in modules_of(model).values() if isinstance(module, DropPath)]


def reasons(model):
    return [drop.why_masked for drop in drops_of(model)]


@partial(jax.jit, static_argnums=0, compiler_options=QUICK)
def step(graphdef, params, rest, x, *given):
    def loss(params, x):
        model = nnx.merge(graphdef, params, jax.tree.map(lambda leaf: leaf, rest))
        y = model(x, *given)
        return (y * jnp.linspace(-1, 1, y.size).reshape(y.shape)).sum(), y

    (_, y), grads = jax.value_and_grad(loss, (0, 1), has_aux=True)(params, x)
    return y, grads


def results(model, x, *given):
    """What a step gives: the output, and the gradients of x and of all parameters."""
    return jax.tree.leaves(step(*nnx.split(model, nnx.Param, ...), x, *given))


def assert_agree(one, other, x, *given):
    pairs = list(zip(results(one, x, *given), results(other, x, *given), strict=True))
    assert len(pairs) > 3
    for got, want in pairs:
        np.testing.assert_allclose(got, want, **CLOSE)
    assert (pairs[0][1] != x).any()


def rows_in(model, x, **given):
    """The batch sizes that the probes of a model are given; it is traced, and not run."""
    graphdef, state = nnx.split(model)
    SEEN.clear()
    jax.eval_shape(lambda state, x: nnx.merge(graphdef, state)(x, **given), state, x)
    return SEEN.copy()


STARTS = {
    Block: [("norm1",), ("norm2",)],
    Twice: [("norm1", "norm2")],
    Convolved: [("conv",)],
    Parallel: [("layers.0",), ("layers.0",)],
}


@pytest.mark.parametrize("make", STARTS)
def test_a_branch_is_skipped_and_the_numbers_are_those_of_masking(make):
    model, masked = skipped(make), made(make)
    assert reasons(model) == [""] * len(STARTS[make])
    assert reasons(masked) == [None] * len(STARTS[make])
    assert [drop.skips_from for drop in drops_of(model)] == STARTS[make]
    assert_agree(model, masked, example(make))


@pytest.mark.parametrize("options", [{"scale_by_keep": False}, {"scale_at": "eval"}, {"groups": 3}])
def test_options_are_those_of_the_drop_path_and_spare_rows_count_for_nothing(options):
    x, both = example(Twice, 9), [skipped(Twice), made(Twice)]  # 6 rows run, of which 5 or 6 count
    for model in both:
        for name, value in options.items():
            setattr(model.drop_path, name, value)
    assert_agree(*both, x)


def test_the_branch_runs_on_as_many_rows_as_may_be_kept():
    model = skipped()
    assert (ROWS, droppath.kept_capacity(P, 9)) == (6, 6)  # of 9, 3 or 4 are dropped
    assert rows_in(model, example()) == [ROWS]
    assert rows_in(model, example(batch=9)) == [6]
    assert rows_in(model, example(batch=2)) == [2]  # 0 or 1 dropped: nothing to leave out
    assert rows_in(nnx.view(model, deterministic=True), example()) == [B]


def test_evaluation_and_rates_of_0_and_of_arrays_run_all_rows_and_a_rate_of_1_runs_one():
    model, x = skipped(), example()
    model.eval()
    assert rows_in(model, x) == [B]
    masked = made(Block)
    masked.eval()
    np.testing.assert_array_equal(model(x), masked(x))
    model.train()
    for rate, rows in ((0.0, B), (jnp.float32(0.5), B), (1.0, 1)):
        one = nnx.clone(model)
        for drop in drops_of(one):
            drop.drop_prob = nnx.data(rate) if isinstance(rate, jax.Array) else rate
        assert rows_in(one, x) == [rows]
    np.testing.assert_array_equal(results(one, x)[0], x)
    for drop in drops_of(model):
        drop.mode = "row"
    assert rows_in(model, x) == [B]


def test_state_is_as_before_and_equal_blocks_stay_equal():
    model, before = skipped(count=2), made(Block, 2)
    graphdef, state = nnx.split(model)
    want = nnx.split(before)[1]
    assert jax.tree.structure(state) == jax.tree.structure(want)
    for got, leaf in zip(jax.tree.leaves(state), jax.tree.leaves(want), strict=True):
        assert got.dtype == leaf.dtype
        assert (got == leaf).all()  # counts of streams too
    assert graphdef == nnx.graphdef(skipped(count=2))
    assert nnx.graphdef(model.blocks[0]) == nnx.graphdef(model.blocks[1])
    assert hash(graphdef) == hash(nnx.graphdef(skipped(count=2)))
    assert isinstance(model.blocks[0], Block)
    assert type(model.blocks[0]).__name__ == "Block"


def test_undone_it_is_as_it_was_and_can_be_skipped_again():
    model = skipped()
    assert skip_dropped(model, undo=True) is model
    assert nnx.graphdef(model) == nnx.graphdef(made(Block))
    assert type(model) is Block
    assert reasons(skip_dropped(model, example())) == ["", ""]


def pickled(model):
    return pickle.loads(pickle.dumps(model))


def merged(model):
    return nnx.merge(*nnx.split(model))


@pytest.mark.parametrize("copied", [nnx.clone, copy.deepcopy, merged, pickled])
def test_a_copy_skips_by_itself(copied):
    model = skipped()
    other = copied(model)
    assert nnx.graphdef(other) == nnx.graphdef(model)
    assert rows_in(other, example()) == [ROWS]
    skip_dropped(other, undo=True)
    assert rows_in(other, example()) == [B]
    assert rows_in(model, example()) == [ROWS]


def test_nothing_of_a_dropped_row_reaches_another():
    x = example(Convolved)
    y = skipped(Convolved)(x)
    dropped = np.flatnonzero((y == x).all((1, 2, 3)))
    assert len(dropped) == 4  # of each 5 rows 2: no spare runs
    poisoned = results(skipped(Convolved), x.at[dropped].set(jnp.nan))
    others = np.setdiff1d(np.arange(B), dropped)
    np.testing.assert_allclose(poisoned[0][others], y[others], **CLOSE)
    assert all(np.isfinite(grad).all() for grad in poisoned[1:-1])  # of parameters


def flops(model):
    lowered = step.lower(*nnx.split(model, nnx.Param, ...), example())
    return lowered.compile().cost_analysis()["flops"]


def test_a_step_takes_the_share_of_the_operations_that_the_kept_rows_are():
    assert flops(skipped()) / flops(made(Block)) == pytest.approx(ROWS / B, abs=0.03)


def test_a_branch_with_dropout_is_skipped_and_keeps_its_dropout():
    model = skip_dropped(made(Block, dropout=0.3), example())
    assert reasons(model) == ["", ""]
    assert model.dropout.rate == 0.3
    assert rows_in(model, example()) == [ROWS]


def test_a_drop_path_that_blocks_share_is_skipped_in_both():
    model = made(Twice, 2)
    model.blocks[1].drop_path = model.blocks[0].drop_path
    masked = nnx.clone(model)
    skip_dropped(model, example())
    assert reasons(model) == [""]
    assert drops_of(model)[0].skips_from == ("norm1", "norm2")
    assert_agree(model, masked, example())
