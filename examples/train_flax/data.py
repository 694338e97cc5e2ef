"""Images and labels, as uint8 and int32 arrays in memory: the digits, or a user's files.

The digits are scikit-learn's 1,797 images of 8x8 (the test part of UCI's "Optical Recognition of
Handwritten Digits"), which come with the package: nothing is downloaded. Files are CIFAR-10's
binary batches, MNIST's IDX files (and Fashion-MNIST's, plain or .gz), or an .npz. Not here: a
loader, order or augmentation (step.py does both on the device), and pickles: none is ever opened.

Source: www.cs.toronto.edu/~kriz/cifar.html, yann.lecun.com/exdb/mnist (the formats).
"""

import gzip
import math
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits

import droppath
from examples.train_flax.config import STREAMS, Config, Refused

Arrays: TypeAlias = tuple[NDArray[Any], ...]  # x_train, y_train, x_test, y_test

MOST = 1 << 32  # bytes of an array of a file: CIFAR-10's have 150 million, ImageNet's do not fit
TEST_IMAGES_A_CLASS = 50  # of the digits: 500 of 1,797, so that one image is 0.2 % of the error


class Images(NamedTuple):
    """Part of a data set; pixels are standardised as (pixels - mean) / std, in units of 0..255."""

    pixels: Any  # uint8 [N, H, W, C]
    labels: Any  # int32 [N]
    mean: Any  # float32 [] or [H, W, C], of the training pixels
    std: Any  # float32 [], of the training pixels


class Data(NamedTuple):
    """Images to train on, to test on, and to choose an epoch by, with the same mean and std."""

    train: Images
    test: Images
    classes: int
    validation: Images | None = None


def load(cfg: Config) -> Data:
    """Return the data of cfg. Raises Refused, naming the path, if they are not what is needed."""
    x, y, x_test, y_test = read(cfg.data_dir) if cfg.data_dir else read_digits()
    unit = cfg.patch if cfg.network == "vit" else 4  # a ResNet halves the sides twice
    if x.shape[1] % unit or x.shape[2] % unit:
        raise Refused(f"images must have sides in multiples of {unit}, got {list(x.shape[1:3])}")
    validation, _, train, rest = _drawn(cfg, len(x))
    x_train = x[train]
    if cfg.test_rest:
        x_test, y_test = np.concatenate([x_test, x[rest]]), np.concatenate([y_test, y[rest]])
    mean = x_train.mean(0 if cfg.pixel_mean else None, dtype=np.float64).astype(np.float32)
    std = np.float32(x_train.std(dtype=np.float64))

    def part(pixels: NDArray[Any], labels: NDArray[Any]) -> Images:
        return Images(pixels, labels.astype(np.int32), mean, std)

    apart = part(x[validation], y[validation]) if cfg.validation else None
    return Data(part(x_train, y[train]), part(x_test, y_test), int(y.max()) + 1, apart)


def _drawn(cfg: Config, images: int) -> list[NDArray[Any]]:
    """Return the places, in order, of images of validation, left out, trained on, and of others."""
    left = images
    for name in ("validation", "left_out"):
        if (apart := getattr(cfg, name)) >= left:
            raise Refused(f"{name} must be less than the {left} images, got {apart}")
        left -= apart
    count = left if cfg.train_images is None else cfg.train_images
    if count > left:
        raise Refused(f"train_images must be at most the {left} that there are, got {count}")
    if cfg.batch > count:
        raise Refused(f"batch must be at most the {max(count, 0)} training images, got {cfg.batch}")
    seed = cfg.seed if cfg.split_seed is None else cfg.split_seed
    key = droppath.fold_in(droppath.key(seed), STREAMS.index("split"))
    order = np.argsort(droppath.random_bits(key, images), kind="stable")
    sizes = cfg.validation, cfg.left_out, count
    return [np.sort(part) for part in np.split(order, np.cumsum(sizes))]


