"""`python -m conformance`: our installed backends through the checks, then against each other.

Exit status: 0 conforms, 1 does not, 2 usage or a broken adapter.
"""

import argparse
import sys
import tomllib
from collections.abc import Sequence
from functools import partial
from itertools import combinations
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from conformance import golden
from conformance.clauses import CHECK_OF, CHECKS
from conformance.cross import cross_check
from conformance.loading import installed, load
from conformance.page import to_html
from conformance.protocol import BrokenAdapter
from conformance.report import matrix, print_report, to_json, to_markdown
from conformance.runner import Report, expect, run_checks


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the suite as the command line says; return the exit status."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.cross and (options.only or options.backend):
        parser.error("--cross takes two backends and neither others nor --only")
    try:
        golden.load()
        known = _read_known(options)
        _check_writable(options)
        reports = [expect(r, known.get(r.backend, {})) for r in _run(options)]
        if all(verdict.untested for report in reports for verdict in report.verdicts):
            raise ValueError("nothing was tested: no backend is installed, or none claims it")
    except (BrokenAdapter, ValueError, OSError) as error:
        reason = " ".join(str(error).split())
        kind = "broken adapter: " if isinstance(error, BrokenAdapter) else ""
        print(f"{kind}{reason}", file=sys.stderr)
        return 2
    console = Console()
    _show(options, reports, console)
    good = all(report.conforms for report in reports)
    word = "conforms" if good else "does not conform"
    names = ", ".join(report.backend for report in reports)
    console.print(f"\n[bold]{word}[/bold]:", Text(names))
    return 0 if good else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m conformance", description=__doc__)
    add = parser.add_argument
    add("backend", nargs="*", help="an adapter of the suite, or package.module:function")
    add("--cross", nargs=2, metavar="BACKEND", help="only hold two backends against each other")
    add("--device", help='where the backend runs, as its framework names it: "cuda", "gpu", "tpu"')
    add("--compiled", action="store_true", help="under torch.compile or jax.jit")
    add("--only", action="append", choices=CHECK_OF, metavar="CLAUSE", help="may be repeated")
    add("--known", type=Path, metavar="FILE", help="TOML: by backend, CLAUSE = reason; strict")
    add("--matrix", action="store_true", help="print implementations x clauses only")
    add("--json", type=Path, metavar="FILE", help="write the reports")
    add("--markdown", type=Path, metavar="FILE", help="write the matrix")
    add("--html", type=Path, metavar="FILE", help="write one page to look at")
    return parser


WRITERS = {"json": to_json, "markdown": to_markdown, "html": to_html}


def _check_writable(options: argparse.Namespace) -> None:
    """Raise OSError for a file that cannot be written, before the run rather than after."""
    for name in WRITERS:
        if file := getattr(options, name):
            file.touch()


def _read_known(options: argparse.Namespace) -> dict[str, dict[str, str]]:
    """Return the known failures by backend. Raises ValueError for what there is not."""
    file: Path | None = options.known
    known = tomllib.loads(file.read_text(encoding="utf-8")) if file else {}
    names = options.cross or options.backend or installed()
    for backend, reasons in known.items():
        if backend not in names:
            raise ValueError(f"{file}: [{backend}] must be one of {', '.join(names)}")
        if not isinstance(reasons, dict):
            raise ValueError(f"{file}: [{backend}] must be a table of CLAUSE = reason")
        for clause, reason in reasons.items():
            if clause not in CHECK_OF or not (isinstance(reason, str) and reason):
                raise ValueError(f"{file}: [{backend}] {clause} must be a clause with a reason")
    return known


def _run(options: argparse.Namespace) -> list[Report]:
    settings = {"device": options.device} if options.device else {}
    settings |= {"compiled": True} if options.compiled else {}
    names = options.cross or options.backend or installed()
    backends = {n: load(n, **(settings if n != "reference" else {})) for n in names}
    keyed = [name for name, b in backends.items() if "keyed" in b.info().claims]
    pairs = [tuple(options.cross)] if options.cross else [*combinations(keyed, 2)]
    pairs = [] if options.only else pairs
    clauses = tuple(options.only or ())
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
    stderr = Console(stderr=True)
    with Progress(*columns, TimeElapsedColumn(), console=stderr, transient=True) as progress:
        total = 0 if options.cross else len(names) * (len(clauses) or len(CHECKS))
        task = progress.add_task("", total=total + len(pairs))
        reports = []
        for name, backend in {} if options.cross else backends.items():
            progress.update(task, description=name)
            reports.append(run_checks(name, backend, clauses, partial(progress.advance, task)))
        for pair in pairs:
            progress.update(task, description=" x ".join(pair))
            reports.append(cross_check(pair, backends[pair[0]], backends[pair[1]]))
            progress.advance(task)
    return reports


def _show(options: argparse.Namespace, reports: list[Report], console: Console) -> None:
    for report in [] if options.matrix else reports:
        print_report(report, console)
    single = [report for report in reports if " x " not in report.backend]
    if options.matrix:
        console.print(matrix(single))
    for name, write in WRITERS.items():
        if file := getattr(options, name):
            file.write_text(write(reports if name == "json" else single), encoding="utf-8")
