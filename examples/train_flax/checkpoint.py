"""Checkpoints of a run through Orbax: saved whole or not at all, the newest whole one restored.

A checkpoint is named for the epochs done and holds a `State`, arrays only, nothing random, and the
rows of metrics.csv up to it. The digests of its files are kept beside, so that damage is found
before anything is read. Every process calls `save` and `restore_newest`; the first alone keeps the
digests and judges. Not here: when to save.
"""

import hashlib
import io
import json
import logging
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import Any

import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from examples.train_flax.config import Refused
from examples.train_flax.devices import is_writer, writer_first
from examples.train_flax.files import write_whole
from examples.train_flax.metrics import Row
from examples.train_flax.step import State

KEPT = 2  # so that one is whole while the newest is being damaged


def open_checkpoints(run_dir: Path) -> ocp.CheckpointManager:
    options = ocp.CheckpointManagerOptions(max_to_keep=KEPT)
    return ocp.CheckpointManager((run_dir / "checkpoints").absolute(), options=options)


def save(manager: ocp.CheckpointManager, epoch: int, state: State, rows: Sequence[Row]) -> None:
    """Write the state after `epoch` epochs, and wait until it is on disk under its final name.

    Raises: OSError if it cannot be written; those saved before stay as they are.
    """
    parts = ocp.args.Composite(
        state=ocp.args.StandardSave(state._asdict()), rows=ocp.args.JsonSave(list(rows))
    )
    _record(manager, without=epoch)  # an older digest of this epoch must not judge the new files
    with _raising_alone():
        manager.save(epoch, args=parts)
        manager.wait_until_finished()  # the next epoch uses the state's memory for its own
    _record(manager)


@contextmanager
def _raising_alone() -> Iterator[None]:
    """Have a full disk raise OSError and no more: Orbax would show the traceback of each array."""
    logging.disable(logging.CRITICAL)
    with redirect_stderr(io.StringIO()):
        try:
            yield
        except (RuntimeError, ValueError) as error:
            raise _disk_error(error) from error
    logging.disable(logging.NOTSET)  # after an error not: the run ends, and Orbax has yet to say so


def _disk_error(error: Exception) -> OSError:
    """What the system said, in an error of TensorStore, which writes the arrays."""
    code = re.search(r"os_error_code='(\d+)'", str(error))
    return OSError(int(code[1]), os.strerror(int(code[1]))) if code else OSError(str(error))


def restore_newest(
    manager: ocp.CheckpointManager, abstract: State, say: Callable[[str], Any]
) -> tuple[int, State, list[Row]] | None:
    """Return (epochs done, state, rows) of the newest whole checkpoint; None without any.

    Damaged newer ones are put aside, and said so. Raises Refused if all are damaged.
    """
    folder = Path(manager.directory)
    epochs = sorted(manager.all_steps(), reverse=True)
    judged = writer_first(lambda: _newest_whole(folder, epochs, say))
    whole = int(multihost_utils.broadcast_one_to_all(np.int32(judged or 0)))
    if not whole:
        return None
    manager.reload()
    parts = ocp.args.Composite(
        state=ocp.args.StandardRestore(abstract._asdict()), rows=ocp.args.JsonRestore()
    )
    try:
        restored = manager.restore(whole, args=parts)
    except Exception as error:  # whatever is raised for files that cannot be read
        reason = str(error).partition("\n")[0]
        raise Refused(
            f"checkpoint {folder / str(whole)} must be one that Orbax can read: {reason}; move it "
            "away to go on from an older one"
        ) from error
    return whole, State(**restored.state), [Row(*cells) for cells in restored.rows]


def _newest_whole(folder: Path, epochs: Sequence[int], say: Callable[[str], Any]) -> int:
    """Return the first of epochs whose checkpoint is whole, those before it put aside; or 0.

    Without one whose digests are on record and right, the first without a record, and say so.
    """
    if not epochs:
        return 0
    recorded = _recorded(folder)
    unknown = [epoch for epoch in epochs if str(epoch) not in recorded]
    known = (epoch for epoch in epochs if epoch not in unknown)
    right = next((e for e in known if recorded[str(e)] == _digests(folder / str(e))), None)
    if right is None and not unknown:
        raise Refused(f"no checkpoint in {folder} is whole; move the run's folder to start anew")
    whole = unknown[0] if right is None else right
    for epoch in epochs[: epochs.index(whole)]:
        what = "has no digests on record" if epoch in unknown else "is damaged"
        aside = _put_aside(folder / str(epoch))
        say(
            f"checkpoint {epoch} {what} and is now in {aside}; going on from checkpoint {whole}, "
            "the last complete one"
        )
    if right is None:
        say(f"checkpoint {whole} is used unverified: its digests are not on record")
    return whole


def _digests(checkpoint: Path) -> dict[str, str]:
    """Return the SHA-256 of each file of a checkpoint."""
    files = sorted(path for path in checkpoint.rglob("*") if path.is_file())
    return {
        str(path.relative_to(checkpoint)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


def _record(manager: ocp.CheckpointManager, without: int | None = None) -> None:
    """Write the digests of all checkpoints, or of all others, to digests.json in the run folder."""
    if not is_writer():
        return
    folder = Path(manager.directory)
    kept = {str(epoch) for epoch in manager.all_steps() if epoch != without}
    recorded = _recorded(folder)
    digests = {name: recorded.get(name) or _digests(folder / name) for name in sorted(kept)}
    write_whole(folder.parent / "digests.json", json.dumps(digests, indent=2) + "\n")


def _recorded(folder: Path) -> dict[str, dict[str, str]]:
    """The digests on record; none if the file is missing or has another form."""
    try:
        held = json.loads((folder.parent / "digests.json").read_text())
    except (FileNotFoundError, ValueError):
        return {}
    if not isinstance(held, dict):
        return {}
    return {name: files for name, files in held.items() if isinstance(files, dict)}


def _put_aside(path: Path) -> Path:
    """Rename a damaged checkpoint, so that its epoch can be saved again and nothing is deleted."""
    folder = path.parent.parent / "damaged-checkpoints"
    folder.mkdir(exist_ok=True)
    aside = folder / f"{path.name}-{len(list(folder.iterdir()))}"
    return path.rename(aside)
