"""The folder of a run: which config it belongs to."""

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

from examples.train_flax.config import Config, Refused
from examples.train_flax.files import write_whole


def claim_run_dir(cfg: Config) -> Path:
    """Return cfg.run_dir as a path, made if need be, with cfg in its config.json.

    Raises: Refused if the folder belongs to another config, or to something else.
    """
    run_dir = Path(cfg.run_dir)
    path = run_dir / "config.json"
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        if not os.access(run_dir, os.W_OK):
            raise Refused(f"run_dir must be a folder to write to, got {run_dir}")
        if path.exists():
            _check_same(cfg, json.loads(path.read_text()), path)
        elif any(other.name != "config.part" for other in run_dir.iterdir()):
            raise Refused(f"run_dir must be new, empty or an earlier run's folder, got {run_dir}")
        else:
            write_whole(path, json.dumps(dataclasses.asdict(cfg), indent=2) + "\n")
    except OSError as error:
        raise Refused(f"run_dir must be a folder to write to: {error}") from error
    except ValueError as error:  # of json, or of a text that is none
        raise Refused(f"{path} must be JSON: {error}") from error
    return run_dir


def _check_same(cfg: Config, there: Any, path: Path) -> None:
    if not isinstance(there, dict):
        raise Refused(f"{path} must be a JSON object, got {there!r}")
    for field in dataclasses.fields(cfg):
        here, other = getattr(cfg, field.name), there.get(field.name)
        if field.compare and here != other:
            raise Refused(
                f"run_dir must not belong to another config: {path} has {field.name}={other!r}, "
                f"this run {field.name}={here!r}; name another with --run-dir"
            )
