"""The configuration of a run: a frozen dataclass, its command line and its run folder.

A field of `Config` is an option of the command line, an entry of config.json and nothing else. Not
here: any default that depends on the machine.
"""

import argparse
import dataclasses
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin

import droppath
from droppath.arguments import Mode, ScaleAt, check_mode, check_scale_at
from droppath.schedules import Rule


class Refused(Exception):
    """What the user must change, in one line; the commands print it and exit with code 2."""


def option(default: Any, text: str, *, same_numbers: bool = False) -> Any:
    """Declare a field with its help text; same_numbers: a resumed run may change it."""
    return dataclasses.field(default=default, metadata={"help": text}, compare=not same_numbers)


@dataclasses.dataclass(frozen=True)
class Config:
    """One training run. Equal configs give equal numbers: the other fields are not compared.

    Raises: ValueError naming the field and its value.
    """

    run_dir: str = option("runs/digits", "folder of this run", same_numbers=True)
    data_dir: str | None = option(
        None, "an .npz file, or a folder that holds data.npz; by default scikit-learn's digits"
    )
    seed: int = option(0, "of everything random: weights, order, shifts, masks")
    depth: int = option(20, "layers of the network, 6n + 2: three stages of n blocks")
    width: int = option(16, "channels of the first stage; doubled in the second and in the third")
    drop_path_rate: float = option(0.2, "largest drop_prob of a block; 0 trains constant depth")
    rule: Rule = option("linear", "how drop_prob grows from the first block to the last")
    mode: Mode = option("row", "how a step draws the samples that it drops")
    scale_at: ScaleAt = option("train", "where 1/(1-p) is made up for; the paper does it at eval")
    epochs: int = option(30, "passes over the training images")
    batch: int = option(64, "images a step, over all devices")
    learning_rate: float = option(0.1, "at the first step; falls to 0 along a half cosine")
    momentum: float = option(0.9, "Nesterov's")
    weight_decay: float = option(5e-4, "added to the gradient of every parameter")
    shift: int = option(1, "largest random shift of a training image, in pixels each way")
    checkpoint_every: int = option(10, "epochs between checkpoints", same_numbers=True)
    devices: int | None = option(
        None, "devices that share each batch, by default all; a CPU can pretend", same_numbers=True
    )
    tensorboard: bool = option(True, "write TensorBoard files too", same_numbers=True)

    def __post_init__(self) -> None:
        droppath.key(self.seed)
        droppath.drop_path_rates(self.drop_path_rate, 1, rule=self.rule)
        check_mode(self.mode)
        check_scale_at(self.scale_at)
        if self.depth < 8 or self.depth % 6 != 2:
            raise ValueError(f"depth must be 6n + 2 with n at least 1, got {self.depth}")
        for name in ("width", "epochs", "batch", "checkpoint_every", "devices"):
            value = getattr(self, name)
            if value is not None and not value >= 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        for name in ("learning_rate", "weight_decay", "shift"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(
                    f"{name} must be finite and not negative, got {getattr(self, name)}"
                )
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum must be in [0, 1), got {self.momentum}")


PRESETS = {
    "digits": Config(),  # about 1 % test error in a minute on 2 CPU cores
    "smoke": Config(  # the tests': learns something, in seconds
        run_dir="runs/smoke", depth=8, width=4, epochs=4, batch=128, checkpoint_every=1
    ),
}


def parse(argv: Sequence[str] | None = None, description: str | None = None) -> Config:
    """Return the config of a command line: a preset, and the fields that differ from it."""
    parser = _Parser(description=description, allow_abbrev=False)
    parser.add_argument(
        "--preset", choices=PRESETS, default="digits", help="what the other options start from"
    )
    for field in dataclasses.fields(Config):
        _add_option(parser, field)
    given = vars(parser.parse_args(argv))
    try:
        return dataclasses.replace(PRESETS[given.pop("preset")], **given)
    except ValueError as error:
        raise Refused(str(error)) from error


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> Any:
        raise Refused(message)


def _add_option(parser: argparse.ArgumentParser, field: dataclasses.Field[Any]) -> None:
    kind: Any = field.type
    if NoneType in get_args(kind):
        kind = get_args(kind)[0]
    how: dict[str, Any] = {"type": kind}
    if kind is bool:
        how = {"action": argparse.BooleanOptionalAction}
    elif get_origin(kind) is Literal:
        how = {"choices": get_args(kind)}
    parser.add_argument(
        f"--{field.name.replace('_', '-')}",
        default=argparse.SUPPRESS,  # so that the preset's value stays
        help=f"{field.metadata['help']} (digits: {field.default})",
        **how,
    )


def claim_run_dir(cfg: Config) -> Path:
    """Return cfg.run_dir as a path, made if need be, with cfg in its config.json.

    Raises: Refused if the folder belongs to another config, or to something else.
    """
    run_dir = Path(cfg.run_dir)
    path = run_dir / "config.json"
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        if path.exists():
            _check_same(cfg, json.loads(path.read_text()), path)
        elif any(run_dir.iterdir()):
            raise Refused(f"run_dir must be new, empty or an earlier run's folder, got {run_dir}")
        else:
            draft = path.with_suffix(".part")
            draft.write_text(json.dumps(dataclasses.asdict(cfg), indent=2) + "\n")
            draft.replace(path)  # whole or not at all
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


def command(run: Callable[[Config], Any], argv: Sequence[str] | None, doc: str | None) -> int:
    """Run a command line and return its exit code: 0, 2 if refused, 130 if interrupted."""
    try:
        run(parse(argv, (doc or "").split("\n\n")[0]))
    except Refused as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; the same command goes on from the last checkpoint", file=sys.stderr)
        return 130
    return 0
