"""The configuration of a run: a frozen dataclass.

A field of `Config` is an option of the command line, an entry of config.json and nothing else. Not
here: any default that depends on the machine.
"""

import dataclasses
from typing import Any, Literal, TypeAlias, get_args

import droppath
from droppath.arguments import (
    Mode,
    ScaleAt,
    check_choice,
    check_scale_at,
    check_word,
)
from droppath.schedules import Rule

Network: TypeAlias = Literal["preresnet", "resnet", "vit"]
DType: TypeAlias = Literal["float32", "bfloat16"]
Optimizer: TypeAlias = Literal["sgd", "adamw"]
Schedule: TypeAlias = Literal["cosine", "steps"]
Ramp: TypeAlias = Literal["none", "early", "late"]
Drawing: TypeAlias = Literal["row", "balanced", "batch", "plan"]

# What is drawn; the places are part of every run's numbers.
STREAMS = ("weights", "order", "shifts", "masks", "flips", "split")

AT_LEAST_ONE = (
    "train_images", "passes", "depth", "width", "patch", "heads", "groups", "epochs", "steps",
    "batch", "checkpoint_every", "devices", "processes",
)  # fmt: skip

AT_LEAST_ZERO = (
    "learning_rate", "weight_decay", "shift", "validation", "left_out", "warmup_epochs"
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
    left_out: int = option(0, "training images used for nothing, such as those of a search")
    train_images: int | None = option(None, "training images to use, drawn by seed; by default all")
    split_seed: int | None = option(None, "of these draws; by default the seed")
    test_rest: bool = option(False, "test on the training images that are not used, too")
    network: Network = option("preresnet", "preresnet: He 2016, resnet: Huang 2016, or vit")
    depth: int = option(20, "layers of a ResNet, 6n + 2: three stages of n blocks; blocks of a vit")
    width: int = option(16, "channels of a vit, or of a ResNet's first stage, then doubled twice")
    patch: int = option(4, "side of a vit's patches, in pixels")
    heads: int = option(3, "of a vit's attention")
    drop_path_rate: float = option(0.2, "largest drop_prob of a branch; 0 trains constant depth")
    rule: Rule = option("linear", "how drop_prob grows from the first block to the last")
    ramp: Ramp = option(
        "none", "early: the rates fall to 0, evenly, by ramp_end; late: they are 0 before ramp_end"
    )
    ramp_end: float = option(  # 50 of 300 epochs, as Liu et al. 2023 ran it
        1 / 6, "where early stochastic depth ends, or late begins, as a share of all steps"
    )
    mode: Drawing = option(
        "row", "how a step draws the samples that it drops; plan: whole layers, always as many"
    )
    groups: int = option(
        1, "equal parts of a batch that balanced mode draws apart; best a multiple of the devices"
    )
    scale_at: ScaleAt = option("train", "where 1/(1-p) is made up for; the paper does it at eval")
    skip: bool = option(True, "compute no dropped branch, unless the mode is row")
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
        check_choice("mode", self.mode, get_args(Drawing))
        check_scale_at(self.scale_at)
        for name in AT_LEAST_ONE:
            value = getattr(self, name)
            if value is not None and not value >= 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        self._check_network()
        self._check_ramp()
        self._check_plan()
        if self.data_dir == "":
            raise ValueError("data_dir must be a path, got ''")
        for name in AT_LEAST_ZERO:
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

    @property
    def whole_batch(self) -> bool:
        """Whether a step drops a layer for all of its images."""
        return self.mode in ("batch", "plan")

    @property
    def drop_mode(self) -> Mode:
        """The mode of DropPaths: of those that no plan is for, and whose rate is 0, any."""
        return "row" if self.mode == "plan" else self.mode

    @property
    def ramps(self) -> bool:
        """Whether the rates change over training, and so are data of the compiled program."""
        return self.ramp != "none"

    def _check_ramp(self) -> None:
        check_choice("ramp", self.ramp, get_args(Ramp))
        if not 0 < self.ramp_end <= 1:
            raise ValueError(f"ramp_end must be in (0, 1], got {self.ramp_end}")
        if self.ramps and self.gathers:
            raise ValueError(
                "ramp must be 'none' where balanced mode skips, since the number of rows that run "
                f"is compiled, got {self.ramp!r}: take --no-skip or --mode row"
            )

    def _check_plan(self) -> None:
        if self.mode != "plan":
            return
        if not self.skip:
            raise ValueError("skip must be true where mode is 'plan', which runs some layers only")
        if self.ramps:
            raise ValueError(
                "ramp must be 'none' where mode is 'plan', since the number of layers that run is "
                f"compiled, got {self.ramp!r}"
            )

    def _check_network(self) -> None:
        if self.network == "vit":
            if self.width % self.heads:
                raise ValueError(f"heads must divide the width of {self.width}, got {self.heads}")
        elif self.depth < 8 or self.depth % 6 != 2:
            raise ValueError(f"depth must be 6n + 2 with n at least 1, got {self.depth}")
