"""What goes into a branch beside x, hooks of others, and what skip_dropped refuses.

Not here: which branches are skipped (skipping_test.py, proof_test.py).
"""

import copy
import re

import numpy as np
import pytest
import torch
from torch import nn

import droppath
from droppath_torch import DropPath, DropPathResidual, keyed, skip_dropped
from droppath_torch.skipping_test import (
    CLOSE,
    HEADS,
    KEY,
    TOKENS,
    WIDTH,
    Attention,
    B,
    Block,
    assert_agree,
    example,
    made,
    reasons,
    rows_in,
)


class Stack(nn.Module):
    """Blocks that all get the same further arguments."""

    def __init__(self, blocks):
        super().__init__()
        self.blocks = blocks

    def forward(self, x, **options):
        for block in self.blocks:
            x = block(x, **options)
        return x


def double(*shape):
    return torch.randn(shape, dtype=torch.double)


def by_sample(batch=B):
    mask = torch.rand(batch, 1, TOKENS, TOKENS) < 0.5
    mask[..., 0] = True
    angles = double(batch, TOKENS, WIDTH // HEADS)
    return {"mask": mask}, {"tables": (angles.cos(), angles.sin())}


@pytest.mark.parametrize("index", [0, 1])
def test_per_sample_arguments_follow_their_rows(index):
    masked, x, given = Stack(made(Block)), example(Block()), by_sample()[index]
    skipped = copy.deepcopy(masked)
    skip_dropped(skipped, x, **given)
    assert reasons(skipped) == [""] * 4
    assert_agree(skipped, masked, x, **given)
    assert_agree(skipped, masked, x[:6], **by_sample(6)[index])


@pytest.mark.parametrize("batch", [B, 4])
def test_an_argument_of_all_samples_stays_whole_also_if_its_axis_is_as_long_as_the_batch(batch):
    masked, x = Stack(made(Block)), example(Block(), batch)
    rows = {"mask": torch.rand(1, 1, 1, TOKENS) < 0.8}
    heads = {"bias": double(HEADS, TOKENS, TOKENS)}
    for given in (rows, heads):
        skipped = skip_dropped(copy.deepcopy(masked), x, **given)
        assert reasons(skipped) == [""] * 4
        assert_agree(skipped, masked, x, **given)


def test_a_table_of_as_many_heads_as_samples_is_not_taken_for_one_of_samples():
    class Heads(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.mix, self.drop_path = nn.LayerNorm(4), Mix(), DropPath(0.4)

        def forward(self, x, table):
            return x + self.drop_path(self.mix(self.norm(x), table))

    class Mix(nn.Module):
        def forward(self, x, table):  # [B, heads, tokens, 4], [heads, tokens, tokens]
            return table @ x

    masked = Heads().double()
    skipped, x, table = copy.deepcopy(masked), double(4, 4, TOKENS, 4), double(4, TOKENS, TOKENS)
    skip_dropped(skipped, x, table)
    assert skipped.drop_path.why_masked == ""
    assert_agree(skipped, masked, x, table)
    assert_agree(skipped, masked, double(7, 4, TOKENS, 4), table)


def test_an_argument_of_each_sample_that_the_example_lacked_is_refused():
    model, x = Stack(made(Block)), example(Block())
    skip_dropped(model, x)
    must = "mask of Attention must be in skip_dropped's example to be given by sample"
    text = f"{must}, got (9, 1, 5, 5)"
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        model(x, **by_sample()[0])
    model(x, mask=torch.ones(TOKENS, TOKENS, dtype=torch.bool))
    assert_agree(model, skip_dropped(copy.deepcopy(model), undo=True), x)


def test_a_way_that_the_example_did_not_take_is_told():
    class Branching(Block):
        def forward(self, x):
            y = self.attn(self.norm1(x))
            return y if self.short else x + self.drop_path1(y)

    model = Branching().double()
    model.short = False
    skip_dropped(model, example(model))
    model.short = True
    with pytest.raises(RuntimeError) as error:
        model(example(model))
    assert str(error.value) == (
        "Branching must take the way of skip_dropped's example: a branch began and did not come to "
        "its DropPath"
    )
    model.short = False
    model(example(model))


def test_what_is_called_outside_of_its_block_gets_all_rows():
    model, x = made(Block), example(Block())
    skip_dropped(model, x)
    assert rows_in(model[0].attn, lambda: model[0].attn(model[0].norm1(x))) == [B]
    assert model[0].norm1(x).shape == x.shape


def test_a_branch_that_changes_its_rows_on_another_way_is_told():
    model, x = made(Block), example(Block())
    skip_dropped(model, x)
    model[0].attn.register_forward_hook(lambda _, __, y: torch.cat([y, y]))
    with pytest.raises(ValueError, match=r"^x must have the [56] rows that its branch began"):
        model(x)


def test_hooks_of_others_go_on():
    model, x, seen = made(Block), example(Block()), []

    def before(module, args):
        seen.append(("before", len(args[0])))

    def after(module, args, y):
        seen.append(("after", len(args[0]), len(y)))
        return 2 * y

    block = model[0]
    handles = [
        block.norm1.register_forward_pre_hook(before),
        block.drop_path1.register_forward_hook(after),
        block.register_forward_hook(after),
    ]
    masked = copy.deepcopy(model)
    skip_dropped(model, x)
    assert reasons(model) == [""] * 4
    assert_agree(model, masked, x)
    seen.clear()
    with keyed(model, KEY):
        model(x)
    kept = int(droppath.keep_mask(droppath.fold_in(KEY, 0), 0.4, B, mode="balanced").sum())
    assert seen == [("before", B), ("after", kept, B), ("after", B, B)]
    for handle in handles:
        handle.remove()
    skip_dropped(model, undo=True)
    skip_dropped(masked, x)
    torch.testing.assert_close(model.eval()(x), made(Block).eval()(x), **CLOSE)


def test_a_hook_of_ours_is_not_taken_off_by_another_models_undo():
    model, x = made(Block), example(Block())
    other = copy.deepcopy(skip_dropped(model, x))
    skip_dropped(other, undo=True)
    assert rows_in(model[0].attn, lambda: model(x))[0] < B


X = torch.ones(B, TOKENS, WIDTH)
NO_DROP_PATH = (
    "model must hold a DropPath of droppath_torch beside residual blocks, got none: convert(model) "
    "makes them of other libraries'"
)


@pytest.mark.parametrize(
    ("make", "arguments", "options", "text"),
    [
        (lambda: None, (X,), {}, "model must be a torch.nn.Module, got NoneType"),
        (lambda: nn.Linear(2, 2), (X,), {}, NO_DROP_PATH),
        (lambda: DropPathResidual(torch.neg, 0.5), (X,), {}, NO_DROP_PATH),
        (Block, (X,), {"undo": "no"}, "undo must be True or False, got 'no'"),
        (Block, (), {"undo": True}, "model must have been skipped to be undone"),
        (Block, (X,), {"undo": True}, "example must not be given with undo=True"),
        (lambda: skip_dropped(Block(), X), (X,), {}, "model must not be skipped: undo it first"),
        (
            lambda: Block().eval(),
            (X,),
            {},
            "model must be in training mode, got one in evaluation mode",
        ),
        (Block, (X[:3],), {}, "example must hold at least 4 samples, got 3"),
    ],
)
def test_what_cannot_be_skipped_is_refused_by_name(make, arguments, options, text):
    model = make()
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        skip_dropped(model, *arguments, **options)


@pytest.mark.parametrize("wrong", [X[..., :3], X.to(torch.int64), "x", None])
def test_an_example_that_the_model_refuses_raises_its_error_and_changes_nothing(wrong):
    model = made(Block).float()
    before = [{**vars(m), "_forward_hooks": 0} for m in model.modules()]
    with pytest.raises((RuntimeError, TypeError)) as theirs:
        model(wrong)
    with pytest.raises(theirs.type) as ours:
        skip_dropped(model, wrong)
    assert str(ours.value) == str(theirs.value)
    after = [{**vars(m), "_forward_hooks": 0} for m in model.modules()]
    assert [m.keys() for m in before] == [m.keys() for m in after]
    assert not any(m._forward_pre_hooks or m._forward_hooks for m in model.modules())
    assert [m.drop_prob for m in model.modules() if isinstance(m, DropPath)] == [0.4] * 4
    assert reasons(skip_dropped(model, X + torch.randn(X.shape))) == [""] * 4


def test_a_mask_given_at_the_call_is_refused_where_the_branch_is_skipped():
    model, x = made(Block), example(Block())
    skip_dropped(model, x)
    drop, forward = model[0].drop_path1, model[0].drop_path1.forward
    keep = torch.ones(B, dtype=torch.bool)
    for name, value in (("key", KEY), ("keep", keep), ("offset", 8)):
        drop.forward = lambda y, given={name: value}: forward(y, **given)
        with pytest.raises(ValueError, match=f"^{name} must not be given where a branch is skipp"):
            model(x)
    assert np.all(droppath.key(3) == KEY)


def test_an_attention_that_returns_more_than_one_tensor_is_skipped():
    class Pair(Attention):
        def forward(self, x):
            return super().forward(x), x.mean()

    class Paired(Block):
        def forward(self, x):
            return x + self.drop_path1(self.attn(self.norm1(x))[0])

    masked = Paired()
    masked.attn = Pair()
    masked.double()
    skipped, x = copy.deepcopy(masked), example(masked)
    skip_dropped(skipped, x)
    assert skipped.drop_path1.why_masked == ""
    assert_agree(skipped, masked, x)


def test_a_block_that_returns_what_its_branch_saw_stays_masked():
    class Telling(Block):
        def forward(self, x):
            y = self.attn(self.norm1(x))
            return x + self.drop_path1(y), y

    model = Telling().double()
    skip_dropped(model, example(model))
    assert model.drop_path1.why_masked.startswith("output 1 has the shape (5, 5, 8), masking's")
