"""`python -m conformance.aot`: compile for accelerators that are not there, and look at it.

Masks, drop_path, a block in each mode, and the training example's own steps are compiled ahead of
time, for TPUs and GPUs, on any machine. Nothing runs: no time and no number is checked, but FLOPs,
memory, what devices exchange and how much of the batch each sees are. Without options all is
compiled for all targets; steps for hundreds of chips take minutes each.

Exit status: 0 all limits are kept, 1 one is not, 2 usage or a missing package.
"""

import argparse
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

import jax
from rich.console import Console

from conformance.aot import table
from conformance.aot.blocks import CONTRARY, blocks
from conformance.aot.limits import judge
from conformance.aot.program import Compiled, Program, measure
from conformance.aot.table import Row
from conformance.aot.targets import GPUS, TPUS, Target, cuda, tpu


def main(arguments: Sequence[str] | None = None) -> int:
    """Compile as the command line says, print the table, return the exit status."""
    parser = argparse.ArgumentParser("python -m conformance.aot", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add = parser.add_argument
    add("--tpu", nargs="+", default=[], metavar="TOPOLOGY", help=f"default: {' '.join(TPUS)}")
    add("--cuda", nargs="+", default=[], choices=GPUS, help="default: all")
    add("--chips", type=int, default=4, help="GPUs of the host (4)")
    add("--short", action="store_true", help="single blocks; default: for v5e:2x2 and GPUs")
    add("--write", type=Path, metavar="PAGE.md", help="put the table into a page, JSON beside it")
    options = parser.parse_args(arguments)
    if not (options.tpu or options.cuda):
        options.tpu, options.cuda = TPUS[:1] if options.short else TPUS, GPUS
    console = Console()
    try:
        targets = [*map(tpu, options.tpu), *(cuda(name, options.chips) for name in options.cuda)]
        rows = list(compile_all(targets, options.short, console))
        table.print_rows(rows, console)
        if options.write:
            table.write(rows, options.write, table.setting())
    except (OSError, ValueError, jax.errors.JaxRuntimeError) as error:
        parser.error(str(error))
    return 0 if all(row.good for row in rows) else 1


def compile_all(targets: Sequence[Target], short: bool, console: Console) -> Iterator[Row]:
    """Yield each program for each target, and how it stands beside the others."""
    fewest: dict[tuple[str, str], Compiled] = {}
    for target in sorted(targets, key=lambda target: len(target.devices)):
        programs = list(programs_for(len(target.devices), short))
        beside = {}
        for program in programs:
            with console.status(f"{target.name}: {program.name}"):
                beside[program.name] = measure(target, program)
        for program in programs:
            row = beside[program.name]
            first = fewest.setdefault((target.kind, program.name), row)
            yield Row(
                row,
                beside.get(program.like or ""),
                beside.get(program.masked or ""),
                judge(program, row, beside, first),
                program.name == CONTRARY,
            )


def programs_for(devices: int, short: bool) -> Iterator[Program]:
    """Yield the programs: single blocks, and, where the example is at hand, its steps."""
    yield from blocks(devices)
    if not short and find_spec("examples.train_flax"):
        from conformance.aot.steps import steps  # the example goes with the repository alone

        yield from steps(devices)
