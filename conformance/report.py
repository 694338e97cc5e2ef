"""Reports for a terminal, as JSON, and as Markdown. Not here: the HTML page (page.py)."""

import json
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict

from rich.console import Console
from rich.table import Table
from rich.text import Text

import droppath
from conformance import golden, spec
from conformance.clauses import AREAS, CHECK_OF, file_of
from conformance.runner import Report, Verdict
from conformance.text import visible

FINDINGS_SHOWN = 3  # of one clause
MARKS = {"pass": "✓", "FAIL": "✗", "known": "k", "not tested": "·"}
COLOURS = {"pass": "green", "FAIL": "bold red", "known": "yellow", "not tested": "dim"}


def heading() -> str:
    """Return the line that says what was run."""
    return f"droppath {droppath.__version__}, SPEC {spec.version()}, vectors {golden.digest()}"


def print_report(report: Report, console: Console) -> None:
    """Print a line for each area, then each failure with what was wanted and what came."""
    console.print()
    console.print(Text(report.title, "bold"))
    table = Table(box=None, pad_edge=False, show_header=False)
    for area, verdicts in by_area(report).items():
        table.add_row(area, *_area(verdicts))
    console.print(table)
    for verdict in report.verdicts:
        _print_findings(verdict, console)
    console.print("[green]conforms[/green]" if report.conforms else "[red]does not conform[/red]")


def by_area(report: Report) -> dict[str, list[Verdict]]:
    """Return the verdicts by area."""
    areas: dict[str, list[Verdict]] = defaultdict(list)
    for verdict in report.verdicts:
        areas[verdict.clause.partition("-")[0]].append(verdict)
    return areas


def _area(verdicts: list[Verdict]) -> tuple[str, str]:
    failed = [v.clause for v in verdicts if v.result == "FAIL"]
    known = [v.clause for v in verdicts if v.result == "known"]
    untested = [v.clause for v in verdicts if v.untested]
    tested = sum(not v.untested for v in verdicts)
    if not tested and not failed:
        return "[dim]not tested[/dim]", f"[dim]{verdicts[0].untested}[/dim]"
    result = f"[red]FAIL[/red] {' '.join(failed)}" if failed else "[green]pass[/green]"
    result += f" [yellow]known[/yellow] {' '.join(known)}" if known else ""
    cases = f"{tested} of {len(verdicts)} clauses, {sum(v.cases for v in verdicts)} cases"
    return result, cases + (f" [dim](not tested: {' '.join(untested)})[/dim]" if untested else "")


def _print_findings(verdict: Verdict, console: Console) -> None:
    if verdict.known:
        console.print(f"  [yellow]{verdict.clause}[/yellow] known:", Text(verdict.known))
        return
    for finding in verdict.findings[:FINDINGS_SHOWN]:
        steps = "" if finding.steps is None else f" ({finding.steps:g} steps apart)"
        console.print(f"  [red]{verdict.clause}[/red]", Text(finding.case))
        console.print(Text(f"    want {finding.want}\n    got  {finding.got}{steps}"))
    if len(verdict.findings) > FINDINGS_SHOWN:
        console.print(f"    and {len(verdict.findings) - FINDINGS_SHOWN} more cases")
    if verdict.findings:
        console.print(Text(f"    why  {spec.why(verdict.clause)}"))
        if verdict.clause in CHECK_OF:
            console.print(Text(f"    see  {file_of(verdict.clause)}"))


def matrix(reports: Sequence[Report]) -> Table:
    """Return implementations x areas, with a mark for each clause."""
    legend = "  ".join(f"{mark} {result}" for result, mark in MARKS.items())
    table = Table(box=None, padding=(0, 1, 0, 0), caption=legend)  # 80 columns hold all areas
    table.add_column("", overflow="fold")
    for area in AREAS:
        table.add_column(area, no_wrap=True)
    for report in reports:
        areas = by_area(report)
        table.add_row(Text(report.backend), *(_marks(areas.get(area, [])) for area in AREAS))
    return table


def _marks(verdicts: list[Verdict]) -> Text:
    """Return a mark for each clause of an area, or one where all are alike."""
    results = [verdict.result for verdict in verdicts]
    results = results[:1] if len(set(results)) == 1 else results
    return Text.assemble(*((MARKS[result], COLOURS[result]) for result in results))


def to_markdown(reports: Sequence[Report]) -> str:
    """Return the matrix as a Markdown table: the failed clauses of each area."""
    lines = [
        f"| implementation | {' | '.join(AREAS)} |",
        "|---" * (len(AREAS) + 1) + "|",
        *(
            f"| {plain(r.title)} | {' | '.join(_cell(r, area) for area in AREAS)} |"
            for r in reports
        ),
    ]
    return "\n".join(
        [*lines, "", f"✓ pass, · not tested, else the clauses that fail. {heading()}", ""]
    )


def plain(text: str) -> str:
    """Return text that Markdown shows as it is, in a cell of a table too."""
    return re.sub(r"([\\`*\[\]<>|&~])", r"\\\1", visible(text))


def _cell(report: Report, area: str) -> str:
    verdicts = by_area(report).get(area, [])
    for result in ("FAIL", "known"):
        if those := [v.clause.removeprefix(f"{area}-") for v in verdicts if v.result == result]:
            return f"{MARKS[result]} {' '.join(those)}"
    return MARKS["pass"] if any(not v.untested for v in verdicts) else MARKS["not tested"]


def to_json(reports: Sequence[Report]) -> str:
    """Return the reports as JSON text."""
    data = [
        {
            "backend": report.backend,
            "name": report.info.name,
            "claims": sorted(report.info.claims),
            "complete": report.complete,
            "conforms": report.conforms,
            "verdicts": [asdict(v) | {"result": v.result} for v in report.verdicts],
        }
        for report in reports
    ]
    return json.dumps({"heading": heading(), "reports": data}, indent=1, allow_nan=False) + "\n"