def read_digits() -> Arrays:
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


def read(data_dir: str) -> Arrays:
    """Return what a file or folder holds, checked: uint8 [N, H, W, C] and uint8 [N]."""
    path = Path(data_dir)
    try:
        path.stat()
    except FileNotFoundError as error:
        raise Refused(
            f"data_dir must be a folder or an .npz file, got {path}, which is missing"
        ) from error
    except (OSError, ValueError) as error:  # a name that is too long, or that is none
        why = getattr(error, "strerror", None) or error
        raise Refused(f"data_dir must be a folder or an .npz file to read: {why}") from error
    if path.is_file():
        return _checked(path, read_npz(path))
    for name, reader in READERS.items():
        for folder in (path, path / CIFAR10):
            if (folder / name).is_file():
                return _checked(folder, reader(folder))
    raise Refused(f"data_dir must hold one of {', '.join(READERS)}, got {path} without any")


def read_npz(path: Path) -> Arrays:
    """Return x_train, y_train, x_test, y_test of an .npz file."""
    names = ("x_train", "y_train", "x_test", "y_test")
    if not zipfile.is_zipfile(path):
        raise Refused(f"{path} must be a whole .npz file, got another format or a truncated one")
    try:
        with zipfile.ZipFile(path) as archive:
            missing = [name for name in names if f"{name}.npy" not in archive.namelist()]
            if missing:
                raise Refused(f"{path} must hold {', '.join(names)}; it lacks {', '.join(missing)}")
            for name in names:
                _check_header(path, archive, name)
        with np.load(path, allow_pickle=False) as arrays:
            return tuple(arrays[name] for name in names)
    except (ValueError, EOFError, OSError, zipfile.BadZipFile, zlib.error) as error:
        raise Refused(f"{path} must be a whole .npz file without pickles: {error}") from error


def _check_header(path: Path, archive: zipfile.ZipFile, name: str) -> None:
    """Raise unless an array of an .npz file is as large as its header says, before it is read."""
    info = archive.getinfo(f"{name}.npy")
    with archive.open(info) as file:
        read_header = HEADERS.get(np.lib.format.read_magic(file))
        if read_header is None:
            raise ValueError(f"{name} is of a newer format")
        shape, _, dtype = read_header(file)
        held = info.file_size - file.tell()
    said = math.prod(shape) * dtype.itemsize
    if said > MOST:
        raise Refused(f"{path}: {name} must be of at most {MOST} bytes, got {dtype} {list(shape)}")
    if said != held and not dtype.hasobject:  # pickles are told by NumPy
        raise Refused(f"{path}: {name} must have the {said} bytes of its header, got {held}")


HEADERS: dict[Any, Callable[[Any], Any]] = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}

CIFAR10 = "cifar-10-batches-bin"
RECORD = 1 + 3 * 32 * 32  # bytes: a label, then the red, the green and the blue of 32 rows


def read_cifar10(folder: Path) -> Arrays:
    """Return the images of five training batches and one test batch, [N, 32, 32, 3]."""
    batches = [read_cifar10_batch(folder / f"data_batch_{i}.bin") for i in range(1, 6)]
    sizes = [len(records) for records in batches]
    if len(set(sizes)) > 1:
        raise Refused(f"{folder}: training batches must be equal in size, got {sizes} images")
    train, test = np.concatenate(batches), read_cifar10_batch(folder / "test_batch.bin")

    def images(records: NDArray[Any]) -> NDArray[Any]:
        return np.ascontiguousarray(records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))

    return images(train), train[:, 0], images(test), test[:, 0]


def read_cifar10_batch(path: Path) -> NDArray[Any]:
    """Return a batch's records, uint8 [N, 3073]."""
    content = _bytes(path)
    if not content or len(content) % RECORD:
        raise Refused(
            f"{path} must hold images of {RECORD} bytes, got {len(content)} bytes: not a multiple"
        )
    records = np.frombuffer(content, np.uint8).reshape(-1, RECORD)
    if (worst := records[:, 0].max()) > 9:
        raise Refused(f"{path} must hold labels from 0 to 9, got {worst}")
    return records


