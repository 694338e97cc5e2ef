"""Images and labels, as uint8 and int32 arrays in memory: the digits, or a user's .npz file.

The digits are scikit-learn's 1,797 images of 8x8 (the test part of UCI's "Optical Recognition of
Handwritten Digits"), which come with the package: nothing is downloaded. Not here: a loader, order
or augmentation (step.py does both on the device), and pickles, which are never opened.
"""

import zipfile
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits

import droppath
from examples.train_flax.config import Config, Refused

TEST_IMAGES_A_CLASS = 50  # of the digits: 500 of 1,797, so that one image is 0.2 % of the error


class Images(NamedTuple):
    """Part of a data set; pixels are standardised as (pixels - mean) / std, in units of 0..255."""

    pixels: Any  # uint8 [N, H, W, C]
    labels: Any  # int32 [N]
    mean: Any  # float32 [], of the training pixels
    std: Any  # float32 [], of the training pixels


class Data(NamedTuple):
    """Images to train on and images to test on, with the same mean and std."""

    train: Images
    test: Images
    classes: int


def load(cfg: Config) -> Data:
    """Return the data of cfg. Raises Refused, naming the path, if they are not what is needed."""
    x_train, y_train, x_test, y_test = read_npz(cfg.data_dir) if cfg.data_dir else read_digits()
    if cfg.batch > len(x_train):
        raise Refused(f"batch must be at most the {len(x_train)} training images, got {cfg.batch}")
    mean, std = np.float32(x_train.mean()), np.float32(x_train.std())
    return Data(
        Images(x_train, y_train.astype(np.int32), mean, std),
        Images(x_test, y_test.astype(np.int32), mean, std),
        classes=int(y_train.max()) + 1,
    )


def read_digits() -> tuple[NDArray[Any], ...]:
    """Return x_train [1297, 8, 8, 1], y_train, x_test [500, 8, 8, 1], y_test.

    The split is drawn once and for all, whatever cfg.seed is, with 50 test images of each class.
    """
    digits = load_digits()
    x = (digits.images * (255 / 16)).astype(np.uint8)[..., None]  # they come as 0..16
    shuffled = np.argsort(droppath.random_bits(droppath.key(0), len(x)), kind="stable")
    of_class = [shuffled[digits.target[shuffled] == label] for label in range(10)]
    test = np.concatenate([rows[:TEST_IMAGES_A_CLASS] for rows in of_class])
    train = np.concatenate([rows[TEST_IMAGES_A_CLASS:] for rows in of_class])
    return x[train], digits.target[train], x[test], digits.target[test]


def read_npz(data_dir: str) -> tuple[NDArray[Any], ...]:
    """Return x_train, y_train, x_test, y_test of an .npz file, or of data.npz in a folder."""
    path = Path(data_dir)
    if not path.exists():
        raise Refused(f"data_dir must be a folder or an .npz file, got {path}, which is missing")
    if path.is_dir():
        path = path / "data.npz"
        if not path.is_file():
            raise Refused(f"data_dir must hold data.npz, got a folder without {path}")
    arrays = _read_arrays(path, ("x_train", "y_train", "x_test", "y_test"))
    return _checked(path, *arrays)


def _read_arrays(path: Path, names: tuple[str, ...]) -> list[NDArray[Any]]:
    if not zipfile.is_zipfile(path):
        raise Refused(f"{path} must be a whole .npz file, got another format or a truncated one")
    try:
        with np.load(path, allow_pickle=False) as arrays:
            missing = [name for name in names if name not in arrays]
            if missing:
                raise Refused(f"{path} must hold {', '.join(names)}; it lacks {', '.join(missing)}")
            return [arrays[name] for name in names]
    except (ValueError, EOFError, OSError, zipfile.BadZipFile, zlib.error) as error:
        raise Refused(f"{path} must be a whole .npz file without pickles: {error}") from error


def _checked(path: Path, *arrays: NDArray[Any]) -> tuple[NDArray[Any], ...]:
    """Return the four arrays with images as [N, H, W, C]; Refused unless they fit together."""
    x_train, y_train, x_test, y_test = arrays
    for part, x, y in (("train", x_train, y_train), ("test", x_test, y_test)):
        if x.dtype != np.uint8 or x.ndim not in (3, 4) or x.size == 0:
            given = f"{x.dtype} {list(x.shape)}"
            raise Refused(f"{path}: x_{part} must be uint8 [N, H, W] or [N, H, W, C], got {given}")
        if x.shape[1:] != x_train.shape[1:] or x.shape[1] % 4 or x.shape[2] % 4:
            shape = list(x.shape[1:])
            raise Refused(f"{path}: images must be equal in size, in multiples of 4, got {shape}")
        if y.dtype != np.uint8 or y.shape != x.shape[:1]:
            given = f"{y.dtype} {list(y.shape)}"
            raise Refused(
                f"{path}: y_{part} must be uint8 [{len(x)}], one label an image, got {given}"
            )
    unknown = np.setdiff1d(y_test, y_train)
    if unknown.size:
        raise Refused(f"{path}: y_test must hold labels of y_train only, got {unknown.tolist()}")
    return tuple(a[..., None] if a.ndim == 3 else a for a in arrays)
