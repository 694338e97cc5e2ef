"""What the benchmark must show: each demand a line, with the figure that was measured.

Each figure is the worst over the cases and, for steps and memory, over the setups it is made for.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import sqrt

from benchmarks.cases import REFERENCE
from benchmarks.records import Record, beside, memory_ratio, time_ratio
from droppath import kept_capacity, planned_depth

STEP_LIMITS = {0.1: 0.92, 0.4: 0.65, 0.5: 0.55}  # (1 - p) + 0.05, and a gain at 0.1
MEMORY_SLACK = 0.10
DINOV2_LIMIT = 1.02
NO_DROP_LIMIT = 1.03
PLAN_SLACK = {"torch": 0.03, "torch compiled": 0.03, "flax": 0.05}  # beyond planned_depth / L
SPREAD_SLACK = 0.05  # of the quartiles' distance, as a share of the median; machines are restless
DEVIATIONS = 4  # of a binomial: passed by chance 6 times in 100,000


@dataclass(frozen=True)
class Line:
    """A demand, and the figure that should be at most the limit."""

    demand: str
    figure: float
    limit: float

    @property
    def reached(self) -> bool:
        """Whether the figure is within the limit."""
        return self.figure <= self.limit

    def __str__(self) -> str:
        word = "reached" if self.reached else "missed"
        return f"{word}: {self.demand}: {self.figure:.3f}, at most {self.limit:.3f}"


def lines(records: Sequence[Record]) -> list[Line]:
    """Return the demands that these records can be held to."""
    ours = [record for record in records if record.method == "balanced"]
    found: list[Line] = []
    for setup in dict.fromkeys(record.setup for record in ours):
        here = [record for record in ours if record.setup == setup]
        judged = [record for record in here if record.case.group in REFERENCE]
        for p, limit in STEP_LIMITS.items():
            at_p = [record for record in judged if record.case.drop_prob == p]
            found += _at_rate(f"{setup}, balanced at p = {p}", at_p, records, limit)
        small = [record for record in here if record.case.group == "batch-2"]
        found += _at_batch_2(f"{setup}, balanced at batch 2", small, records)
    for record in records:
        found += _of_a_plan(record, records) if record.method == "plan" else ()
    return found


def _of_a_plan(record: Record, records: Sequence[Record]) -> Iterable[Line]:
    """Yield step time to that of all layers, and how much more it varies."""
    full, case = beside(record, records, "none"), record.case
    if full is None:
        return
    what = f"{record.setup}, a plan for {case.size}"
    share = planned_depth(case.rates) / case.depth
    ratios = [time_ratio(record, full)]
    yield from _worst(f"{what}, step to no drop", ratios, share + PLAN_SLACK[record.setup])
    spread = record.spread - full.spread
    yield Line(f"{what}, distance of the quartiles beyond that of no drop", spread, SPREAD_SLACK)


def _at_rate(
    what: str, ours: list[Record], records: Sequence[Record], limit: float
) -> Iterable[Line]:
    """Yield step time to masking, to DINOv2's method, and memory to masking."""
    if not ours:
        return
    p = ours[0].case.drop_prob
    masked = [(record, beside(record, records)) for record in ours]
    subset = [(record, beside(record, records, "dinov2")) for record in ours]
    yield from _worst(f"{what}, step to masking", [time_ratio(*pair) for pair in masked], limit)
    memory = [memory_ratio(*pair) for pair in masked]
    yield from _worst(f"{what}, memory to masking", memory, 1 - p + MEMORY_SLACK)
    rates = ", ".join(f"{rate:.3f}" for rate in sorted({r.rate for _, r in subset if r}))
    dinov2 = f"{what}, step to DINOv2's method (its rate: {rates})"
    yield from _worst(dinov2, [time_ratio(*pair) for pair in subset], DINOV2_LIMIT)
    each = f"{what}, step for each row that runs to DINOv2's method"
    yield from _worst(each, [_row_ratio(*pair) for pair in subset], DINOV2_LIMIT)


def _row_ratio(ours: Record, subset: Record | None) -> float | None:
    """Return the ratio of the steps, each divided by the number of rows that it computes."""
    ratio = time_ratio(ours, subset)
    if ratio is None or subset is None:
        return None
    case = ours.case
    computed: float = kept_capacity(case.drop_prob, case.batch)
    if ours.setup == "torch":  # eager: the rows that are kept, on average
        computed = case.batch * (1 - case.drop_prob)
    return ratio * case.batch * (1 - subset.rate) / computed


def _at_batch_2(what: str, ours: list[Record], records: Sequence[Record]) -> Iterable[Line]:
    """Yield the distance of the realised rate from p, and step time to no drop."""
    if not ours:
        return
    case, draws = ours[0].case, ours[0].draws
    p = case.drop_prob
    bound = DEVIATIONS * sqrt(p * (1 - p) / (draws * case.batch))
    yield Line(
        f"{what}, distance of the realised rate from {p}", max(abs(r.rate - p) for r in ours), bound
    )
    plain = [time_ratio(record, beside(record, records, "none")) for record in ours]
    yield from _worst(f"{what}, step to no drop", plain, NO_DROP_LIMIT)


def _worst(demand: str, ratios: Iterable[float | None], limit: float) -> Iterable[Line]:
    known = [ratio for ratio in ratios if ratio is not None]
    if known:
        yield Line(demand, max(known), limit)
