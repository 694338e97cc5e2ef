"""The report as one table for the terminal, and its acceptance lines."""

from collections.abc import Iterator
from itertools import groupby

from rich.console import Group
from rich.table import Table
from rich.text import Text

from benchmarks.acceptance import lines
from benchmarks.records import Record, Report, beside, memory_ratio, time_ratio

ITEM_BYTES = {"float32": 4, "bfloat16": 2}


def table(report: Report) -> Group:
    """Return the table, what did not take part, and what was reached or missed."""
    shown = Table(caption=_caption(report), caption_justify="left")
    shown.add_column("method")
    names = "rate", "step, ms", "quartiles", "to masking", "MB", "to masking", "GB/s", "to copy"
    for name in names:
        shown.add_column(name, justify="right")
    for (case, setup), group in groupby(report.records, lambda r: (r.case, r.setup)):
        title = f"{case.block}, {case.size}", f"{case.drop_prob}", "", setup
        shown.add_section()
        shown.add_row(*title, style="bold")
        for record in group:
            shown.add_row("  " + record.label, *_cells(record, report))
    verdicts = [
        Text(str(line), "green" if line.reached else "red") for line in lines(report.records)
    ]
    return Group(shown, *verdicts)


def _cells(record: Record, report: Report) -> Iterator[str]:
    low, median, high = (1e3 * seconds for seconds in record.seconds)
    masked = beside(record, report.records)
    yield f"{record.rate:.3f}"
    yield f"{median:.3g}" if median < 100 else f"{median:.0f}"
    yield f"{low:.3g} to {high:.3g}" if high < 100 else f"{low:.0f} to {high:.0f}"
    yield _ratio(time_ratio(record, masked))
    if record.case.block != "op":
        yield f"{record.memory / 1e6:.1f}"
        yield _ratio(memory_ratio(record, masked))
        return
    case, copy = record.case, beside(record, report.records, "none")
    size = case.batch * case.tokens * case.width * ITEM_BYTES[report.facts["dtype"]]
    yield from ("", "")
    yield f"{4 * size / record.median / 1e9:.1f}"  # x and dy are read, y and dx written
    yield _ratio(copy.median / record.median if copy else None)


def _ratio(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:.2f}"


def _caption(report: Report) -> str:
    facts = report.facts
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    absent = [f"Left out: {name}: {reason}." for name, reason in report.left_out.items()]
    where = f"{facts['device']}, {facts['dtype']}, {facts['cores']} cores, {facts['date']}"
    where += f", load {facts['load']:.1f} at the start"
    return "\n".join([f"{where}.", f"{versions}.", *absent])
