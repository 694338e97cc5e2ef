"""SPEC.md as the reports quote it: its version, its clauses' titles and reasons."""

import re
from functools import cache
from importlib.resources import files


@cache
def text() -> str:
    """Return SPEC.md."""
    return files("droppath").joinpath("SPEC.md").read_text(encoding="utf-8")


def version() -> str:
    """Return the version of SPEC.md, as it says it itself."""
    (found,) = re.findall(r"^Version (\S+)\.", text(), re.MULTILINE)
    return str(found)


@cache
def clauses() -> dict[str, str]:
    """Return the text of each clause of SPEC.md, its title first."""
    parts = re.split(r"^### |^## .*$", text(), flags=re.MULTILINE)
    return {part.split()[0]: part.strip() for part in parts if re.match(r"[A-Z]+-\d+  ", part)}


def title(clause: str) -> str:
    """Return the title of a clause."""
    return clauses()[clause].partition(" ·")[0].removeprefix(clause).strip()


def why(clause: str) -> str:
    """Return why a clause matters, as SPEC.md says it, or else its title."""
    if clause not in clauses():
        return "the same key must give the same numbers in both"
    reason = re.search(r"\*Why:\* (.*?)(\n\n|\n\*|$)", clauses()[clause], re.DOTALL)
    return " ".join(reason[1].split()) if reason else title(clause)
