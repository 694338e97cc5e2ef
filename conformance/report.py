"""Reports for a terminal, as JSON, as Markdown, and as one HTML page."""

import json
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from functools import cache
from html import escape
from importlib.metadata import version
from importlib.resources import files

from rich.console import Console
from rich.table import Table
from rich.text import Text

from conformance import golden
from conformance.checks import CHECKS
from conformance.runner import Report, Verdict

FINDINGS_SHOWN = 3  # of one clause
MARKS = {"pass": "✓", "FAIL": "✗", "known": "k", "not tested": "·"}
COLOURS = {"pass": "green", "FAIL": "bold red", "known": "yellow", "not tested": "dim"}
AREAS = list(dict.fromkeys(check.clause.partition("-")[0] for check in CHECKS))


@cache
def clauses() -> dict[str, str]:
    """Return the text of each clause of SPEC.md, its title first."""
    spec = files("droppath").joinpath("SPEC.md").read_text(encoding="utf-8")
    parts = re.split(r"^### |^## .*$", spec, flags=re.MULTILINE)
    return {part.split()[0]: part.strip() for part in parts if re.match(r"[A-Z]+-\d+  ", part)}


def title(clause: str) -> str:
    """Return the title of a clause."""
    return clauses()[clause].partition(" ·")[0].removeprefix(clause).strip()


def why(clause: str) -> str:
    """Return why a clause matters, as SPEC.md says it, or else its title."""
    if clause not in clauses():
        return "the same key must give the same numbers in both"
    reason = re.search(r"\*Why:\* (.*?)(\n\n|\n\*|$)", clauses()[clause], re.DOTALL)
    return " ".join(reason[1].split()) if reason else title(clause)


def heading() -> str:
    """Return the line that says what was run."""
    return f"droppath {version('droppath')}, SPEC 1.0, vectors {golden.digest()}"


def print_report(report: Report, console: Console) -> None:
    """Print a line for each area, then each failure with what was wanted and what came."""
    console.print()
    console.print(Text(report.info.name, "bold"))
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
        return "[dim]not tested[/dim]", f"[dim]no claim of {verdicts[0].untested}[/dim]"
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
        console.print(Text(f"    why  {why(verdict.clause)}"))


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
        *(f"| {r.info.name} | {' | '.join(_cell(r, area) for area in AREAS)} |" for r in reports),
    ]
    return "\n".join(
        [*lines, "", f"✓ pass, · not tested, else the clauses that fail. {heading()}", ""]
    )


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
            "conforms": report.conforms,
            "verdicts": [asdict(v) | {"result": v.result} for v in report.verdicts],
        }
        for report in reports
    ]
    return json.dumps({"heading": heading(), "reports": data}, indent=1, allow_nan=False) + "\n"


PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>droppath conformance</title>
<style>
 body {{ font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 96rem; padding: 0 1rem;
   color: #1c2430; }}
 table {{ border-collapse: collapse; }} td, th {{ padding: .3rem .12rem; text-align: center; }}
 th {{ font-weight: 500; text-align: left; white-space: nowrap; }}
 thead td {{ font-size: .75rem; color: #667; border-bottom: 1px solid #ccd; }}
 .cell {{ display: inline-block; width: 1.15rem; height: 1.15rem; border-radius: 4px; color: #fff;
   font-size: .8rem; line-height: 1.15rem; text-align: center; vertical-align: middle; }}
 .pass {{ background: #2f9e6e; }} .FAIL {{ background: #d6453d; }} .known {{ background: #d99a1c; }}
 .not {{ background: #e4e7ee; }} .scroll {{ overflow-x: auto; }}
 details {{ margin: .6rem 0; }} code {{ white-space: pre-wrap; }} dt {{ margin-top: .6rem; }}
 dd {{ margin: 0 0 0 1rem; color: #445; }}
</style>
<h1>DropPath conformance</h1><p>{heading}. Point at a cell for its clause.</p>
<div class="scroll"><table><thead><tr><td></td>{areas}</tr></thead>{rows}</table></div>
<p><span class="cell pass">✓</span> pass <span class="cell FAIL">✗</span> fails
<span class="cell known">k</span> fails, as known <span class="cell not"></span> not tested</p>
<h2>Failures</h2>{failures}
</html>
"""


def to_html(reports: Sequence[Report]) -> str:
    """Return one self-contained page: the matrix in colour, then what failed and why it matters."""
    counts = {area: sum(c.clause.startswith(f"{area}-") for c in CHECKS) for area in AREAS}
    areas = "".join(f'<td colspan="{n}">{area}</td>' for area, n in counts.items())
    rows = "".join(_html_row(report) for report in reports)
    failures = "".join(_html_failures(report) for report in reports) or "<p>None.</p>"
    return PAGE.format(heading=escape(heading()), areas=areas, rows=rows, failures=failures)


def _html_row(report: Report) -> str:
    by_clause = {verdict.clause: verdict for verdict in report.verdicts}
    cells = []
    for check in CHECKS:
        verdict = by_clause.get(check.clause)
        result = verdict.result if verdict else "not tested"
        hint = escape(f"{check.clause} {title(check.clause)}: {result}", quote=True)
        mark = "" if result == "not tested" else MARKS[result]
        cells.append(
            f'<td><span class="cell {result.split()[0]}" title="{hint}">{mark}</span></td>'
        )
    return f"<tr><th>{escape(report.info.name)}</th>{''.join(cells)}</tr>"


def _html_failures(report: Report) -> str:
    failed = [verdict for verdict in report.verdicts if verdict.findings]
    if not failed:
        return ""
    items = "".join(
        f"<dt><b>{v.clause}</b> {escape(title(v.clause) if v.clause in clauses() else '')}</dt>"
        f"<dd>{escape(why(v.clause))}<br><code>{escape(v.findings[0].case)}\n"
        f"want {escape(v.findings[0].want)}\ngot  {escape(v.findings[0].got)}</code></dd>"
        for v in failed
    )
    count = f"{len(failed)} clause{'s' if len(failed) > 1 else ''}"
    summary = f"<summary>{escape(report.info.name)}: {count}</summary>"
    return f"<details open>{summary}<dl>{items}</dl></details>"
