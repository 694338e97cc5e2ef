"""docs/models.md: the report as a page, with the method, the counts and the table."""

import re
from collections.abc import Iterator, Sequence

from benchmarks.models.listed import BATCH, IMAGE, THREADS
from benchmarks.models.rows import PASSES, Report, Row

TEXT = """# Real models: what is converted, keyed and skipped

Models of timm, torchvision and transformers that hold a DropPath, small and without weights. Each
is taken through the steps below, in a process of its own. A step that fails stands in the table
with its error.

1. **convert** a copy, in mode "balanced": "layers" counts its DropPaths, "Id" those of them that
   were `nn.Identity`.
2. **rates**: `set_drop_probs` with a rate for each layer, then with a rate for each block; each
   time the rates are read again. Then a forward and backward, in training, must be finite.
3. **keyed**: two forwards with one key, under two seeds of torch, give the same bits; another key
   gives others.
4. **skip_dropped**, on an example of 8 samples: "skipped" counts the layers all of whose calls are
   skipped. With one key, outputs and gradients must be masking's, within sqrt(eps) of the largest
   number of the tensor, or of the median tensor's if that is larger.
5. **step**: forward and backward of the skipping model, to the model as its library has it, by
   turns in one process; the median of the ratios of each round. Its own layers have p = 0.4 in
   both. Its `nn.Identity` drops nothing in the one, and has p = 0 in the other.

Parameters that begin near zero (LayerScale, the last norm of a branch, biases) are set to random
numbers first: a branch that gives 0 would hide its mask. Dropout is set to 0: it draws from torch's
generator, which `keyed` leaves alone.

{counts}

{facts} The batch is 32 and an image 64 x 64, unless the model's line says another.

```sh
{command}
```

How to read it: at a ratio of 0.7 a step takes 0.7 of the time. At p = 0.4, 0.6 of the rows run
where all is skipped. What lies outside of branches runs all rows, and so do the layers that were
`nn.Identity`. "Why not" is the commonest reason, with the number of layers that have it. BatchNorm
mixes the samples of a batch in training, and what mixes samples is not skipped. Each `why_masked`
stands in full in [models.json](../benchmarks/results/models.json). *Not tuned on*: chosen after
`convert`, `keyed` and `skip_dropped` were written, and before any of these models was tried. One
change followed from them: at first none of RDNet's 21 layers was skipped.
"""
SWEEP = """\
Step time of timm's vit_small (patch 8, image 64 x 64, depth 12, batch 32): skipping to masking,
both in eager mode, and both under torch.compile. Two of its 24 layers are `nn.Identity` and drop
nothing. The dashed line is `kept_capacity / b`, the mean over all layers; eager mode runs the rows
that are kept, which on average are some fewer. {cpu}, load {load:.1f} at the start; `{command}`.
"""
HEAD = ("model", "layers", "Id", "rates", "keyed", "skipped", "step", "why not, or error")
TABLES = ("Tried while it was written", True), ("Not tuned on", False)
CAUSES = {  # a DropPath's why_masked, whose figures differ for each layer -> what a cell says
    r"call \d+ of \d+: ": "",
    r"(\w+ mixes the samples).*": r"\1",
    r".* is invalid for input of size .*": "the batch's size is read before the branch",
    r"output \d+ has the shape .*": "the block returns what its branch saw",
}
LONGEST = 110  # characters of an error


def page(report: Report) -> str:
    """Return the page of a report."""
    text = TEXT.format(
        counts=_counts(report.rows), facts=_facts(report), command=report.facts["command"]
    )
    return "\n".join([text, *_tables(report.rows), *_sweep(report)]).rstrip() + "\n"


def _counts(rows: Sequence[Row]) -> str:
    """Return how many models pass which step, those not tuned on by themselves."""
    parts = []
    for name, tuned_on in TABLES:
        here = [row for row in rows if row.tuned_on == tuned_on]
        passed = [f"{sum(row.passes(step) for row in here)} {step}" for step in PASSES[1:]]
        converted, alike = (
            sum(row.passes(*steps) for row in here) for steps in (PASSES[:1], PASSES)
        )
        some = sum(bool(row.skipped) for row in here)
        every = sum(bool(row.skipped) and row.skipped == row.layers for row in here)
        parts.append(
            f"**{name}**: of {len(here)} models, {converted} pass convert, {', '.join(passed)}, "
            f"{alike} all three.\n{some} skip something, {every} of them everything."
        )
    return "\n\n".join(parts)


def _facts(report: Report) -> str:
    facts = report.facts
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    machine = f"{facts['cpu']}, {facts['cores']} cores, {THREADS} threads, float32"
    return f"{machine}, {facts['date'][:10]}, load {facts['load']:.1f} at the start; {versions}."


def _tables(rows: Sequence[Row]) -> Iterator[str]:
    for name, tuned_on in TABLES:
        yield f"## {name}\n"
        yield _line(HEAD)
        yield _line(["---"] * len(HEAD))
        yield from (_line([*_cells(row)]) for row in rows if row.tuned_on == tuned_on)
        yield ""


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cells(row: Row) -> Iterator[str]:
    sizes = [f"batch {row.batch}"] if row.batch != BATCH else []
    sizes += [" x ".join(map(str, row.shape))] if row.shape != IMAGE else []
    library, _, name = row.title.partition(" ")
    yield f"{library} {name.rpartition('.')[2]}" + (f" ({', '.join(sizes)})" if sizes else "")
    yield _number(row.layers)
    yield _number(row.identities)
    yield from (_verdict(row, step) for step in ("rates", "keyed"))
    yield "" if row.skipped is None else f"{row.skipped} of {row.layers}"
    yield "" if row.ratio is None else f"{row.ratio:.2f}"
    yield _why_not(row)


def _number(number: int | None) -> str:
    return "" if number is None else str(number)


def _verdict(row: Row, step: str) -> str:
    return "ok" if row.passes(step) else "NO"


def _why_not(row: Row) -> str:
    errors = [f"{step}: {_short(text)}" for step, text in row.errors.items()]
    counts: dict[str, int] = {}
    for reason, count in row.reasons.items():
        cause = reason
        for pattern, text in CAUSES.items():
            cause = re.sub(pattern, text, cause)
        counts[cause] = counts.get(cause, 0) + count
    common = max(counts, key=lambda cause: counts[cause], default="")
    return "; ".join([*errors, *([f"{_short(common)} ({counts[common]})"] if common else [])])


def _short(text: str) -> str:
    """Return a text as a cell of a table holds it."""
    text = text.replace("|", "\\|")
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


def _sweep(report: Report) -> Iterator[str]:
    if not report.sweep:
        return
    yield "## A ViT over rates\n"
    facts = report.sweep_facts
    yield SWEEP.format(**facts)
    yield "![Step time against p](skipping_vit.png)\n"
    yield _line(("p", "eager", "compiled", "kept_capacity / b", "rounds"))
    yield _line(["---"] * 5)
    for point in report.sweep:
        figures = f"{point.eager:.2f}", f"{point.compiled:.2f}", f"{point.rows:.2f}"
        yield _line((f"{point.drop_prob}", *figures, str(point.rounds)))
