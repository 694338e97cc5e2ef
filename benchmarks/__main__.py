"""`python -m benchmarks`: forward and backward, ours against the peers' methods, in one table.

Writes the figures as JSON after each case, and plots beside them. Exit status: 0, also where a
demand is missed, for that may be the machine's doing; 2 for a command that cannot be run.
"""

import argparse
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks.cases import MASKED, METHODS, Case, on_cpu, on_cuda, quick
from benchmarks.machine import facts
from benchmarks.measure import Setup, hold_memory, measure
from benchmarks.plots import draw
from benchmarks.records import Report
from benchmarks.table import table

RESULTS = Path(__file__).parent / "results"
SECONDS = {"full": 20.0, "quick": 2.0}  # for the timed rounds of a case
WIDTH = 120  # of the table where it does not go to a terminal

RAGGED = "how many rows run is known only when they are drawn"


class Refused(Exception):
    """The command cannot be run; the text says why."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark as the command line says; return the exit status."""
    options = _parser().parse_args(arguments)
    try:
        cases = _chosen(options)
        hold_memory()
        setups, left_out = load(options.device)
        path = _writable(options)
    except Refused as error:
        print(f"python -m benchmarks: {error}", file=sys.stderr)
        return 2
    command = shlex.join(["python", "-m", "benchmarks", *(arguments or sys.argv[1:])])
    report = Report(facts(setups[0].device, command), left_out, [])
    seconds = options.seconds or SECONDS["quick" if options.quick else "full"]
    run(cases, setups, seconds, report, path)
    Console(width=None if sys.stdout.isatty() else WIDTH).print(table(report))
    for written in [path, *draw(report.records, path.with_suffix(""))]:
        print(written)
    return 0


def run(
    cases: Sequence[Case], setups: Sequence[Setup], seconds: float, report: Report, path: Path
) -> None:
    """Measure each case, add its records to the report, and write that to path."""
    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
    )
    stderr = Console(stderr=True)
    with Progress(*columns, console=stderr, transient=True) as progress:
        task = progress.add_task("", total=len(cases))
        for case in cases:
            title = f"{case.group}, {case.size}, p = {case.drop_prob}"

            def say(text: str, title: str = title) -> None:
                progress.update(task, description=f"{title}: {text}")

            report.records.extend(measure(case, setups, seconds, say))
            path.write_text(report.to_json(), encoding="utf-8")
            progress.advance(task)


def load(device: str) -> tuple[list[Setup], dict[str, str]]:
    """Return the setups that are there on "cpu" or "cuda", and what is left out, and why."""
    if device == "cpu":  # read when JAX is first imported
        os.environ.setdefault("JAX_PLATFORMS", "cpu")
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    setups: list[Setup] = []
    left_out = {}
    frameworks: dict[str, Callable[[str], list[Setup]]] = {"PyTorch": _torch, "Flax": _flax}
    for name, make in frameworks.items():
        try:
            setups += make(device)
        except ModuleNotFoundError as error:
            left_out[name] = f"{error.name} is not installed"
        except RuntimeError as error:
            left_out[name] = str(error)
    if not setups:
        reasons = "; ".join(left_out.values())
        raise Refused(f"--device {device} needs a framework that computes there: {reasons}")
    left_out |= {peer: "not installed" for peer in ("timm", "torchvision") if not find_spec(peer)}
    left_out["torchtune's method and ours, row, skipping, where compiled"] = RAGGED
    return setups, left_out


def _torch(device: str) -> list[Setup]:
    from benchmarks.torch_steps import TorchSetup

    return [TorchSetup(device, compiled=False), TorchSetup(device, compiled=True)]


def _flax(device: str) -> list[Setup]:
    from benchmarks.flax_steps import FlaxSetup

    return [FlaxSetup(device)]


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
    add("--seconds", type=float, help="of timed rounds a case, by default 20; 2 if quick")
    add("--json", type=Path, metavar="FILE", help="by default benchmarks/results/DEVICE.json")
    return parser


def _chosen(options: argparse.Namespace) -> list[Case]:
    """Return the cases of the grid, of the groups and methods that are asked for."""
    grid = on_cuda if options.device == "cuda" else on_cpu
    cases = quick() if options.quick else grid()
    groups = list(dict.fromkeys(case.group for case in cases))
    for name in options.only:
        if name not in groups:
            raise Refused(f"--only must name one of {', '.join(groups)}, got {name}")
    for name in options.methods:
        if name not in METHODS:
            raise Refused(f"--methods must name one of {', '.join(METHODS)}, got {name}")
    if options.seconds is not None and not options.seconds > 0:
        raise Refused(f"--seconds must be above 0, got {options.seconds}")
    wanted = {MASKED, *options.methods}  # ratios are to masking
    return [
        replace(case, methods=tuple(name for name in case.methods if name in wanted))
        for case in cases
        if case.group in (options.only or groups)
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
