"""Where branches begin in blocks as libraries write them, each the smallest of its form."""

import copy

import torch
from torch import nn

from droppath_torch import DropPath, skip_dropped
from droppath_torch.skipping_test import WIDTH, B, assert_agree, example, reasons, rows_in


class Pooled(nn.Module):
    """As timm's PoolFormer: an Identity on the stream first, then a branch without matrices."""

    def __init__(self):
        super().__init__()
        self.res_scale, self.norm = nn.Identity(), nn.LayerNorm(WIDTH)
        self.drop_path = DropPath(0.4, mode="balanced")

    def forward(self, x):
        return self.res_scale(x) + self.drop_path(self.norm(x))


def test_an_Identity_on_the_stream_is_no_beginning_of_a_branch():
    masked = nn.Sequential(Pooled(), Pooled()).double()
    x, skipped = example(masked), copy.deepcopy(masked)
    skip_dropped(skipped, x)
    assert reasons(skipped) == ["", ""]
    assert rows_in(skipped[1].norm, lambda: skipped(x))[0] < B
    assert_agree(skipped, masked, x)


class Windows(nn.Module):
    """As Swin V2: attention within windows, which are other rows, and then a norm."""

    def __init__(self):
        super().__init__()
        self.attn, self.norm = nn.Linear(WIDTH, WIDTH), nn.LayerNorm(WIDTH)
        self.drop_path = DropPath(0.4, mode="balanced")

    def forward(self, x):
        windows = self.attn(x.flatten(0, 1))
        return x + self.drop_path(self.norm(windows.view(x.shape)))


def test_a_norm_after_what_cannot_be_skipped_is_not_worth_it():
    model = nn.Sequential(Windows()).double()
    skip_dropped(model, example(model))
    assert reasons(model) == ["its block calls no module with these rows before"]


class Dense(nn.Module):
    """As timm's RDNet: a block is given the list to which its result is then appended."""

    def __init__(self, features):
        super().__init__()
        self.norm, self.linear = nn.LayerNorm(features), nn.Linear(features, WIDTH)
        self.drop_path = DropPath(0.4, mode="balanced")

    def forward(self, features):
        return self.drop_path(self.linear(self.norm(torch.cat(features, -1))))


class Stage(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList([Dense(WIDTH), Dense(2 * WIDTH)])

    def forward(self, x):
        features = [x]
        for block in self.blocks:
            features.append(block(features))
        return sum(features)


def test_a_block_is_tried_on_the_list_as_it_was_when_it_was_called():
    masked = Stage().double()
    x, skipped = example(masked), copy.deepcopy(masked)
    skip_dropped(skipped, x)
    assert reasons(skipped) == ["", ""]
    assert rows_in(skipped.blocks[1].norm, lambda: skipped(x))[0] < B
    assert_agree(skipped, masked, x)
