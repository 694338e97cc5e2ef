"""A model of another library taken through `convert`, rates, `keyed`, `skip_dropped` and time.

Runs in a child (command.py). A step that fails is an error in the model's row; the steps after it
are tried all the same, except where there is no converted model. Not here: how the model is made.
"""

from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.child import Say
from benchmarks.measure import hold_memory, interleave, median_ratio, quartiles
from benchmarks.models.listed import THREADS, Model
from benchmarks.models.rows import STEPS, Row
from benchmarks.models.torch_build import build, inputs
from benchmarks.models.torch_step import floats, set_same_rate, step
from droppath import drop_path_rates, key
from droppath_torch import DropPath, convert, keyed, set_drop_probs, skip_dropped, summary
from droppath_torch.foreign import is_place, is_theirs

EXAMPLE = 8  # samples where no time is taken: the trial of skip_dropped needs 4
TIMED_RATE = 0.4
WIDEST = torch.finfo(torch.float32).eps ** 0.5  # between masking and skipping, of the largest


class Wrong(Exception):
    """What should hold does not; the text says what."""


def try_model(model: Model, tuned_on: bool, seconds: float, say: Say) -> Row:
    """Return the row of a model, timed for about `seconds`."""
    hold_memory()
    torch.set_num_threads(THREADS)
    trial = Trial(model, seconds)
    errors: dict[str, str] = {}
    for name in STEPS:
        say(name)
        try:
            getattr(trial, name)()
        except Exception as error:
            errors[name] = f"{type(error).__name__}: {str(error).strip()}".splitlines()[0]
            if name in ("build", "convert"):
                break
    return Row(model.title, tuned_on, model.batch, model.shape, errors, **trial.found)


class Trial:
    """A method for each step, in the order of STEPS; what they find is in `found`."""

    def __init__(self, model: Model, seconds: float) -> None:
        self.model, self.seconds = model, seconds
        self.found: dict[str, Any] = {}

    def build(self) -> None:
        """Make the model, and count where its library has an Identity."""
        self.theirs = build(self.model)
        self.batch = inputs(self.model, self.theirs, EXAMPLE)
        named = self.theirs.named_modules()
        self.found["identities"] = sum(is_place(module, path) for path, module in named)

    def convert(self) -> None:
        """Convert a copy of it."""
        self.ours = convert(deepcopy(self.theirs), mode="balanced")
        _must(not any(map(is_theirs, self.ours.modules())), "a layer of the library is left")
        self.layers = [m for m in self.ours.modules() if isinstance(m, DropPath)]
        self.found["layers"] = len(self.layers)

    def rates(self) -> None:
        """Set one rate for each layer, then for each block, and train a step."""
        rates = drop_path_rates(0.3, len(self.layers))
        set_drop_probs(self.ours, rates)
        _must([layer.drop_prob for layer in self.layers] == rates, "rates by layer are not set")
        holders: dict[DropPath, nn.Module] = {}
        for block in self.ours.modules():
            for layer in block.children():
                if isinstance(layer, DropPath):
                    holders.setdefault(layer, block)
        blocks = [*dict.fromkeys(holders[layer] for layer in self.layers)]
        self.found["blocks"] = len(blocks)
        rates = drop_path_rates(0.3, len(blocks))
        set_drop_probs(self.ours, rates)
        want = [rates[blocks.index(holders[layer])] for layer in self.layers]
        _must([layer.drop_prob for layer in self.layers] == want, "rates by block are not set")
        _check_finite(step(self.ours, self.batch))

    def keyed(self) -> None:
        """Compare outputs by one key under two of torch's seeds, and by another key."""
        set_drop_probs(self.ours, TIMED_RATE)
        once, again = (self.outputs(7, seed) for seed in (1, 2))
        if not _equal(once, again):
            set_drop_probs(self.ours, 0.0)
            alike = _equal(self.outputs(7, 1), self.outputs(7, 2))
            why = "masks do not repeat" if alike else "the model draws at rate 0 too"
            raise Wrong(f"one key gives two outputs: {why}")
        _must(not _equal(once, self.outputs(8, 1)), "two keys give one output")

    def skip(self) -> None:
        """Skip, and compare outputs and gradients with masking's by one key."""
        set_drop_probs(self.ours, TIMED_RATE)
        want = self.stepped(7)
        skip_dropped(self.ours, **self.batch)
        why = [layer.why_masked or "" for layer in self.layers]
        self.found["skipped"] = why.count("")
        self.found["reasons"] = {reason: why.count(reason) for reason in why if reason}
        _must(len(summary(self.ours).layers) >= len(why), "summary does not show all layers")
        got = self.stepped(7)
        self.found["difference"] = difference = _difference(got, want)
        _must(difference <= WIDEST, f"skipping differs from masking by {difference:.1e}")

    def time(self) -> None:
        """Time steps of the two by turns, their layers at one rate, the Identities at 0."""
        set_same_rate(self.theirs, self.ours, TIMED_RATE)
        batch = inputs(self.model, self.theirs, self.model.batch)
        times = interleave(
            {"masked": lambda: step(self.theirs, batch), "ours": lambda: step(self.ours, batch)},
            self.seconds,
        )
        self.found |= {name: quartiles(taken) for name, taken in times.items()}
        self.found["ratio"] = median_ratio(times["ours"], times["masked"])
        self.found["rounds"] = len(times["ours"])

    def outputs(self, word: int, seed: int) -> list[Tensor]:
        """Return the outputs by a key, under a seed of torch's."""
        torch.manual_seed(seed)
        with torch.no_grad(), keyed(self.ours, key(word)):
            return floats(self.ours(**self.batch))

    def stepped(self, word: int) -> list[Tensor]:
        """Return the outputs and gradients by a key."""
        torch.manual_seed(0)
        with keyed(self.ours, key(word)):
            return step(self.ours, self.batch)


def _equal(xs: list[Tensor], ys: list[Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(xs, ys, strict=True))


def _difference(got: list[Tensor], want: list[Tensor]) -> float:
    """Return the largest difference, as a share of the tensor's largest number.

    Of the median tensor's if that is larger: a gradient of 0 but for rounding has no scale.
    """
    largest = torch.stack([y.abs().max() for y in want if y.numel()])
    floor = largest.median()
    gaps = [(x - y).abs().max() for x, y in zip(got, want, strict=True) if y.numel()]
    return float((torch.stack(gaps) / largest.clamp(min=floor)).max().detach())


def _check_finite(ys: list[Tensor]) -> None:
    _must(all(bool(y.isfinite().all()) for y in ys), "the step is not finite")


def _must(holds: bool, text: str) -> None:
    if not holds:
        raise Wrong(text)
