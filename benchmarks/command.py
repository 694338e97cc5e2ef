"""`python -m benchmarks`: forward and backward, ours against the peers' methods, in one table.

Each setup of each case is measured in a process of its own. The figures are written as JSON after
each, and plots beside them. Exit status: 0, also where a demand is missed, for that may be the
machine's doing; 1 if such a process failed; 2 for a command that cannot be run; 130 for Ctrl-C.
"""

import argparse
import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks.cases import COMPILED, MASKED, METHODS, Case, on_cpu, on_cuda, quick
from benchmarks.child import Failed, in_child
from benchmarks.machine import facts
from benchmarks.plots import draw
from benchmarks.records import Record, Report
from benchmarks.setups import Found, find, records
from benchmarks.table import table

RESULTS = Path(__file__).parent / "results"
SECONDS = {"full": 20.0, "quick": 2.0}  # for the timed rounds of a case
WIDTH = 120  # of the table where it does not go to a terminal


class Refused(Exception):
    """The command cannot be run; the text says why."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark as the command line says; return the exit status."""
    options = _parser().parse_args(arguments)
    command = shlex.join(["python", "-m", "benchmarks", *(arguments or sys.argv[1:])])
    made: list[Record] = []
    try:
        cases = _chosen(options)
        found = _found(options.device)
        path = _writable(options)
        report = Report(facts(next(iter(found.devices.values())), command), found.left_out, made)
        run(cases, found, options, report, path)
    except Refused as error:
        return _stop(2, str(error))
    except (Failed, KeyboardInterrupt) as error:
        kept = f"; {path} has what was measured before" if made else ""
        if isinstance(error, Failed):
            return _stop(1, f"{error}{kept}")
        return _stop(130, f"stopped{kept}")
    Console(width=None if sys.stdout.isatty() else WIDTH).print(table(report))
    for written in [path, *draw(report.records, path.with_suffix(""))]:
        print(written)
    return 0


def _stop(status: int, why: str) -> int:
    print(f"python -m benchmarks: {why}", file=sys.stderr)
    return status


def run(
    cases: Sequence[Case], found: Found, options: argparse.Namespace, report: Report, path: Path
) -> None:
    """Measure each setup of each case, add its records to the report, and write that to path."""
    seconds = options.seconds or SECONDS["quick" if options.quick else "full"]
    turns = [(case, [name for name in found.devices if name in case.setups]) for case in cases]
    with _progress() as progress:
        task = progress.add_task("", total=sum(len(names) for _, names in turns))
        for case, names in turns:
            for name in names:
                title = f"{case.group}, {case.size}, p = {case.drop_prob}, {name}"

                def say(text: str, title: str = title) -> None:
                    progress.update(task, description=f"{title}: {text}")

                share = seconds / len(names)
                made = in_child(title, records, name, options.device, case, share, say=say)
                report.records.extend(made)
                path.write_text(report.to_json(), encoding="utf-8")
                progress.advance(task)


def _progress() -> Progress:
    """Return a bar for a terminal; a log has none."""
    console = Console(stderr=True)
    columns = BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    text = TextColumn("{task.description}")
    return Progress(
        *columns, text, console=console, transient=True, disable=not console.is_terminal
    )


def _found(device: str) -> Found:
    """Return the setups that are there; a child looks, since the frameworks stay in memory."""
    with _progress() as progress:
        task = progress.add_task("", total=None)
        found = in_child(
            "the search for the frameworks",
            find,
            device,
            say=lambda text: progress.update(task, description=text),
        )
    if not found.devices:
        reasons = "; ".join(found.left_out[name] for name in ("PyTorch", "Flax"))
        raise Refused(f"--device {device} needs a framework that computes there: {reasons}")
    return found


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that refuses in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def _parser() -> Parser:
    parser = Parser("python -m benchmarks", description=(__doc__ or "").split("\n\n")[0])
    add = parser.add_argument
    add("--device", choices=("cpu", "cuda"), default="cpu", help="cpu: float32; cuda: bfloat16")
    add("--quick", action="store_true", help="small sizes: shows that all of it runs")
    add("--only", nargs="+", default=[], metavar="NAME", help="groups of cases, such as vit-small")
    add("--methods", nargs="+", default=list(METHODS), metavar="NAME", help="fewer, sampled better")
    add("--setups", nargs="+", default=list(COMPILED), metavar="NAME", help="such as flax")
    add("--rates", nargs="+", default=[], type=float, metavar="P", help="of the grid's, fewer")
    add("--seconds", type=float, help="of timed rounds a case, by default 20; 2 if quick")
    add("--json", type=Path, metavar="FILE", help="by default benchmarks/results/DEVICE.json")
    return parser


def _chosen(options: argparse.Namespace) -> list[Case]:
    """Return the cases of the grid, of the groups, methods, setups and rates asked for."""
    grid = on_cuda if options.device == "cuda" else on_cpu
    cases = quick() if options.quick else grid()
    groups = list(dict.fromkeys(case.group for case in cases))
    rates = sorted({case.drop_prob for case in cases})
    known: dict[str, list[Any]] = {
        "only": groups,
        "methods": list(METHODS),
        "setups": list(COMPILED),
        "rates": rates,
    }
    for option, names in known.items():
        for name in getattr(options, option):
            if name not in names:
                listed = ", ".join(map(str, names))
                raise Refused(f"--{option} must name one of {listed}, got {name}")
    if options.seconds is not None and not options.seconds > 0:
        raise Refused(f"--seconds must be above 0, got {options.seconds}")
    wanted = {MASKED, *options.methods}  # ratios are to masking
    return [
        replace(
            case,
            methods=tuple(name for name in case.methods if name in wanted),
            setups=tuple(name for name in case.setups if name in options.setups),
        )
        for case in cases
        if case.group in (options.only or groups) and case.drop_prob in (options.rates or rates)
    ]


def _writable(options: argparse.Namespace) -> Path:
    """Return where the figures go, once it is seen that they can."""
    name = f"{options.device}{'-quick' if options.quick else ''}.json"
    path: Path = options.json or RESULTS / name
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    except OSError as error:
        raise Refused(f"--json must be a file that can be written: {error}") from error
    return path


if __name__ == "__main__":
    sys.exit(main())