def read_idx(folder: Path) -> Arrays:
    """Return the four arrays of MNIST's files, each plain or .gz: [N, H, W] and [N]."""
    return tuple(
        read_idx_file(folder, f"{part}-{kind}-ubyte", axes)
        for part in ("train", "t10k")
        for kind, axes in (("images-idx3", 3), ("labels-idx1", 1))
    )


def read_idx_file(folder: Path, name: str, axes: int) -> NDArray[Any]:
    """Return an IDX file's array: its magic number 0x800 + axes, big-endian sizes, bytes."""
    path = folder / name if (folder / name).is_file() else folder / f"{name}.gz"
    start = 4 + 4 * axes
    head = _bytes(path, start)
    header = np.frombuffer(head.ljust(start, b"\0"), ">u4")
    if header[0] != 0x800 + axes:
        magic, given = f"{0x800 + axes:08x}", head[:4].hex() or "nothing"
        raise Refused(f"{path} must begin with {magic}, IDX of {axes} axes, got {given}")
    shape = [int(size) for size in header[1:]]
    said = math.prod(shape)
    if said > MOST:
        raise Refused(f"{path} must hold at most {MOST} bytes, got a header of {shape}")
    content = _bytes(path, start + said + 1)  # one more tells that there is more
    held = len(content) - start
    if held != said:
        given = f"{held} bytes" if held < said else "more"
        raise Refused(f"{path} must hold the {shape} bytes that its header says, got {given}")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def _bytes(path: Path, most: int = MOST) -> bytes:
    """Return the first bytes of a file, unpacked if it is a .gz, and no more than so many."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            content: bytes = file.read(most)
            return content
    except FileNotFoundError as error:
        raise Refused(f"data_dir must hold {path}, which is missing") from error
    except (OSError, EOFError, zlib.error) as error:
        raise Refused(f"{path} must be a whole file to read: {error}") from error


# What tells a folder's format, and what reads it.
READERS: dict[str, Callable[[Path], Arrays]] = {
    "data.npz": lambda folder: read_npz(folder / "data.npz"),
    "data_batch_1.bin": read_cifar10,
    "train-images-idx3-ubyte": read_idx,
    "train-images-idx3-ubyte.gz": read_idx,
}


def _checked(path: Path, arrays: Arrays) -> Arrays:
    """Return the four arrays with images as [N, H, W, C]; Refused unless they fit together."""
    x_train, y_train, x_test, y_test = arrays
    for part, x, y in (("train", x_train, y_train), ("test", x_test, y_test)):
        if x.dtype != np.uint8 or x.ndim not in (3, 4) or x.size == 0:
            given = f"{x.dtype} {list(x.shape)}"
            raise Refused(f"{path}: x_{part} must be uint8 [N, H, W] or [N, H, W, C], got {given}")
        if x.shape[1:] != x_train.shape[1:]:
            shape, other = list(x.shape[1:]), list(x_train.shape[1:])
            raise Refused(f"{path}: x_test must be images of x_train's {other}, got {shape}")
        if y.dtype != np.uint8 or y.shape != x.shape[:1]:
            given = f"{y.dtype} {list(y.shape)}"
            raise Refused(
                f"{path}: y_{part} must be uint8 [{len(x)}], one label an image, got {given}"
            )
    classes = np.arange(int(y_train.max()) + 1)
    for part, y in (("train", y_train), ("test", y_test)):
        if not np.array_equal(np.unique(y), classes):
            raise Refused(
                f"{path}: y_{part} must hold each of the labels 0 to {classes[-1]}, "
                f"got {np.unique(y).tolist()}"
            )
    return tuple(a[..., None] if a.ndim == 3 else a for a in arrays)
