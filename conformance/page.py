"""The report as one HTML page: the matrix in colour, then what failed and why it matters."""

from collections.abc import Sequence
from html import escape

from conformance.clauses import AREAS, CHECKS
from conformance.report import MARKS, heading
from conformance.runner import Report
from conformance.spec import clauses, title, why

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
    return f"<tr><th>{escape(report.title)}</th>{''.join(cells)}</tr>"


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
    summary = f"<summary>{escape(report.title)}: {count}</summary>"
    return f"<details open>{summary}<dl>{items}</dl></details>"
