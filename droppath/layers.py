"""The layers of a model by their paths: their order, their rates, and a table of them.

Not here: how a framework finds them, which is the backends' work.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from droppath.schedules import TEXT

Rate = TypeVar("Rate")

HEAD = "path", "class", "rate", "mode", "calls", "skips"


@dataclass(frozen=True)
class Layer:
    """A line of the table: a layer, or what stands in its place. rate, mode: None if not ours."""

    path: str
    kind: str
    rate: float | None
    mode: str | None
    calls: int | None
    skips: str

    def cells(self) -> tuple[str, ...]:
        """Return the line's text, blank where nothing is known."""
        rate = "" if self.rate is None else f"{self.rate:.3f}"
        calls = "" if self.calls is None else str(self.calls)
        return self.path, self.kind, rate, self.mode or "", calls, self.skips


@dataclass(frozen=True)
class Summary:
    """The layers of a model, in the order of their definition; its text is a table."""

    layers: tuple[Layer, ...]

    def __str__(self) -> str:
        """Return the table."""
        rows = [HEAD, *(layer.cells() for layer in self.layers)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
        return "\n".join(lines if self.layers else [*lines, "no layer drops paths"])


def what_skips(layer: Any, is_block: bool, why_not: str) -> str:
    """Return what a layer skips, or why nothing, for the table.

    is_block: whether it is a DropPathResidual. why_not: of its rate or mode, where it may skip.
    """
    if not is_block and layer.why_masked is None:
        return "no: see skip_dropped"
    skip_false = "skip=False" if is_block and layer.skip is False else ""
    if reason := layer.why_masked or skip_false or why_not:
        return f"no: {reason}"
    return "all or nothing" if layer.mode == "batch" else "rows that are dropped"


def in_order(paths: Iterable[str], layers: Sequence[str]) -> list[str]:
    """Return `layers`, a list of paths; raise ValueError unless it has each of `paths` once.

    >>> in_order(["a", "b"], ["b", "a"])
    ['b', 'a']
    """
    if not isinstance(layers, list | tuple) or not all(isinstance(path, str) for path in layers):
        raise ValueError(f"layers must be a list of paths, got {layers!r}")
    known, given = list(paths), list(layers)
    wrong = [f"{path!r}, which is none" for path in given if path not in known]
    wrong += [f"{path!r} twice" for path in known if given.count(path) > 1]
    wrong += [f"nothing of {path!r}" for path in known if path not in given]
    if wrong:
        raise ValueError(f"layers must name each of {len(known)} DropPaths once, got {wrong[0]}")
    return given


def rates_of(
    rates: object, paths: Sequence[str], check_rate: Callable[[Any, str], Rate]
) -> list[Rate]:
    """Return the rate of each layer, whose paths these are, all of them checked.

    rates: one for all; or one for each layer; or one for each block, which is what holds a layer,
    in the order of their first ones.
    """
    several = isinstance(rates, Sequence) and not isinstance(rates, TEXT)
    if not (several or getattr(rates, "ndim", None)):
        return [check_rate(rates, "rates")] * len(paths)
    given = list(cast(Iterable[object], rates))
    holders = [path.rpartition(".")[0] for path in paths]
    blocks = {holder: i for i, holder in enumerate(dict.fromkeys(holders))}
    if len(given) not in (len(paths), len(blocks)):
        raise ValueError(
            f"rates must be {len(paths)}, one for each DropPath, or {len(blocks)}, one for each "
            f"block that holds DropPaths, got {len(given)}"
        )
    checked = [check_rate(rate, f"rates[{i}]") for i, rate in enumerate(given)]
    if len(given) == len(paths):
        return checked
    return [checked[blocks[holder]] for holder in holders]
