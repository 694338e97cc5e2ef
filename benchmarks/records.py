"""What was measured, as data: records, and the report that is written as JSON and read again."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.cases import MASKED, Case


@dataclass(frozen=True)
class Record:
    """One method on one case: a step is forward and backward.

    setup: "torch", "torch compiled" or "flax". seconds: lower quartile, median, upper quartile of
    `repeats` steps. ratios: method -> the median over the rounds of this step to that method's in
    the same round, which a slow minute of the machine falls on alike. memory: bytes at the peak,
    see the prepared steps of the setup. rate: the share of samples dropped in `draws` draws of a
    batch.
    """

    case: Case
    setup: str
    method: str
    label: str
    seconds: tuple[float, float, float]
    repeats: int
    ratios: dict[str, float]
    memory: int
    rate: float
    draws: int

    @property
    def median(self) -> float:
        """The median of a step in seconds."""
        return self.seconds[1]

    @property
    def spread(self) -> float:
        """The distance of the quartiles of a step, as a share of its median."""
        return (self.seconds[2] - self.seconds[0]) / self.median


@dataclass(frozen=True)
class Report:
    """facts: the machine, the versions, the command. left_out: what did not take part, and why."""

    facts: dict[str, Any]
    left_out: dict[str, str]
    records: list[Record]

    def to_json(self) -> str:
        """Return the report as text that `from_json` reads."""
        return json.dumps(asdict(self), indent=1) + "\n"

    @staticmethod
    def from_json(text: str) -> "Report":
        """Return the report that `to_json` wrote."""
        data = json.loads(text)
        records = [_record(entry) for entry in data["records"]]
        return Report(data["facts"], data["left_out"], records)


def beside(record: Record, records: Iterable[Record], method: str = MASKED) -> Record | None:
    """Return the record of another method on the same case in the same setup, if there is one."""
    place = record.case, record.setup, method
    return next((r for r in records if (r.case, r.setup, r.method) == place), None)


def time_ratio(record: Record, other: Record | None) -> float | None:
    """Return the median ratio of the steps of two methods."""
    return record.ratios.get(other.method) if other else None


def memory_ratio(record: Record, other: Record | None) -> float | None:
    """Return the ratio of the memories, None where the other takes none."""
    return record.memory / other.memory if other and other.memory else None


def _record(entry: dict[str, Any]) -> Record:
    case = entry["case"] | {name: tuple(entry["case"][name]) for name in ("setups", "methods")}
    return Record(**entry | {"case": Case(**case), "seconds": tuple(entry["seconds"])})
