"""`python -m conformance`: our installed backends through the checks, then against each other.

Exit status: 0 conforms, 1 does not, 2 usage or a broken adapter, 130 interrupted.
"""

import argparse
import os
import sys
import tomllib
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import ExitStack
from itertools import combinations
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from conformance import golden
from conformance.clauses import CHECK_OF, CHECKS
from conformance.cross import cross_check
from conformance.loading import attempt, installed, start
from conformance.page import to_html
from conformance.process import Apart
from conformance.protocol import BrokenAdapter, Info
from conformance.report import matrix, print_report, to_json, to_markdown
from conformance.runner import Report, expect, run_checks
from conformance.text import one_line, visible


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the suite as the command line says; return the exit status.

    Where KeyboardInterrupt is raised, what was done until then is written first.
    """
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.cross and (options.only or options.backend):
        parser.error("--cross takes two backends and neither others nor --only")
    try:
        golden.checks()  # reads every vector file
        known = _read_known(options)
        _check_writable(options)
        reports = _run(options, known)
        if all(verdict.untested for report in reports for verdict in report.verdicts):
            raise ValueError("nothing was tested: no backend is installed, or none claims it")
        _write(options, reports)
    except (BrokenAdapter, ValueError, OSError) as error:
        kind = "broken adapter: " if isinstance(error, BrokenAdapter) else ""
        print(f"{kind}{one_line(error)}", file=sys.stderr)
        return 2
    console = Console()
    _print(options, reports, console)
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
        file: Path | None = getattr(options, name)
        if file and (
            file.is_dir() or not os.access(file if file.exists() else file.parent, os.W_OK)
        ):
            raise OSError(f"--{name} must name a file that can be written, got {file}")


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


def _run(options: argparse.Namespace, known: dict[str, dict[str, str]]) -> list[Report]:
    """Return the reports on the backends, then on pairs of them."""
    reports: dict[str, Report] = {}  # as far as they are
    try:
        _fill(options, reports)
    except KeyboardInterrupt:
        if any(report.verdicts for report in reports.values()):
            _write(options, [expect(r, known.get(name, {})) for name, r in reports.items()])
        raise
    return [expect(report, known.get(name, {})) for name, report in reports.items()]


def _fill(options: argparse.Namespace, reports: dict[str, Report]) -> None:
    """Run the backends beside one another, each in its process, and each pair after its two."""
    names = [*dict.fromkeys(options.cross or options.backend or installed())]
    clauses = tuple(options.only or ())
    with (
        ThreadPoolExecutor(len(names)) as pool,
        ThreadPoolExecutor(1) as later,
        ExitStack() as stack,
        _progress() as progress,
    ):
        backends = {n: stack.enter_context(start(n, **_settings(options, n))) for n in names}
        _wait(pool.submit(attempt, *each) for each in backends.items())
        for backend in backends.values():
            if not backend.info().compiles:
                backend.give_way()
        singles, pairs = _singles_and_pairs(options, backends)
        task = progress.add_task(
            "", total=len(singles) * (len(clauses) or len(CHECKS)) + len(pairs)
        )
        for name in singles:
            reports[name] = Report(visible(name), backends[name].info(), (), complete=False)
        for name in map(" x ".join, pairs):
            reports[name] = Report(visible(name), Info(visible(name)), (), complete=False)

        def run(name: str) -> None:
            def note(report: Report) -> None:
                reports[name] = report
                progress.update(task, advance=1, description=name)

            reports[name] = run_checks(name, backends[name], clauses, note)

        done = {name: pool.submit(run, name) for name in singles}

        def hold(pair: tuple[str, str]) -> None:
            for name in done.keys() & {*pair}:
                done[name].result()
            name = " x ".join(pair)
            progress.update(task, description=name)
            reports[name] = cross_check(pair, backends[pair[0]], backends[pair[1]])
            progress.advance(task)

        _wait([*done.values(), *(later.submit(hold, pair) for pair in pairs)])


def _settings(options: argparse.Namespace, name: str) -> dict[str, Any]:
    """Return what a backend is asked for: the reference, where it was not named, for nothing."""
    if name == "reference" and not (options.cross or options.backend):
        return {}
    device = {"device": options.device} if options.device else {}
    return device | ({"compiled": True} if options.compiled else {})


def _singles_and_pairs(
    options: argparse.Namespace, backends: dict[str, Apart]
) -> tuple[list[str], list[tuple[str, str]]]:
    """Return which backends to check, and which pairs to hold against each other."""
    if options.cross:
        return [], [tuple(options.cross)]
    keyed = [name for name, backend in backends.items() if "keyed" in backend.info().claims]
    return [*backends], [] if options.only else [*combinations(keyed, 2)]


def _progress() -> Progress:
    """Return a bar on stderr, where that is a terminal: else the one line of an error is alone."""
    columns = TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn()
    stderr = Console(stderr=True)
    hidden = not stderr.is_terminal
    return Progress(*columns, TimeElapsedColumn(), console=stderr, transient=True, disable=hidden)


def _wait(tasks: Iterable[Future[Any]]) -> None:
    """Wait for tasks. Raises what the first to fail raised, without waiting for the others."""
    for task in as_completed([*tasks]):
        task.result()


def _write(options: argparse.Namespace, reports: list[Report]) -> None:
    for name, write in WRITERS.items():
        if file := getattr(options, name):
            text = write(reports if name == "json" else _single(reports))
            file.write_text(text, encoding="utf-8")


def _print(options: argparse.Namespace, reports: list[Report], console: Console) -> None:
    for report in [] if options.matrix else reports:
        print_report(report, console)
    if options.matrix:
        console.print(matrix(_single(reports)))


def _single(reports: list[Report]) -> list[Report]:
    return [report for report in reports if " x " not in report.backend]
