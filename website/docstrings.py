"""Docstrings of the packages as Markdown: sections, examples, formulas, links.

They are written for a terminal: `Args:` with indented entries, `Returns: what`, doctests, formulas
as plain text, clauses of SPEC.md by their ids. Not here: griffe's styles of docstrings, which know
no entry for several arguments, and which would want types that the signature has.
"""

import re
from collections.abc import Iterator, Mapping

from website.formulas import TEX, pattern

LISTS = {"Args:", "Attributes:"}
SECTION = re.compile(r"(Returns|Raises|Source): ")
ENTRY = re.compile(r"\*?\w+(, \*?\w+)*: ")
CLAUSE = r"\b[A-Z]+-\d+\b"
PIECE = re.compile(rf"(?P<code>`[^`]+`)|(?P<formula>{pattern()})|(?P<clause>{CLAUSE})")


def to_markdown(docstring: str, names: Mapping[str, str]) -> str:
    """Return a docstring as Markdown; `names` has what is linked, and the full path of each."""
    blocks = (_block(lines, names) for lines in _blocks(docstring.splitlines()))
    return "\n\n".join(blocks) + "\n"


def _blocks(lines: list[str]) -> Iterator[list[str]]:
    """Yield lines that belong together: paragraphs, sections, examples."""
    block: list[str] = []
    for line in lines:
        starts = line in LISTS or SECTION.match(line) or not line
        if starts and block:
            yield block
            block = []
        if line:
            block.append(line)
    if block:
        yield block


def _block(lines: list[str], names: Mapping[str, str]) -> str:
    first = lines[0]
    if first.startswith(">>> "):
        return "\n".join(["```pycon", *lines, "```"])
    if first in LISTS:
        return f"**{first[:-1]}**\n\n" + "\n\n".join(
            _entry(entry, names) for entry in _entries(lines[1:])
        )
    if section := SECTION.match(first):
        text = "\n".join([first[section.end() :], *(line.strip() for line in lines[1:])])
        return f"**{section[1]}**\n:   {_indented(_inline(text, names))}"
    text = "\n".join(lines)
    if text in TEX:
        return f"```math\n{TEX[text]}\n```"
    return _inline(text, names)


def _entries(lines: list[str]) -> Iterator[list[str]]:
    """Yield the lines of each entry, which has two spaces, and more where it goes on."""
    entry: list[str] = []
    for line in lines:
        if not line.startswith("   ") and entry:
            yield entry
            entry = []
        entry.append(line.strip())
    if entry:
        yield entry


def _entry(lines: list[str], names: Mapping[str, str]) -> str:
    text = "\n".join(lines)
    if head := ENTRY.match(text):
        arguments = ", ".join(f"`{each}`" for each in head[0][:-2].split(", "))
        return f"{arguments}\n:   {_indented(_inline(text[head.end() :], names))}"
    return _inline(text, names)


def _indented(text: str) -> str:
    return text.replace("\n", "\n    ")


def _inline(text: str, names: Mapping[str, str]) -> str:
    """Return text with formulas and links; what Markdown would take for its own is escaped."""
    made, end = [], 0
    for piece in PIECE.finditer(text):
        made += [_escaped(text[end : piece.start()]), _piece(piece, names)]
        end = piece.end()
    return "".join([*made, _escaped(text[end:])])


def _piece(piece: re.Match[str], names: Mapping[str, str]) -> str:
    text = piece[0]
    if piece["code"]:
        name = text.strip("`")
        return f"[{text}][{names[name]}]" if name in names else text
    if piece["clause"]:
        return f"[{text}][{text}]"
    return f"`#!math {TEX[' '.join(text.split())]}`"


def _escaped(text: str) -> str:
    return re.sub(r"([*_\[\]])", r"\\\1", text).replace("<", "&lt;")
