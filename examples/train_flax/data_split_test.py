"""Which images are for validation, for training, for testing, and for nothing."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from examples.train_flax.config import Refused
from examples.train_flax.data import load
from examples.train_flax.data_test import config_of, saved


def numbered(path: Path) -> Path:
    """A file of 12 images, each of one grey, 10 times its place."""
    greys = np.arange(0, 120, 10, np.uint8)[:, None, None].repeat(8, 1).repeat(8, 2)
    return saved(path, x_train=greys, x_test=greys[:5])


def test_validation_images_are_drawn_by_seed_and_not_trained_on(tmp_path):
    cfg = dataclasses.replace(config_of(numbered(tmp_path / "data.npz")), validation=4)
    data = load(cfg)
    apart, trained = (
        set(part.pixels[:, 0, 0, 0].tolist()) for part in (data.validation, data.train)
    )
    assert (len(apart), len(trained)) == (4, 8)
    assert apart | trained == set(range(0, 120, 10))
    assert data.validation.labels.tolist() == [p // 10 % 3 for p in sorted(apart)]
    assert data.train.mean == data.validation.mean == data.test.mean == np.mean(list(trained))
    again, other = load(cfg), load(dataclasses.replace(cfg, seed=1))
    assert np.array_equal(again.validation.pixels, data.validation.pixels)
    assert not np.array_equal(other.validation.pixels, data.validation.pixels)
    assert load(dataclasses.replace(cfg, validation=0)).validation is None


def test_fewer_training_images_leave_the_validation_images_as_they_were(tmp_path):
    cfg = dataclasses.replace(config_of(numbered(tmp_path / "data.npz")), validation=4)
    few, all_of_them = load(dataclasses.replace(cfg, train_images=5)), load(cfg)
    assert len(few.train.labels) == 5
    assert np.array_equal(few.validation.pixels, all_of_them.validation.pixels)
    with pytest.raises(Refused, match="train_images must be at most the 8 that there are, got 9"):
        load(dataclasses.replace(cfg, train_images=9))
    with pytest.raises(Refused, match="validation must be less than the 12 images, got 12"):
        load(dataclasses.replace(cfg, validation=12))


def test_the_images_that_are_left_out_may_be_tested_on_too(tmp_path):
    cfg = dataclasses.replace(config_of(numbered(tmp_path / "data.npz")), validation=4)
    few = dataclasses.replace(cfg, train_images=5)
    plain, rest = load(few), load(dataclasses.replace(few, test_rest=True))
    assert len(rest.test.labels) == len(plain.test.labels) + 3
    assert np.array_equal(rest.test.pixels[: len(plain.test.labels)], plain.test.pixels)
    parts = [rest.validation.pixels, rest.train.pixels, rest.test.pixels[-3:]]
    assert len({x.tobytes() for part in parts for x in part}) == 12
    assert len(load(dataclasses.replace(cfg, test_rest=True)).test.labels) == len(plain.test.labels)


def test_what_is_left_out_is_neither_trained_nor_tested_on_and_is_drawn_first(tmp_path):
    cfg = dataclasses.replace(config_of(numbered(tmp_path / "data.npz")), validation=4)
    few = dataclasses.replace(cfg, train_images=5, test_rest=True)
    judged, left_out = load(few), load(dataclasses.replace(few, validation=0, left_out=4))
    assert left_out.validation is None
    assert np.array_equal(left_out.train.pixels, judged.train.pixels)
    assert np.array_equal(left_out.test.pixels, judged.test.pixels)
    with pytest.raises(Refused, match="left_out must be less than the 8 images, got 8"):
        load(dataclasses.replace(cfg, left_out=8))


def test_the_split_may_have_a_seed_of_its_own(tmp_path):
    cfg = dataclasses.replace(config_of(numbered(tmp_path / "data.npz")), validation=4)
    splits = [
        load(dataclasses.replace(cfg, seed=seed, split_seed=split)).validation.pixels
        for seed, split in ((0, None), (1, None), (1, 0), (0, 1))
    ]
    assert np.array_equal(splits[0], splits[2])
    assert np.array_equal(splits[1], splits[3])
    assert not np.array_equal(splits[0], splits[1])
