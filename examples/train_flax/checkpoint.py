"""Checkpoints of a run through Orbax: saved whole or not at all, the newest whole one restored.

A checkpoint is named for the epochs done and holds a `State`: arrays only, nothing random. The
digests of its files are kept beside, so that damage is found before anything is read. Not here:
when to save.
"""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orbax.checkpoint as ocp

from examples.train_flax.config import Refused
from examples.train_flax.step import State

KEPT = 2  # so that one is whole while the newest is being damaged


def open_checkpoints(run_dir: Path) -> ocp.CheckpointManager:
    options = ocp.CheckpointManagerOptions(max_to_keep=KEPT)
    return ocp.CheckpointManager((run_dir / "checkpoints").absolute(), options=options)


def save(manager: ocp.CheckpointManager, epoch: int, state: State) -> None:
    """Write the state after `epoch` epochs, and wait until it is on disk under its final name."""
    _record(manager, without=epoch)  # an older digest of this epoch must not judge the new files
    manager.save(epoch, args=ocp.args.StandardSave(state._asdict()))
    manager.wait_until_finished()  # the next epoch uses the state's memory for its own
    _record(manager)


def restore_newest(
    manager: ocp.CheckpointManager, abstract: State, say: Callable[[str], Any]
) -> tuple[int, State] | None:
    """Return (epochs done, state) of the newest whole checkpoint; None if none was ever saved.

    Damaged newer ones are put aside, and said so. Raises Refused if all are damaged.
    """
    folder = Path(manager.directory)
    epochs = sorted(manager.all_steps(), reverse=True)
    whole = next((epoch for epoch in epochs if _is_whole(folder / str(epoch))), None)
    if whole is None:
        if epochs:
            raise Refused(
                f"no checkpoint in {folder} is whole; move the run's folder to start anew"
            )
        return None
    for epoch in epochs[: epochs.index(whole)]:
        aside = _put_aside(folder / str(epoch))
        say(
            f"checkpoint {epoch} is damaged and now in {aside}; going on from checkpoint {whole}, "
            "the last complete one"
        )
    manager.reload()
    state = manager.restore(whole, args=ocp.args.StandardRestore(abstract._asdict()))
    return whole, State(**state)


def _digests(checkpoint: Path) -> dict[str, str]:
    """Return the SHA-256 of each file of a checkpoint."""
    files = sorted(path for path in checkpoint.rglob("*") if path.is_file())
    return {
        str(path.relative_to(checkpoint)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


def _record(manager: ocp.CheckpointManager, without: int | None = None) -> None:
    """Write the digests of all checkpoints, or of all others, to digests.json in the run folder."""
    folder = Path(manager.directory)
    kept = {str(epoch) for epoch in manager.all_steps() if epoch != without}
    recorded = _recorded(folder)
    digests = {name: recorded.get(name) or _digests(folder / name) for name in sorted(kept)}
    draft = folder.parent / "digests.part"
    draft.write_text(json.dumps(digests, indent=2) + "\n")
    draft.replace(folder.parent / "digests.json")  # whole or not at all


def _recorded(folder: Path) -> Any:
    """The digests on record; none if the file is missing or was cut short: then Orbax judges."""
    try:
        return json.loads((folder.parent / "digests.json").read_text())
    except (FileNotFoundError, ValueError):
        return {}


def _is_whole(checkpoint: Path) -> bool:
    """Whether the files are as they were saved; Orbax's word if a crash came before the digests."""
    recorded = _recorded(checkpoint.parent).get(checkpoint.name)
    return recorded is None or recorded == _digests(checkpoint)


def _put_aside(path: Path) -> Path:
    """Rename a damaged checkpoint, so that its epoch can be saved again and nothing is deleted."""
    folder = path.parent.parent / "damaged-checkpoints"
    folder.mkdir(exist_ok=True)
    aside = folder / f"{path.name}-{len(list(folder.iterdir()))}"
    return path.rename(aside)
