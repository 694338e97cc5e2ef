"""The digits' split, and what is refused of a user's files."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from examples.train_flax.config import PRESETS, Config, Refused
from examples.train_flax.data import load, read_digits

GOOD = {
    "x_train": np.full((12, 8, 8, 3), 7, np.uint8),
    "y_train": np.arange(12, dtype=np.uint8) % 3,
    "x_test": np.full((5, 8, 8, 3), 9, np.uint8),
    "y_test": np.arange(5, dtype=np.uint8) % 3,
}


def config_of(path: Path) -> Config:
    return dataclasses.replace(PRESETS["smoke"], data_dir=str(path), batch=4)


def saved(path: Path, **changed) -> Path:
    arrays = {name: array for name, array in (GOOD | changed).items() if array is not None}
    np.savez(path, **arrays)
    return path


def test_the_digits_are_split_once_and_for_all_with_fifty_test_images_a_class():
    x_train, y_train, x_test, y_test = read_digits()
    assert (x_train.shape, x_test.shape) == ((1297, 8, 8, 1), (500, 8, 8, 1))
    assert np.bincount(y_test).tolist() == [50] * 10
    # scikit-learn's 1,797 have 178 182 177 183 181 182 181 179 174 180 of each class
    assert np.bincount(y_train).tolist() == [128, 132, 127, 133, 131, 132, 131, 129, 124, 130]
    assert all(np.array_equal(a, b) for a, b in zip(read_digits(), read_digits(), strict=True))


def test_no_test_image_is_a_training_image():
    x_train, _, x_test, _ = read_digits()
    assert not {x.tobytes() for x in x_test} & {x.tobytes() for x in x_train}


def test_mean_and_std_are_of_the_training_images_alone():
    data = load(PRESETS["smoke"])
    pixels = data.train.pixels.astype(np.float64)
    assert data.train.mean == data.test.mean == pytest.approx(pixels.mean(), rel=1e-5)
    assert data.train.std == data.test.std == pytest.approx(pixels.std(), rel=1e-5)


def test_an_npz_file_is_read_from_its_path_and_from_its_folder(tmp_path):
    path = saved(tmp_path / "data.npz", x_train=np.arange(768, dtype=np.uint8).reshape(12, 8, 8),
                 x_test=GOOD["x_test"][..., 0])  # fmt: skip
    for given in (path, tmp_path):
        data = load(config_of(given))
        assert data.classes == 3
        assert data.train.pixels.shape == (12, 8, 8, 1)
        assert data.train.pixels[1, 0, 0, 0] == 64
        assert data.test.labels.tolist() == [0, 1, 2, 0, 1]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"y_test": None}, "must hold x_train, y_train, x_test, y_test; it lacks y_test"),
        ({"x_train": GOOD["x_train"] / 255}, "x_train must be uint8"),
        ({"x_test": GOOD["x_test"][0]}, "images must be equal in size"),
        ({"x_test": GOOD["x_test"][:0]}, r"x_test must be uint8 .*, got uint8 \[0, 8, 8, 3\]"),
        ({"x_train": GOOD["x_train"][:, :7], "x_test": GOOD["x_test"][:, :7]}, "multiples of 4"),
        ({"y_train": GOOD["y_train"][:7]}, r"y_train must be uint8 \[12\], one label an image"),
        ({"y_train": GOOD["y_train"] - 0.5}, "y_train must be uint8"),
        ({"y_test": GOOD["y_test"] + np.uint8(1)}, r"y_test must hold labels of y_train .*\[3\]"),
        ({"y_train": np.array([{}] * 12)}, "without pickles"),
    ],
)
def test_arrays_that_do_not_fit_are_refused_with_the_path(changed, message, tmp_path):
    path = saved(tmp_path / "data.npz", **changed)
    with pytest.raises(Refused, match=message) as refusal:
        load(config_of(path))
    assert str(path) in str(refusal.value)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.7, 0.99])
def test_a_truncated_file_is_refused_with_the_path(share, tmp_path):
    path = saved(tmp_path / "data.npz")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(Refused, match=f"{path} must be a whole .npz file"):
        load(config_of(path))


def test_damage_inside_a_file_is_refused_with_the_path(tmp_path):
    path = saved(tmp_path / "data.npz")
    damaged = bytearray(path.read_bytes())
    damaged[1000] ^= 255  # a pixel: the archive's checksum tells
    path.write_bytes(damaged)
    with pytest.raises(Refused, match=f"{path} must be a whole .npz file"):
        load(config_of(path))


def test_another_format_is_refused_with_the_path(tmp_path):
    path = tmp_path / "data.npz"
    path.write_text("x,y\n1,2\n")
    with pytest.raises(Refused, match=f"{path} must be a whole .npz file"):
        load(config_of(path))


def test_a_missing_path_and_a_folder_without_data_are_refused_with_the_path(tmp_path):
    with pytest.raises(Refused, match=f"{tmp_path}/none, which is missing"):
        load(config_of(tmp_path / "none"))
    with pytest.raises(Refused, match=f"data_dir must hold data.npz.*{tmp_path}"):
        load(config_of(tmp_path))


def test_a_batch_larger_than_the_training_set_is_refused(tmp_path):
    cfg = dataclasses.replace(config_of(saved(tmp_path / "data.npz")), batch=13)
    with pytest.raises(Refused, match="batch must be at most the 12 training images, got 13"):
        load(cfg)
