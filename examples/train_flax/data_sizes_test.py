"""Files that hold more, or say another size, than they should: refused before memory is taken."""

import gzip
import io
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest

from examples.train_flax.config import Refused
from examples.train_flax.data import load
from examples.train_flax.data_test import GOOD, config_of, idx, mnist, saved


@pytest.fixture
def peak():
    """The most that was held within the test, in bytes, as a function."""
    tracemalloc.start()
    yield lambda: tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()


def test_a_gz_file_that_unpacks_to_gigabytes_is_refused_before_it_does(tmp_path, peak):
    path = mnist(tmp_path, packed=True) / "train-images-idx3-ubyte.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(idx(GOOD["x_train"][..., 0]))
        for _ in range(200):
            file.write(bytes(1 << 20))
    with pytest.raises(Refused, match=f"{path} must hold the .* got more"):
        load(config_of(tmp_path))
    assert peak() < 20 << 20


def with_header(path: Path, shape: tuple[int, ...]) -> Path:
    """An .npz whose x_train says that it has this shape."""
    saved(path)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    header = io.BytesIO()
    what = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(header, what)
    members["x_train.npy"] = header.getvalue() + bytes(100)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((10**12, 8, 8), "x_train must be of at most 4294967296 bytes"),
        ((2000, 1000, 1000), "x_train must have the 2000000000 bytes of its header, got 100"),
        ((1, 8, 8), "x_train must have the 64 bytes of its header, got 100"),
    ],
)
def test_an_npz_header_that_says_another_size_is_refused_before_it_is_read(
    tmp_path, peak, shape, message
):
    path = with_header(tmp_path / "data.npz", shape)
    with pytest.raises(Refused, match=f"{path}: {message}"):
        load(config_of(path))
    assert peak() < 20 << 20
