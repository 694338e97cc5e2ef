"""Files that are whole or as they were, whenever the process is killed."""

from pathlib import Path


def write_whole(path: Path, text: str) -> None:
    """Write text to path by way of a draft beside it, which ends in .part."""
    draft = path.with_suffix(".part")
    draft.write_text(text, encoding="utf-8")
    draft.replace(path)
