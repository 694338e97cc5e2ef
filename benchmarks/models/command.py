"""`python -m benchmarks.models`: what `convert`, `keyed` and `skip_dropped` do to real models.

Each model is tried in a process of its own. The figures are written as JSON after each, the page
with them; the same command again tries those that are left. Exit status: 0, also where a model
fails a step, for that stands in the table; 2 for a command that cannot be run; 130 for Ctrl-C.
"""

import argparse
import shlex
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.child import Failed, Say, in_child
from benchmarks.command import Parser, Refused
from benchmarks.machine import facts
from benchmarks.models.listed import MODELS, RATES, SWEPT, TUNED, Model
from benchmarks.models.page import page
from benchmarks.models.picture import draw
from benchmarks.models.rows import STEPS, Point, Report, Row

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "models.json"
PAGE = ROOT / "docs" / "models.md"
PICTURE = "skipping_vit.png"  # beside the page
LIBRARIES = ("timm", "torchvision", "transformers")
SAME = ("cpu", "cores", "system", "versions")  # of the facts, for all rows of a report
SECONDS = 5.0  # of timed rounds, for each model, and for each rate of the sweep


def main(arguments: Sequence[str] | None = None) -> int:
    """Try the models as the command line says; return the exit status."""
    options = _parser().parse_args(arguments)
    command = shlex.join(["python", "-m", "benchmarks.models", *(arguments or sys.argv[1:])])
    try:
        models = _chosen(options)
        if options.list:
            print("\n".join(model.title for model in models))
            return 0
        report = _begun(options, facts("cpu", command))
        if options.sweep:
            _sweep(options, report, facts("cpu", command))
        else:
            _try(models, options, report, facts("cpu", command))
    except Refused as error:
        return _stop(2, str(error))
    except Failed as error:
        return _stop(1, str(error))
    except KeyboardInterrupt:
        return _stop(130, f"stopped; {options.json} has what was found before")
    print(options.json, options.markdown, sep="\n")
    return 0


def _stop(status: int, why: str) -> int:
    print(f"python -m benchmarks.models: {why}", file=sys.stderr)
    return status


def _parser() -> Parser:
    parser = Parser("python -m benchmarks.models", description=(__doc__ or "").split("\n\n")[0])
    add = parser.add_argument
    add("--only", nargs="+", default=[], metavar="NAME", help="models whose title holds a NAME")
    add("--list", action="store_true", help="print the titles, and try nothing")
    add("--sweep", action="store_true", help="in place of the table: a ViT's steps over rates")
    add("--anew", action="store_true", help="try again what FILE of --json has")
    add("--seconds", type=float, default=SECONDS, help="of timed rounds each, by default 5")
    add("--json", type=Path, default=RESULTS, metavar="FILE", help="by default results/models.json")
    add("--markdown", type=Path, default=PAGE, metavar="FILE", help="by default docs/models.md")
    return parser


def _chosen(options: argparse.Namespace) -> list[Model]:
    for name in options.only:
        if not any(name in model.title for model in MODELS):
            raise Refused(f"--only must be in a title that --list prints, got {name}")
    if not options.seconds > 0:
        raise Refused(f"--seconds must be above 0, got {options.seconds}")
    names = options.only or [""]
    return [model for model in MODELS if any(name in model.title for name in names)]


def _begun(options: argparse.Namespace, now: dict[str, Any]) -> Report:
    """Return the report to go on with, which must be of this machine and these versions."""
    missing = [name for name in LIBRARIES if not find_spec(name)]
    if missing:
        how = "pip install -e '.[peers]', and torchvision from where torch came"
        raise Refused(f"{', '.join(missing)} must be installed: {how}")
    for path in (options.json, options.markdown):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        except OSError as error:
            raise Refused(f"{path} must be a file that can be written: {error}") from error
    text = options.json.read_text(encoding="utf-8")
    if not text:
        return Report(now)
    report = Report.from_json(text)
    other = [name for name in SAME if report.facts[name] != now[name]]
    if other and not options.anew:
        raise Refused(f"{options.json} is of another {', '.join(other)}: add --anew")
    begins = other or (options.anew and not options.only and not options.sweep)
    return Report(now, [], report.sweep, report.sweep_facts) if begins else report


def _try(
    models: Sequence[Model], options: argparse.Namespace, report: Report, now: dict[str, Any]
) -> None:
    """Try each model that the report lacks, and write the report after each."""
    if not report.rows:  # it may hold a sweep, whose facts stand by themselves
        report.facts = now
    had = set() if options.anew else {row.title for row in report.rows}
    for number, model in enumerate(models, start=1):
        if model.title not in had:
            report.put(_row(model, options.seconds))
            _write(options, report)
            _say(f"{number} of {len(models)}: {model.title}")
    _write(options, report)


def _row(model: Model, seconds: float) -> Row:
    """Return what a child found of a model; if it ends without a word, in which step it did."""
    steps = list(STEPS[:1])
    try:
        return in_child(model.title, _tried, model, seconds, say=steps.append)
    except Failed as error:
        errors = {steps[-1]: str(error).removeprefix(f"{model.title}: ")}
        return Row(model.title, model in TUNED, model.batch, model.shape, errors)


def _tried(model: Model, seconds: float, say: Say) -> Row:
    from benchmarks.models.torch_trial import try_model  # PyTorch, in the child alone

    return try_model(model, model in TUNED, seconds, say)


def _sweep(options: argparse.Namespace, report: Report, now: dict[str, Any]) -> None:
    """Time a model's steps at each rate that the report lacks, and draw them."""
    if options.anew or not report.sweep:
        report.sweep, report.sweep_facts = [], now
    had = {point.drop_prob for point in report.sweep}
    for p in RATES:
        if p not in had:
            title = f"{SWEPT.title} at p = {p}"
            report.sweep.append(in_child(title, _point, p, options.seconds, say=lambda _: None))
            _write(options, report)
            _say(title)
    draw(report.sweep, options.markdown.with_name(PICTURE))


def _point(p: float, seconds: float, say: Say) -> Point:
    from benchmarks.models.torch_sweep import point

    return point(SWEPT, p, seconds, say)


def _say(text: str) -> None:
    print(text, file=sys.stderr)


def _write(options: argparse.Namespace, report: Report) -> None:
    whole = options.json.with_suffix(".tmp")  # so that a kill leaves the old one or the new one
    whole.write_text(report.to_json(), encoding="utf-8")
    whole.replace(options.json)
    options.markdown.write_text(page(report), encoding="utf-8")
