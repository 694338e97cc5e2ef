"""What was compiled, as a table for a terminal and for docs/accelerators.md, and as JSON."""

import json
import platform
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from conformance.aot.limits import LIMITS
from conformance.aot.program import Compiled

HEADINGS = (
    "program", "FLOPs: of plain", "memory: of masking", "collectives", "batch: own", "seconds",
    "held to", "GFLOP", "MB moved", "temporary MB",
)  # fmt: skip
SHOWN = 7  # in a terminal
BEGIN, END = "<!-- table of python -m conformance.aot -->", "<!-- end of table -->"


class Row(NamedTuple):
    """A program for a target, beside which it stands, and which limits it keeps."""

    compiled: Compiled
    plain: Compiled | None
    masked: Compiled | None
    kept: dict[str, bool]
    contrary: bool

    @property
    def good(self) -> bool:
        """Whether all limits are kept, or, of what one should not do, one is not."""
        return all(self.kept.values()) != self.contrary


def print_rows(rows: Sequence[Row], console: Console) -> None:
    """Print a table for each target, and the limits."""
    for target in dict.fromkeys(row.compiled.target for row in rows):
        table = Table(title=target, title_justify="left", box=None, pad_edge=False)
        for heading in HEADINGS[:SHOWN]:
            table.add_column(heading.replace(": ", "\n"), no_wrap=heading == HEADINGS[0])
        for row in rows:
            if row.compiled.target == target:
                table.add_row(*cells(row)[:SHOWN], style="" if row.good else "red")
        console.print(table)
    for letter, limit in LIMITS.items():
        console.print(f"{letter}: {limit}", highlight=False)


def cells(row: Row) -> list[str]:
    """Return what a line of the table shows."""
    c, plain, masked = row.compiled, row.plain, row.masked
    marks = " ".join(letter + ("✓" if kept else "✗") for letter, kept in row.kept.items())
    return [
        c.program,
        f"{c.flops / plain.flops:.3f}" if plain and c.flops and plain.flops else "",
        f"{c.temporary / masked.temporary:.3f}" if masked and masked.temporary else "",
        ", ".join(f"{count} {kind}" for kind, count in c.collectives.items()),
        f"{c.batch} of {c.share}",
        f"{c.seconds:.1f}",
        f"{marks}: not to be done" if row.contrary else marks,
        f"{c.flops / 1e9:.3f}" if c.flops else "",
        f"{c.bytes / 1e6:.1f}" if c.bytes else "",
        f"{c.temporary / 1e6:.1f}",
    ]


def to_markdown(rows: Sequence[Row], setting: str) -> str:
    """Return a table for each target, and the limits."""
    lines = [setting, ""]
    for target in dict.fromkeys(row.compiled.target for row in rows):
        lines += [f"### {target}", "", f"| {' | '.join(HEADINGS)} |", "|---" * len(HEADINGS) + "|"]
        lines += [f"| {' | '.join(cells(row))} |" for row in rows if row.compiled.target == target]
        lines += [""]
    return "\n".join([*lines, *(f"- **{letter}**: {limit}." for letter, limit in LIMITS.items())])


def setting() -> str:
    """Return the sentence that says what compiled."""
    names = "jax", "libtpu", "jax-cuda13-plugin", "nvidia-cuda-nvcc"
    versions = ", ".join(f"{name} {version(name)}" for name in names)
    return f"Compiled on {platform.machine()}, Python {platform.python_version()}, with {versions}."


def to_json(rows: Sequence[Row], setting: str) -> str:
    """Return the numbers as JSON text."""
    data = [asdict(row.compiled) | {"held": row.kept, "contrary": row.contrary} for row in rows]
    return json.dumps({"setting": setting, "programs": data}, indent=1) + "\n"


def write(rows: Sequence[Row], page: Path, setting: str) -> None:
    """Put the table into a page, between its two marks, and the numbers beside it, as JSON.

    Raises: ValueError if the page has no place for it.
    """
    text = page.read_text(encoding="utf-8")
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise ValueError(f"write must be a page that holds {BEGIN!r} and {END!r}, got {page}")
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    page.write_text(
        f"{before}{BEGIN}\n\n{to_markdown(rows, setting)}\n\n{END}{after}", encoding="utf-8"
    )
    page.with_suffix(".json").write_text(to_json(rows, setting), encoding="utf-8")
