"""Step time and memory against drop_prob, as shares of masking, with 1 - p as the limit."""

from collections.abc import Callable, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.cases import METHODS
from benchmarks.records import Record, beside, memory_ratio, time_ratio

Ratio = Callable[[Record, Record | None], float | None]

GREYS_THEN_COLOURS = "0.7", "0.3", "C5", "C0", "C9", "C2", "C8", "C3", "C4", "C1"
HIGHEST = 2  # of what is drawn
COLOURS = dict(zip(METHODS, GREYS_THEN_COLOURS, strict=True))  # a method's in every plot


def draw(records: Sequence[Record], stem: Path) -> list[Path]:
    """Draw STEM-step.png and STEM-memory.png; return those for which there is something to draw."""
    over_rates = [
        r for r in records if r.case.block not in ("op", "decoder") and len(_rates(r, records)) > 1
    ]
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
    """Draw axes for each group and setup that there is."""
    panels = list(dict.fromkeys((r.case.group, r.setup) for r in records))
    columns = next((n for n in (4, 3, 2) if len(panels) % n == 0), min(3, len(panels)))
    lines = -(-len(panels) // columns)
    size = 3.6 * columns, 0.8 + 3 * lines
    figure = Figure(figsize=size, dpi=150, layout="constrained")
    grid = [*figure.subplots(lines, columns, squeeze=False, sharex=True, sharey=True).flat]
    for axes, (group, setup) in zip(grid, panels, strict=False):
        here = [r for r in records if (r.case.group, r.setup) == (group, setup)]
        _lines(axes, here, ratio)
        case = here[0].case
        axes.set_title(f"{case.block}, {case.size}\n{setup}", fontsize="small")
    for axes in grid[len(panels) :]:
        axes.remove()
    figure.supxlabel("drop_prob", fontsize="medium")
    shared = figure.axes[0]  # the scale is one for all
    highest = max(ratio(r, beside(r, records)) or 0 for r in records)
    shared.set_ylim(0, 1.05 * min(highest, HIGHEST))
    above = f" (above {HIGHEST}: not drawn)" if highest > HIGHEST else ""
    figure.supylabel(f"{title}, masking = 1{above}", fontsize="medium")
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
