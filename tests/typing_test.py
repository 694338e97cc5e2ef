"""mypy --strict tells each mistake that typed_script.py.txt marks, and nothing else of it.

The script is what a user writes: it imports the packages and is not part of them.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
SCRIPT = HERE / "typed_script.py.txt"  # not .py: pytest would import it, and ruff read it
MARK = re.compile(r"  # error: ([a-z -]+)$")
TOLD = re.compile(r"^script\.py:(\d+): error: .*\[([a-z-]+)\]$")


def marked(source: str) -> dict[int, set[str]]:
    """The mistakes of a script: the codes of each marked line, by its number."""
    marks = {number: MARK.search(line) for number, line in enumerate(source.splitlines(), 1)}
    return {number: set(mark[1].split()) for number, mark in marks.items() if mark}


def told(source: str, folder: Path) -> set[tuple[int, str]]:
    """What mypy --strict tells of a script, in a folder without a configuration."""
    (folder / "script.py").write_text(source, encoding="utf-8")
    options = ["--strict", "--config-file=", "--no-pretty", "--hide-error-context"]
    # the packages are read from here, as if installed: what is wrong within them is lint's
    options += ["--follow-imports=silent", f"--cache-dir={folder / 'cache'}", "script.py"]
    run = subprocess.run(
        [sys.executable, "-m", "mypy", *options],
        cwd=folder,
        env={**os.environ, "MYPYPATH": str(HERE.parent)},
        capture_output=True,
        text=True,
    )
    assert run.returncode in (0, 1), run.stdout + run.stderr
    matches = [TOLD.match(line) for line in run.stdout.splitlines() if ": error: " in line]
    assert None not in matches, run.stdout
    return {(int(match[1]), match[2]) for match in matches}


def differences(source: str, folder: Path) -> list[str]:
    """The marked lines that are not told, and what is told of others or under another code."""
    wanted, found, lines = marked(source), told(source, folder), source.splitlines()
    silent = wanted.keys() - {number for number, _ in found}
    wrong = {(number, code) for number, code in found if code not in wanted.get(number, ())}
    return [
        *[f"not told: {number}: {lines[number - 1]}" for number in sorted(silent)],
        *[f"told as {code}: {number}: {lines[number - 1]}" for number, code in sorted(wrong)],
    ]


@pytest.mark.slow
def test_every_marked_mistake_is_told_and_nothing_else(tmp_path):
    source = SCRIPT.read_text(encoding="utf-8")
    assert len(marked(source)) > 90
    found = differences(source, tmp_path)
    assert found == [], "\n".join(["mypy and the marks differ", *found])


def test_the_marks_are_read_from_the_ends_of_lines():
    source = 'f(1)  # error: arg-type misc\ng("# error: no")\nh()  # error: call-arg\n'
    assert marked(source) == {1: {"arg-type", "misc"}, 3: {"call-arg"}}


def test_what_mypy_and_the_marks_tell_apart_is_found(tmp_path):
    lines = [
        "n: int = 1  # error: assignment",
        'm: int = "1"',
        'k: int = "1"  # error: index',
        'i: int = "1"  # error: index assignment',
    ]
    assert differences("\n".join(lines), tmp_path) == [
        f"not told: 1: {lines[0]}",
        f"told as assignment: 2: {lines[1]}",
        f"told as assignment: 3: {lines[2]}",
    ]
