"""Step time and memory against drop_prob, as shares of masking, with 1 - p as the limit."""

from collections.abc import Callable, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.cases import METHODS
from benchmarks.records import Record, beside, memory_ratio, time_ratio

Ratio = Callable[[Record, Record | None], float | None]

GREYS_THEN_COLOURS = "0.7", "0.3", "C5", "C0", "C9", "C2", "C8", "C3", "C4"
HIGHEST = 2  # of what is drawn
COLOURS = dict(zip(METHODS, GREYS_THEN_COLOURS, strict=True))  # a method's in every plot


def draw(records: Sequence[Record], stem: Path) -> list[Path]:
    """Draw STEM-step.png and STEM-memory.png; return those for which there is something to draw."""
    over_rates = [r for r in records if r.case.block != "op" and len(_rates(r, records)) > 1]
    if not over_rates:
        return []
    quantities: dict[str, tuple[str, Ratio]] = {
        "step": ("step time", time_ratio),
        "memory": ("peak memory", memory_ratio),
    }
    paths = []
    for name, (title, ratio) in quantities.items():
        paths.append(stem.with_name(f"{stem.name}-{name}.png"))
        _figure(over_rates, title, ratio).savefig(paths[-1])
    return paths


def _rates(record: Record, records: Sequence[Record]) -> set[float]:
    """Return the rates at which a record's group was measured."""
    return {r.case.drop_prob for r in records if r.case.group == record.case.group}


def _figure(records: Sequence[Record], title: str, ratio: Ratio) -> Figure:
    """Draw a line of axes for each group, a column for each setup."""
    groups = list(dict.fromkeys(r.case.group for r in records))
    setups = list(dict.fromkeys(r.setup for r in records))
    size = 4.2 * len(setups), 0.8 + 3 * len(groups)
    figure = Figure(figsize=size, dpi=150, layout="constrained")
    grid = figure.subplots(len(groups), len(setups), squeeze=False, sharex=True, sharey=True)
    for group, row in zip(groups, grid, strict=True):
        for setup, axes in zip(setups, row, strict=True):
            here = [r for r in records if (r.case.group, r.setup) == (group, setup)]
            if not here:
                axes.set_visible(False)
                continue
            _lines(axes, here, ratio)
            case = here[0].case
            axes.set_title(f"{case.block}, {case.size}\n{setup}", fontsize="small")
    figure.suptitle(f"{title}, masking = 1")
    figure.supxlabel("drop_prob")
    shared = figure.axes[0]  # the scale is one for all
    highest = max(ratio(r, beside(r, records)) or 0 for r in records)
    shared.set_ylim(0, 1.05 * min(highest, HIGHEST))
    if highest > HIGHEST:
        figure.supylabel(f"what is above {HIGHEST} is not drawn", fontsize="small")
    drawn = [line for axes in figure.axes for line in axes.lines]
    handles = {str(line.get_label()): line for line in drawn}
    figure.legend(handles.values(), handles, loc="outside right upper", frameon=False)
    return figure


def _lines(axes: Axes, records: Sequence[Record], ratio: Ratio) -> None:
    limit = sorted({r.case.drop_prob for r in records})
    axes.plot(limit, [1 - p for p in limit], "k--", linewidth=1, label="1 - p")
    for method in dict.fromkeys(r.method for r in records):
        points = [(r, ratio(r, beside(r, records))) for r in records if r.method == method]
        axes.plot(
            [r.case.drop_prob for r, share in points if share is not None],
            [share for _, share in points if share is not None],
            ".-",
            color=COLOURS[method],
            label=METHODS[method],
            linewidth=2 if method == "balanced" else 1,
        )
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
