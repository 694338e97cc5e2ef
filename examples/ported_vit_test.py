"""The losses of a ViT of timm's form and of its port, step by step; timm itself where it is."""

import importlib.util
import sys

import numpy as np
import pytest
import torch
from torch import nn

from droppath_torch import DropPath
from droppath_torch.surgery_test import layer
from examples import ported_vit
from examples.ported_vit import CLASSES, DEPTH, EPS, HEADS, PATCH, SIZE, STEPS, WIDTH, train_both


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.qkv, self.proj = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x):
        qkv = self.qkv(x).reshape(*x.shape[:2], 3, HEADS, -1).permute(2, 0, 3, 1, 4)
        y = nn.functional.scaled_dot_product_attention(*qkv)
        return self.proj(y.transpose(1, 2).reshape(x.shape))


class Mlp(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x):
        return self.fc2(nn.functional.gelu(self.fc1(x)))


class Block(nn.Module):
    """The first holds an Identity where others hold a DropPath, as timm's does."""

    def __init__(self, p):
        super().__init__()
        self.norm1, self.attn = nn.LayerNorm(WIDTH, EPS), Attention()
        self.drop_path1 = layer("DropPath", drop_prob=p) if p else nn.Identity()
        self.norm2, self.mlp = nn.LayerNorm(WIDTH, EPS), Mlp()
        self.drop_path2 = layer("DropPath", drop_prob=p) if p else nn.Identity()

    def forward(self, x):
        x = x + self.drop_path1(self.attn(self.norm1(x)))
        return x + self.drop_path2(self.mlp(self.norm2(x)))


class ViT(nn.Module):
    def __init__(self):
        super().__init__()
        tokens = (SIZE // PATCH) ** 2 + 1
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(1, WIDTH, PATCH, PATCH)})
        self.cls_token = nn.Parameter(torch.randn(1, 1, WIDTH) / 50)
        self.pos_embed = nn.Parameter(torch.randn(1, tokens, WIDTH) / 50)
        self.blocks = nn.ModuleList([Block(i / 10) for i in range(DEPTH)])
        self.norm, self.head = nn.LayerNorm(WIDTH, EPS), nn.Linear(WIDTH, CLASSES)

    def forward(self, x):
        x = self.patch_embed["proj"](x).flatten(2).mT
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], 1) + self.pos_embed
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x)[:, 0])


def timm_vit():
    if importlib.util.find_spec("timm") is None:
        pytest.skip("timm is not installed")
    return ported_vit.timm_vit()


@pytest.mark.parametrize("make", [ViT, timm_vit])
def test_both_train_to_the_same_losses_in_float64(make):
    torch.manual_seed(0)
    model = make()
    theirs, ours = train_both(model, STEPS)
    drops = [module for module in model.modules() if isinstance(module, DropPath)]
    assert [drop.why_masked for drop in drops] == [""] * 2 * DEPTH
    assert len(theirs) == 50
    np.testing.assert_allclose(ours, theirs, rtol=1e-12)
    assert theirs[-5:].mean() < 0.7 * theirs[:5].mean()  # it learns


def test_another_key_on_one_side_is_seen(monkeypatch):
    torch.manual_seed(0)
    monkeypatch.setattr(ported_vit.droppath_flax, "keyed", other_key)
    theirs, ours = train_both(ViT(), 3)
    assert (np.abs(theirs - ours) > 1e-6).all()


def other_key(model, key, keyed=ported_vit.droppath_flax.keyed):
    return keyed(model, key + np.uint32(1))


def test_weights_that_are_not_the_models_are_refused():
    model = ported_vit.ViT(ported_vit.nnx.Rngs(0))
    weights = {name: value.numpy() for name, value in ViT().state_dict().items()}
    with pytest.raises(ValueError, match="weights must be those of the model, got more too"):
        ported_vit.load_weights(model, {**weights, "more": np.ones(1)})
    del weights["head.bias"]
    with pytest.raises(ValueError, match=r"weights must have head\.bias, got none"):
        ported_vit.load_weights(model, weights)


def test_the_program_says_that_timm_is_missing(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "timm", None)
    monkeypatch.setitem(sys.modules, "timm.models.vision_transformer", None)
    assert ported_vit.main([]) == 2
    assert "pip install timm" in capsys.readouterr().err


def test_the_program_prints_a_table_of_the_losses(monkeypatch, capsys):
    monkeypatch.setattr(ported_vit, "timm_vit", ViT)
    assert ported_vit.main(["--steps", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["step", "0", "1", "largest"]
