"""The command line: an option for each field of `Config`, and the exit codes of all commands."""

import argparse
import dataclasses
import shlex
import sys
from collections.abc import Callable, Sequence
from types import NoneType
from typing import Any, Literal, get_args, get_origin

from examples.train_flax.config import Config, Refused, Stopped
from examples.train_flax.presets import PRESETS


def parse(
    argv: Sequence[str] | None = None, doc: str = "`python -m examples.train_flax`"
) -> Config:
    """Return the config of a command line: a preset, and the fields that differ from it.

    doc: of the command, which it begins with in backticks.
    """
    prog = doc.split("`")[1].partition(" [")[0]
    parser = _Parser(prog, description=doc.split("\n\n")[0], allow_abbrev=False)
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


def command_line(cfg: Config, module: str = "examples.train_flax") -> str:
    """Return the command that trains by a config, with the options that are not the default's."""
    words, default = ["python", "-m", module], Config()
    for field in dataclasses.fields(Config):
        value, flag = getattr(cfg, field.name), field.name.replace("_", "-")
        if value == getattr(default, field.name):
            continue
        if isinstance(value, bool):
            words.append(f"--{flag}" if value else f"--no-{flag}")
        else:
            words += [f"--{flag}", str(value)]
    return shlex.join(words)


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


def command(run: Callable[[Config], Any], argv: Sequence[str] | None, doc: str) -> int:
    """Run a command line and return its exit code: 0, 2 if refused, 130 if interrupted.

    A run that stopped has its own: 0 if it was told to and saved, 1 if it failed.
    """
    try:
        run(parse(argv, doc))
    except Refused as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except Stopped as stopped:
        print(stopped, file=sys.stderr)
        return stopped.code
    except KeyboardInterrupt:
        print("stopped; the same command goes on from the last checkpoint", file=sys.stderr)
        return 130
    return 0
