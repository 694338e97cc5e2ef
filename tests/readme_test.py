"""The code blocks of README.md and docs/ run as tests, and a block that fails fails the tests."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def outcome_of(page: str, text: str, folder: Path) -> str:
    """What pytest, configured as here, says last of a project that holds this page only."""
    for name in ("conftest.py", "pyproject.toml"):
        shutil.copy(ROOT / name, folder)
    (folder / page).parent.mkdir(exist_ok=True)
    (folder / page).write_text(text)
    command = [sys.executable, "-m", "pytest", "-q", "--color=no", "-p", "no:cacheprovider"]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    return result.stdout.splitlines()[-1]


@pytest.mark.parametrize("page", ["README.md", "docs/guide.md"])
@pytest.mark.parametrize(
    ("code", "outcome"),
    [("assert 1 + 1 == 2", "1 passed"), ("assert 1 + 1 == 3", "1 failed"), ("nowhere", "1 failed")],
)
def test_a_code_block_passes_or_fails_as_it_runs(page, code, outcome, tmp_path):
    assert outcome_of(page, f"# Title\n\n```python\n{code}\n```\n", tmp_path).startswith(outcome)


TWO_BLOCKS = "```python\nx = 3\n```\n\n```python\nassert x == 3\n```\n"


@pytest.mark.parametrize("page", ["README.md", "docs/index.md", "docs/from_timm.md"])
def test_each_block_of_a_page_to_paste_from_runs_alone(page, tmp_path):
    assert outcome_of(page, TWO_BLOCKS, tmp_path).startswith("1 failed, 1 passed")


def test_in_a_guide_later_blocks_see_the_names_of_earlier_ones(tmp_path):
    assert outcome_of("docs/guide.md", TWO_BLOCKS, tmp_path).startswith("2 passed")


def test_a_block_that_is_skipped_leaves_the_next_ones_to_run(tmp_path):
    skip = '<!-- skip: next if(find_spec("nowhere") is None, reason="not installed") -->\n\n'
    block = "```python\nimport nowhere\n```\n\n"
    text = f"{skip}{block}```python\nx = 3\n```\n\n{skip}{block}"
    outcome = outcome_of("README.md", text, tmp_path)
    assert outcome.startswith("3 passed, 2 skipped")  # each comment counts as passed


def test_the_readme_has_code_blocks_and_all_are_spelt_as_the_collector_wants():
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    fences = [line for line in lines if line.lstrip().lower().startswith("```py")]
    assert fences
    assert set(fences) == {"```python"}
