"""The ViT: its patches, and branches that run on the images that are kept and no others."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import droppath
from examples.train_flax.model import build_model
from examples.train_flax.presets import PRESETS
from examples.train_flax.vit import Mlp, patches

CFG = dataclasses.replace(
    PRESETS["vit"], depth=2, width=12, groups=2, drop_path_rate=0.4, rule="uniform"
)
KEY = jax.random.key(5)
IMAGES = jax.random.normal(jax.random.key(1), (12, 8, 8, 1))


def model_of(**changed):
    return build_model(dataclasses.replace(CFG, **changed), (8, 8, 1), 10, KEY)


def test_patches_are_squares_row_by_row():
    x = jnp.arange(32).reshape(1, 4, 4, 2)  # channel 0 of a pixel is twice its place
    got = patches(x, 2)
    assert got.shape == (1, 4, 8)
    assert (got[0, :, ::2] // 2).tolist() == [[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13],
                                              [10, 11, 14, 15]]  # fmt: skip


def test_each_branch_drops_the_images_that_its_own_folded_key_says():
    keys = [droppath.fold_in(droppath.key(5), layer) for layer in range(4)]
    masks = [droppath.keep_mask(key, 0.4, 12, mode="balanced", groups=2) for key in keys]
    model = model_of()

    @jax.jit
    def branch_by_branch(words):
        x, whole = jax.random.normal(jax.random.key(2), (12, 4, 12)), []
        for residual, key in zip(model.residuals, words, strict=True):
            y = residual(x, key=key)
            whole.append((x == y).all((1, 2)))
            x = y
        return whole

    whole = branch_by_branch(np.array(keys))
    assert [passed_on.tolist() for passed_on in whole] == [(~mask).tolist() for mask in masks]
    assert len({tuple(mask) for mask in masks}) == 4


def test_a_branch_runs_on_as_many_images_as_may_be_kept(monkeypatch):
    rows = []
    call = Mlp.__call__
    monkeypatch.setattr(Mlp, "__call__", lambda self, x: (rows.append(len(x)), call(self, x))[1])
    jax.eval_shape(lambda: model_of()(IMAGES, key=KEY))
    # groups of 6 drop 2.4 on average: 2 or 3, so that at most 4 are kept in each
    assert rows == [8, 8] == [droppath.kept_capacity(0.4, 12, groups=2)] * 2


@pytest.mark.parametrize("mode", ["balanced", "batch"])
def test_computing_all_and_masking_gives_the_same_logits_and_gradient(mode):
    def both(skip):
        graphdef, state = nnx.split(model_of(depth=1, mode=mode, skip=skip))

        def loss(images):
            y = nnx.merge(graphdef, state, copy=True)(images, key=KEY)
            return (y**2).sum(), y

        return jax.jit(jax.grad(loss, has_aux=True))(IMAGES)

    for skipped, masked in zip(both(True), both(False), strict=True):
        assert np.abs(masked).max() > 1e-3
        np.testing.assert_allclose(skipped, masked, rtol=0, atol=1e-6)


def test_evaluation_needs_no_key_drops_nothing_and_tells_the_order_of_patches():
    model, constant = model_of(), model_of(drop_path_rate=0.0)
    model.eval()
    constant.eval()
    turned = jnp.roll(IMAGES, 4, axis=1)
    got, want, other = jax.jit(lambda: (model(IMAGES), constant(IMAGES), model(turned)))()
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-7)
    assert np.abs(got - other).max() > 1e-6
