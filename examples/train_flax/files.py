"""Files that are whole or as they were, whenever the process is killed."""

from pathlib import Path


def write_whole(path: Path, text: str) -> None:
    """Write text to path by way of a draft beside it, which ends in .part."""
    draft = path.with_suffix(".part")
    draft.unlink(missing_ok=True)  # a link that lies there would be followed
    with draft.open("x", encoding="utf-8") as file:
        file.write(text)
    draft.replace(path)
