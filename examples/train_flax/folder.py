"""The folder of a run: of one config, held by one process at a time, and what the run is made of.

config.json says which config it belongs to, made_of.json of which data, code and versions its
numbers came about. Not here: the other files, which their modules write.
"""

import dataclasses
import hashlib
import json
import os
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import numpy as np
from filelock import FileLock, Timeout

import droppath
import droppath_flax
from examples.train_flax.config import Config, Refused
from examples.train_flax.data import Data
from examples.train_flax.files import write_whole

PACKAGES = "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy"  # they decide the numbers
CODE = droppath.__file__, droppath_flax.__file__, __file__  # a file of each package of ours
LOCK = "lock"
WHY = {"epochs": "the learning rate's schedule spans them all, so that more of them need a new run"}


def claim_run_dir(cfg: Config, made: dict[str, Any], say: Callable[[str], Any]) -> FileLock:
    """Make cfg.run_dir, or take an earlier run's. Returns its lock, which dies with the process.

    made: as `made_of` returns it. Raises: Refused if another process has the folder, if it belongs
    to another config, to other data or to something else, and, without cfg.other_code, if it was
    begun with other code or versions.
    """
    run_dir = Path(cfg.run_dir)
    path, lock = run_dir / "config.json", FileLock(run_dir / LOCK, timeout=0)
    with _named(path):
        run_dir.mkdir(parents=True, exist_ok=True)
        if not os.access(run_dir, os.W_OK):
            raise Refused(f"run_dir must be a folder to write to, got {run_dir}")
        if not path.exists() and any(not _is_left_over(other) for other in run_dir.iterdir()):
            raise Refused(f"run_dir must be new, empty or an earlier run's folder, got {run_dir}")
        lock.acquire()
        try:
            _take(cfg, made, path, say)
        except BaseException:  # else it would be held for as long as the error is
            lock.release()
            raise
    return lock


def _take(cfg: Config, made: dict[str, Any], path: Path, say: Callable[[str], Any]) -> None:
    """Compare a folder that is locked with this run, or begin it."""
    known = path.exists()
    if known:
        _check_config(cfg, json.loads(path.read_text()), path)
    _check_made_of(cfg, made, path.with_name("made_of.json"), known, say)
    if not known:
        write_whole(path, json.dumps(dataclasses.asdict(cfg), indent=2) + "\n")


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Raise Refused for what the system, the lock or JSON refuses."""
    try:
        yield
    except Timeout as error:
        raise Refused(
            f"run_dir must not be in use by another process, got {path.parent}"
        ) from error
    except OSError as error:
        raise Refused(f"run_dir must be a folder to write to: {error.strerror}") from error
    except ValueError as error:  # of json, or of a text that is none
        raise Refused(f"{path} must be JSON: {error}") from error


def made_of(cfg: Config, data: Data) -> dict[str, Any]:
    """Return what decides a run's numbers beside its config: data, code, versions, devices."""
    versions = {name: version(name) for name in PACKAGES}
    return {
        "data": _digest_of_data(data),
        "code": _digest_of_code(),
        "versions": {"Python": platform.python_version(), **versions},
        "devices": cfg.devices or jax.device_count(),
    }


def _digest_of_data(data: Data) -> str:
    digest = hashlib.sha256()
    for images in (data.train, data.test, data.validation):
        for array in images or ():
            digest.update(f"{array.dtype} {np.shape(array)}".encode())
            digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _digest_of_code() -> str:
    digest = hashlib.sha256()
    for folder in (Path(file).parent for file in CODE):
        for file in sorted(folder.glob("*.py")):
            if not file.name.endswith("_test.py"):
                digest.update(file.name.encode() + file.read_bytes())
    return digest.hexdigest()


def _is_left_over(path: Path) -> bool:
    """Whether a run that was killed while it claimed its folder may have left this."""
    return path.name == LOCK or path.suffix == ".part" or path.name == "made_of.json"


def _check_config(cfg: Config, there: Any, path: Path) -> None:
    if not isinstance(there, dict):
        raise Refused(f"{path} must be a JSON object, got {there!r}")
    for field in dataclasses.fields(cfg):
        # a folder of an older version lacks what was the default then
        here, other = getattr(cfg, field.name), there.get(field.name, field.default)
        if field.compare and here != other:
            why = f"{WHY[field.name]}; " if field.name in WHY else ""
            raise Refused(
                f"run_dir must not belong to another config: {path} has {field.name}={other!r}, "
                f"this run {field.name}={here!r}; {why}name another with --run-dir"
            )


def _check_made_of(
    cfg: Config, made: dict[str, Any], path: Path, known: bool, say: Callable[[str], Any]
) -> None:
    """Compare what a run is made of with what it was begun with, and write it down."""
    there = _read_made_of(path) if known else made
    if there is None:
        say(
            f"{path} is missing or damaged: whether data, code and versions are the same is unknown"
        )
        there = made
    if there["data"] != made["data"]:
        raise Refused(
            f"data must be those that {path.parent} was begun with, got others: name another "
            "folder with --run-dir"
        )
    changes = [
        f"{name} {there['versions'].get(name)} there and {now} here"
        for name, now in made["versions"].items()
        if there["versions"].get(name) != now
    ]
    changes += ["other code"] if there["code"] != made["code"] else []
    if changes and not cfg.other_code:
        raise Refused(
            f"{path.parent} was begun with other versions or code: {', '.join(changes)}; "
            "--other-code goes on all the same"
        )
    if changes:
        say(f"{path.parent} goes on with {', '.join(changes)}: not bit for bit")
    if there["devices"] != made["devices"]:
        before, now = there["devices"], made["devices"]
        say(f"{path.parent} goes on with {now} devices after {before}: not bit for bit")
    write_whole(path, json.dumps(made, indent=2) + "\n")


def _read_made_of(path: Path) -> Any:
    """Return what a run was begun with; None if that is not on record."""
    try:
        there = json.loads(path.read_text())
        complete = {"data", "code", "versions", "devices"} <= there.keys()
        return there if complete and isinstance(there["versions"], dict) else None
    except (OSError, ValueError, AttributeError):
        return None
