"""What was found, as data: a row for each model, and the report that is written as JSON.

A killed run leaves a report with the rows that it had; `Report.read` takes them up again.
"""

import json
from dataclasses import asdict, dataclass, field
from typing import Any

STEPS = ("build", "convert", "rates", "keyed", "skip", "time")
PASSES = ("convert", "rates", "keyed")  # what the counts are of


@dataclass(frozen=True)
class Row:
    """What became of a model. A figure is None where its step was not reached, or failed.

    errors: step -> the error in one line. layers: DropPaths after `convert`; identities: those of
    them that were nn.Identity. blocks: modules that hold layers. skipped: layers all of whose calls
    are skipped; reasons: why others are not -> how many. difference: the largest one in outputs and
    gradients before and after `skip_dropped`, of the largest number. ours, masked: lower quartile,
    median and upper quartile of a step in seconds; ratio: the median over the rounds.
    """

    title: str
    tuned_on: bool
    batch: int
    shape: tuple[int, ...]
    errors: dict[str, str] = field(default_factory=dict)
    layers: int | None = None
    identities: int | None = None
    blocks: int | None = None
    skipped: int | None = None
    reasons: dict[str, int] = field(default_factory=dict)
    difference: float | None = None
    ratio: float | None = None
    ours: tuple[float, float, float] | None = None
    masked: tuple[float, float, float] | None = None
    rounds: int | None = None

    def passes(self, *steps: str) -> bool:
        """Return whether there was a converted model, and none of these steps failed."""
        return self.layers is not None and not set(steps) & self.errors.keys()


@dataclass(frozen=True)
class Point:
    """A model's step at a rate, skipping to masking: the median ratio over the rounds.

    rows: the share that a compiled program runs, kept_capacity / b, the mean over all layers.
    """

    drop_prob: float
    eager: float
    compiled: float
    rows: float
    rounds: int


@dataclass
class Report:
    """facts: the machine, the versions, the command. sweep: a model's steps over rates."""

    facts: dict[str, Any]
    rows: list[Row] = field(default_factory=list)
    sweep: list[Point] = field(default_factory=list)
    sweep_facts: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> str:
        """Return the report as text that `from_json` reads."""
        return json.dumps(asdict(self), indent=1) + "\n"

    @staticmethod
    def from_json(text: str) -> "Report":
        """Return the report that `to_json` wrote."""
        data = json.loads(text)
        rows = [Row(**_tuples(entry)) for entry in data["rows"]]
        sweep = [Point(**entry) for entry in data["sweep"]]
        return Report(data["facts"], rows, sweep, data["sweep_facts"])

    def put(self, row: Row) -> None:
        """Take a model's row in place of the one it had."""
        titles = [each.title for each in self.rows]
        if row.title in titles:
            self.rows[titles.index(row.title)] = row
        else:
            self.rows.append(row)


def _tuples(entry: dict[str, Any]) -> dict[str, Any]:
    """Return an entry with tuples where JSON has lists."""
    return {key: tuple(value) if isinstance(value, list) else value for key, value in entry.items()}
