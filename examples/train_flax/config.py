"""The configuration of a run: a frozen dataclass, and its command line.

A field of `Config` is an option of the command line, an entry of config.json and nothing else. Not
here: any default that depends on the machine.
"""

import argparse
import dataclasses
import shlex
import sys
from collections.abc import Callable, Sequence
from types import NoneType
from typing import Any, Literal, TypeAlias, get_args, get_origin

import droppath
from droppath.arguments import Mode, ScaleAt, check_mode, check_scale_at, check_word
from droppath.schedules import Rule

Network: TypeAlias = Literal["preresnet", "resnet", "vit"]
DType: TypeAlias = Literal["float32", "bfloat16"]
Optimizer: TypeAlias = Literal["sgd", "adamw"]
Schedule: TypeAlias = Literal["cosine", "steps"]

# What is drawn; the places are part of every run's numbers.
STREAMS = ("weights", "order", "shifts", "masks", "flips", "split")

AT_LEAST_ONE = (
    "train_images", "passes", "depth", "width", "patch", "heads", "groups", "epochs", "steps",
    "batch", "checkpoint_every", "devices", "processes",
)  # fmt: skip


class Refused(Exception):
    """What the user must change, in one line; the commands print it and exit with code 2."""


class Stopped(Exception):
    """Why a run ended before its time, in one line; the commands print it and exit with `code`."""

    def __init__(self, message: str, code: int):
        super().__init__(message)
        self.code = code


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
        None, "an .npz file, or a folder of CIFAR-10 or MNIST files; by default sklearn's digits"
    )
    seed: int = option(0, "of everything random: weights, order, shifts, masks")
    validation: int = option(0, "training images kept apart to choose the best epoch by")
    train_images: int | None = option(None, "training images to use, drawn by seed; by default all")
    split_seed: int | None = option(None, "of these two draws; by default the seed")
    test_rest: bool = option(False, "test on the training images that are not used, too")
    network: Network = option("preresnet", "preresnet: He 2016, resnet: Huang 2016, or vit")
    depth: int = option(20, "layers of a ResNet, 6n + 2: three stages of n blocks; blocks of a vit")
    width: int = option(16, "channels of a vit, or of a ResNet's first stage, then doubled twice")
    patch: int = option(4, "side of a vit's patches, in pixels")
    heads: int = option(3, "of a vit's attention")
    drop_path_rate: float = option(0.2, "largest drop_prob of a branch; 0 trains constant depth")
    rule: Rule = option("linear", "how drop_prob grows from the first block to the last")
    mode: Mode = option("row", "how a step draws the samples that it drops")
    groups: int = option(
        1, "equal parts of a batch that balanced mode draws apart; best a multiple of the devices"
    )
    scale_at: ScaleAt = option("train", "where 1/(1-p) is made up for; the paper does it at eval")
    skip: bool = option(True, "compute no dropped branch, in batch and balanced mode")
    dtype: DType = option("float32", "of activations; parameters and statistics are float32")
    epochs: int = option(30, "each ends with a test")
    passes: int = option(1, "over the training images, an epoch")
    steps: int | None = option(None, "stop after so many in all, for a trial of the same schedule")
    batch: int = option(64, "images a step, over all devices")
    optimizer: Optimizer = option("sgd", "sgd: with Nesterov's momentum, or adamw")
    learning_rate: float = option(0.1, "the largest")
    schedule: Schedule = option("cosine", "to 0, or in steps: divided by 10 at 50 %% and at 75 %%")
    warmup_epochs: int = option(0, "epochs in which the learning rate rises from 0")
    momentum: float = option(0.9, "Nesterov's")
    weight_decay: float = option(5e-4, "of all parameters (sgd), or of all matrices (adamw)")
    shift: int = option(1, "largest random shift of a training image, in pixels each way")
    flip: bool = option(False, "mirror every other training image, at random")
    pixel_mean: bool = option(False, "subtract the mean of each pixel, not one mean for all")
    checkpoint_every: int = option(10, "epochs between checkpoints", same_numbers=True)
    devices: int | None = option(
        None, "devices that share each batch, by default all; a CPU can pretend", same_numbers=True
    )
    fsdp: bool = option(False, "share parameters among the devices too", same_numbers=True)
    distributed: bool = option(
        False, "train with other processes; a cluster says which", same_numbers=True
    )
    coordinator: str | None = option(
        None, "HOST:PORT of process 0, where no cluster says so", same_numbers=True
    )
    processes: int | None = option(None, "how many, where no cluster says so", same_numbers=True)
    process: int | None = option(None, "this one, from 0", same_numbers=True)
    compilation_cache: str = option(
        "~/.cache/droppath-jax", "folder of compiled programs; '' for none", same_numbers=True
    )
    tensorboard: bool = option(True, "write TensorBoard files too", same_numbers=True)
    other_code: bool = option(
        False, "go on with a run that was begun with other code or versions", same_numbers=True
    )

    def __post_init__(self) -> None:
        droppath.key(self.seed)
        if self.split_seed is not None:
            check_word(self.split_seed, "split_seed")
        droppath.drop_path_rates(self.drop_path_rate, 1, rule=self.rule)
        check_mode(self.mode)
        check_scale_at(self.scale_at)
        for name in AT_LEAST_ONE:
            value = getattr(self, name)
            if value is not None and not value >= 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        self._check_network()
        if self.data_dir == "":
            raise ValueError("data_dir must be a path, got ''")
        for name in ("learning_rate", "weight_decay", "shift", "validation", "warmup_epochs"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(
                    f"{name} must be finite and not negative, got {getattr(self, name)}"
                )
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum must be in [0, 1), got {self.momentum}")
        if self.batch % self.groups:
            raise ValueError(f"groups must divide the batch of {self.batch}, got {self.groups}")
        if self.warmup_epochs >= self.epochs:
            raise ValueError(
                f"warmup_epochs must be less than the {self.epochs} epochs, "
                f"got {self.warmup_epochs}"
            )

    @property
    def gathers(self) -> bool:
        """Whether a branch runs on part of the batch, gathered."""
        return self.mode == "balanced" and self.skip

    def _check_network(self) -> None:
        if self.network == "vit":
            if self.width % self.heads:
                raise ValueError(f"heads must divide the width of {self.width}, got {self.heads}")
        elif self.depth < 8 or self.depth % 6 != 2:
            raise ValueError(f"depth must be 6n + 2 with n at least 1, got {self.depth}")


RESNET110 = Config(  # Huang et al. 2016, section 4, and their code
    run_dir="runs/resnet110",
    data_dir="data/cifar-10-batches-bin",
    validation=5000,
    network="resnet",
    depth=110,
    drop_path_rate=0.5,
    rule="paper",
    mode="batch",
    scale_at="eval",
    epochs=500,
    batch=128,
    schedule="steps",
    weight_decay=1e-4,
    shift=4,
    flip=True,
    pixel_mean=True,
)

PRESETS = {
    "digits": Config(),  # about 1 % test error in a minute on 2 CPU cores
    "fashion-mnist": Config(  # a small network, for a CPU
        run_dir="runs/fashion-mnist",
        data_dir="data/fashion-mnist",
        depth=14,
        width=8,
        drop_path_rate=0.1,
        epochs=3,
        batch=128,
        flip=True,
        checkpoint_every=1,
    ),
    "resnet110": RESNET110,
    "resnet110-row": dataclasses.replace(
        RESNET110, run_dir="runs/resnet110-row", mode="row", scale_at="train"
    ),
    "vit": Config(
        run_dir="runs/vit",
        data_dir="data/cifar-10-batches-bin",
        network="vit",
        depth=9,
        width=192,
        mode="balanced",
        groups=8,
        epochs=100,
        batch=256,
        optimizer="adamw",
        learning_rate=1e-3,
        warmup_epochs=5,
        weight_decay=0.05,
        shift=4,
        flip=True,
    ),
    "smoke": Config(  # the tests': learns something, in seconds
        run_dir="runs/smoke", depth=8, width=4, epochs=4, batch=128, checkpoint_every=1
    ),
}


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


def command_line(cfg: Config) -> str:
    """Return the command that trains by a config, with the options that are not the default's."""
    words, default = ["python", "-m", "examples.train_flax"], Config()
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
