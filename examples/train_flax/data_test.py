"""The digits' split, the formats of a user's files, and what is refused of them."""

import dataclasses
import gzip
from pathlib import Path

import numpy as np
import pytest

from examples.train_flax.config import Config, Refused
from examples.train_flax.data import load, read_digits
from examples.train_flax.presets import PRESETS

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
        ({"x_test": GOOD["x_test"][0]}, r"x_test must be images of x_train's \[8, 8, 3\]"),
        ({"x_test": GOOD["x_test"][:0]}, r"x_test must be uint8 .*, got uint8 \[0, 8, 8, 3\]"),
        ({"y_train": GOOD["y_train"][:7]}, r"y_train must be uint8 \[12\], one label an image"),
        ({"y_train": GOOD["y_train"] - 0.5}, "y_train must be uint8"),
        (
            {"y_test": GOOD["y_test"] + np.uint8(1)},
            r"y_test must .* labels 0 to 2, got \[1, 2, 3\]",
        ),
        ({"y_test": GOOD["y_test"] // 2}, r"y_test must .* labels 0 to 2, got \[0, 1\]"),
        ({"y_train": GOOD["y_train"] * 2}, r"y_train must .* labels 0 to 4, got \[0, 2, 4\]"),
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
    with pytest.raises(Refused, match=f"data_dir must hold one of data.npz, .*{tmp_path} without"):
        load(config_of(tmp_path))


def test_a_batch_larger_than_the_training_set_is_refused(tmp_path):
    cfg = dataclasses.replace(config_of(saved(tmp_path / "data.npz")), batch=13)
    with pytest.raises(Refused, match="batch must be at most the 12 training images, got 13"):
        load(cfg)


def test_images_that_the_network_cannot_divide_are_refused(tmp_path):
    odd = {name: GOOD[name][:, :6] for name in ("x_train", "x_test")}
    cfg = config_of(saved(tmp_path / "data.npz", **odd))
    with pytest.raises(Refused, match=r"sides in multiples of 4, got \[6, 8\]"):
        load(cfg)
    assert load(dataclasses.replace(cfg, network="vit", patch=2, heads=2)).classes == 3


def test_each_pixel_may_have_its_own_mean(tmp_path):
    x_train = np.random.default_rng(0).integers(0, 255, (12, 8, 8, 3), np.uint8)
    cfg = config_of(saved(tmp_path / "data.npz", x_train=x_train))
    data = load(dataclasses.replace(cfg, pixel_mean=True))
    np.testing.assert_allclose(data.train.mean, x_train.astype(float).mean(0), rtol=1e-6)
    assert data.train.std == pytest.approx(x_train.astype(float).std(), rel=1e-6)


def cifar10(folder: Path, images: int = 20) -> Path:
    """Six batches in which image i of batch b has label i % 10, red i, green b, blue row."""
    folder.mkdir(parents=True)
    for b, name in enumerate([*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]):
        i = np.arange(images, dtype=np.uint8)
        planes = np.zeros((images, 3, 32, 32), np.uint8)
        planes[:, 0], planes[:, 1] = i[:, None, None], b
        planes[:, 2] = np.arange(32)[:, None]
        records = np.concatenate([i[:, None] % 10, planes.reshape(images, -1)], axis=1)
        (folder / f"{name}.bin").write_bytes(records.astype(np.uint8).tobytes())
    return folder


def test_cifar10_is_read_from_its_folder_and_from_the_folder_around(tmp_path):
    folder = cifar10(tmp_path / "cifar-10-batches-bin")
    for given in (folder, tmp_path):
        data = load(config_of(given))
        assert data.train.pixels.shape == (100, 32, 32, 3)
        assert data.train.pixels[43, 7, 30].tolist() == [3, 2, 7]  # the fourth of the third batch
        assert data.train.labels[43] == 3
        assert data.test.pixels[5, 31, 0].tolist() == [5, 5, 31]
        assert (data.classes, len(data.test.labels)) == (10, 20)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("data_batch_2.bin", lambda b: b[:-1], "images of 3073 bytes, got 61459 bytes"),
        ("data_batch_2.bin", lambda b: b"", "images of 3073 bytes, got 0 bytes"),
        ("data_batch_2.bin", lambda b: b[3073:], r"equal in size, got \[20, 19, 20, 20, 20\]"),
        ("data_batch_5.bin", lambda b: b"\x0a" + b[1:], "labels from 0 to 9, got 10"),
        ("test_batch.bin", lambda b: b[: 9 * 3073], "y_test must hold each of the labels 0 to 9"),
        ("test_batch.bin", None, "which is missing"),
    ],
)
def test_cifar10_files_that_do_not_fit_are_refused(name, change, message, tmp_path):
    path = cifar10(tmp_path / "cifar-10-batches-bin") / name
    if change:
        path.write_bytes(change(path.read_bytes()))
    else:
        path.unlink()
    with pytest.raises(Refused, match=message) as refusal:
        load(config_of(tmp_path))
    assert str(path.parent) in str(refusal.value)


def idx(array: np.ndarray) -> bytes:
    return np.array([0x800 + array.ndim, *array.shape], ">u4").tobytes() + array.tobytes()


def mnist(folder: Path, packed: bool) -> Path:
    for part, x, y in (("train", "x_train", "y_train"), ("t10k", "x_test", "y_test")):
        for name, array in (("images-idx3", GOOD[x][..., 0]), ("labels-idx1", GOOD[y])):
            content = idx(array)
            path = folder / f"{part}-{name}-ubyte{'.gz' if packed else ''}"
            path.write_bytes(gzip.compress(content) if packed else content)
    return folder


@pytest.mark.parametrize("packed", [True, False])
def test_mnist_files_are_read_plain_and_packed(packed, tmp_path):
    data = load(config_of(mnist(tmp_path, packed)))
    assert data.train.pixels.shape == (12, 8, 8, 1)
    assert (data.train.pixels == 7).all()
    assert (data.test.pixels == 9).all()
    assert data.train.labels.tolist() == GOOD["y_train"].tolist()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda b: b[:2] + b"\x09" + b[3:], "must begin with 00000803, .* got 00000903"),
        (lambda b: b[:3], "must begin with 00000803, IDX of 3 axes, got 000008"),
        (lambda b: b"", "got nothing"),
        (lambda b: b[:-1], r"must hold the \[12, 8, 8\] bytes .* got 767 bytes"),
        (lambda b: b + b"\0", r"must hold the \[12, 8, 8\] bytes .* got more"),
        (lambda b: b[:4] + b"\xff" * 12, "must hold at most 4294967296 bytes, got a header of"),
    ],
)
def test_an_idx_file_that_is_none_is_refused_with_its_path(change, message, tmp_path):
    path = mnist(tmp_path, packed=False) / "train-images-idx3-ubyte"
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(Refused, match=message) as refusal:
        load(config_of(tmp_path))
    assert str(path) in str(refusal.value)


def test_a_damaged_gz_file_and_a_missing_one_are_refused_with_the_path(tmp_path):
    path = mnist(tmp_path, packed=True) / "t10k-labels-idx1-ubyte.gz"
    whole = path.read_bytes()
    for damaged in (whole[:-5], whole[:5], b"no gzip", whole[:12] + b"\xff\xff" + whole[14:]):
        path.write_bytes(damaged)
        with pytest.raises(Refused, match=f"{path} must (be a whole file to read|begin with)"):
            load(config_of(tmp_path))
    path.unlink()
    with pytest.raises(Refused, match=f"data_dir must hold {path}, which is missing"):
        load(config_of(tmp_path))
