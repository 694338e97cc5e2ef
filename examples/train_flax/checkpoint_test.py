"""Checkpoints: whatever is done to the newest, what is restored is one that was saved."""

import json
import logging
import re
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from examples.train_flax.checkpoint import open_checkpoints, restore_newest, save
from examples.train_flax.config import Refused
from examples.train_flax.metrics import Row
from examples.train_flax.step import State


def state_after(epoch: int) -> State:
    weights = jax.random.normal(jax.random.key(epoch), (200, 50))
    return State({"w": weights}, {"mean": weights[0]}, ({"m": weights[1]},), jnp.int32(epoch))


def rows_after(epoch: int) -> list[Row]:
    thirds = [Row(e, 9 * e, e / 3, None, 1 / 7, 1e-9, 0.1, 2 / 3, 1e5 / 3, 1.0) for e in (1, 2, 3)]
    return thirds[:epoch]


ABSTRACT = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=a.sharding),
                        state_after(0))  # fmt: skip


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    with open_checkpoints(folder) as manager:
        for epoch in (1, 2, 3):
            save(manager, epoch, state_after(epoch), rows_after(epoch))
    return folder


def restore(folder):
    said = []
    with open_checkpoints(folder) as manager:
        epoch, state, rows = restore_newest(manager, ABSTRACT, said.append)
    assert rows == rows_after(epoch)
    for got, want in zip(*map(jax.tree.leaves, (state, state_after(epoch))), strict=True):
        np.testing.assert_array_equal(got, want)
    return epoch, said


def test_a_folder_without_checkpoints_restores_none(tmp_path):
    with open_checkpoints(tmp_path) as manager:
        assert restore_newest(manager, ABSTRACT, print) is None


def test_the_newest_two_are_kept_and_the_newest_is_restored(saved):
    assert {path.name for path in (saved / "checkpoints").iterdir()} == {"2", "3"}
    assert restore(saved) == (3, [])


@pytest.mark.parametrize("share", [None, 0.0, 0.5, 0.9])
def test_a_file_of_the_newest_cut_short_or_gone_gives_the_one_before(saved, tmp_path, share):
    newest = saved / "checkpoints" / "3"
    files = [path.relative_to(saved) for path in newest.rglob("*") if path.is_file()]
    assert len(files) > 5
    for number, file in enumerate(files):
        folder = shutil.copytree(saved, tmp_path / str(number))
        if share is None:
            (folder / file).unlink()
        else:
            whole = (folder / file).read_bytes()
            (folder / file).write_bytes(whole[: int(share * len(whole))])
            if not whole:
                continue  # an empty marker cannot be cut
        epoch, said = restore(folder)
        assert epoch == 2
        assert said[0].startswith("checkpoint 3 is damaged")


def test_a_flipped_bit_gives_the_one_before(saved, tmp_path):
    folder = shutil.copytree(saved, tmp_path / "run")
    largest = max((folder / "checkpoints" / "3").rglob("*"), key=lambda path: path.stat().st_size)
    damaged = bytearray(largest.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    largest.write_bytes(damaged)
    assert restore(folder)[0] == 2


def test_a_checkpoint_saved_again_after_damage_is_the_newest(saved, tmp_path):
    folder = shutil.copytree(saved, tmp_path / "run")
    shutil.rmtree(folder / "checkpoints" / "3" / "state")
    assert restore(folder)[0] == 2
    with open_checkpoints(folder) as manager:
        save(manager, 3, state_after(3), rows_after(3))
    assert restore(folder) == (3, [])


@pytest.mark.parametrize(
    ("error", "want"),
    [
        (
            ValueError("RESOURCE_EXHAUSTED: a long story [os_error_code='28']"),
            "[Errno 28] No space",
        ),
        (ValueError("another story"), "another story"),
        (OSError(28, "No space left on device"), "[Errno 28] No space"),
    ],
)
def test_a_save_that_fails_says_what_the_system_said_and_keeps_the_others(
    saved, tmp_path, monkeypatch, error, want
):
    def fail(*args, **options):
        raise error

    folder = shutil.copytree(saved, tmp_path / "run")
    with open_checkpoints(folder) as manager:
        monkeypatch.setattr(manager, "save", fail)
        with pytest.raises(OSError, match=re.escape(want)):
            save(manager, 4, state_after(3), [])
        logging.disable(logging.NOTSET)  # a run would end here
    assert restore(folder) == (3, [])


UNVERIFIED = "checkpoint 3 is used unverified: its digests are not on record"


@pytest.mark.parametrize("record", [None, "", "[]", "3", '{"3": null, "2": []}', '{"1": {}}'])
def test_without_a_record_the_newest_is_used_and_that_is_said(saved, tmp_path, record):
    folder = shutil.copytree(saved, tmp_path / "run")
    (folder / "digests.json").unlink()
    if record is not None:
        (folder / "digests.json").write_text(record)
    assert restore(folder) == (3, [UNVERIFIED])


def test_one_that_is_on_record_goes_before_a_newer_one_that_is_not(saved, tmp_path):
    folder = shutil.copytree(saved, tmp_path / "run")
    path = folder / "digests.json"
    digests = json.loads(path.read_text())
    del digests["3"]
    path.write_text(json.dumps(digests))
    epoch, said = restore(folder)
    assert epoch == 2
    assert said[0].startswith("checkpoint 3 has no digests on record and is now in")


def test_one_without_a_record_that_cannot_be_read_is_refused_in_one_line(saved, tmp_path):
    folder = shutil.copytree(saved, tmp_path / "run")
    (folder / "digests.json").unlink()
    for path in (folder / "checkpoints" / "3" / "state").rglob("*"):
        if path.is_file():
            path.write_bytes(b"")
    with open_checkpoints(folder) as manager, pytest.raises(Refused) as refusal:
        restore_newest(manager, ABSTRACT, print)
    assert str(refusal.value).startswith(f"checkpoint {folder}/checkpoints/3 must be one that Orb")
    assert "\n" not in str(refusal.value)
