"""The notebook: it runs from top to bottom as it stands, and is committed without outputs."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

PATH = Path(__file__).parent / "train_flax.ipynb"
SHORT = 'OPTIONS = "--preset smoke --epochs 2 --train-images 256"\nSEEDS = "1"'


def read():
    return nbformat.read(PATH, as_version=nbformat.NO_CONVERT)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def texts(cell) -> str:
    """All that a cell printed or showed as text."""
    shown = [o.text if o.output_type == "stream" else o.data["text/plain"] for o in cell.outputs]
    return "\n".join(shown)


def pictures(cell) -> int:
    return sum("image/png" in output.get("data", {}) for output in cell.outputs)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The code cells by their ids, after a short run in an empty folder; an error is raised."""
    folder = tmp_path_factory.mktemp("notebook")
    notebook = read()
    (settings,) = (c for c in notebook.cells if "parameters" in c.metadata.get("tags", []))
    settings.source = SHORT
    with pytest.MonkeyPatch.context() as patch:
        for name in ("IPYTHONDIR", "JUPYTER_DATA_DIR"):  # else what a user's home holds counts
            patch.setenv(name, str(folder / name))
        where = {"metadata": {"path": str(folder)}}
        NotebookClient(notebook, timeout=300, resources=where).execute()
    return {cell.id: cell for cell in code_cells(notebook)}


@pytest.mark.slow
def test_the_notebook_trains_both_depths_and_shows_table_and_pictures(run):
    assert "Device" in texts(run["device"])
    table = texts(run["train"])
    for words in ("test error", "0 (constant)", "0.2 (stochastic)", "2.70 of 3"):
        assert words in table
    shown = {name: pictures(cell) for name, cell in run.items()}
    assert {name: count for name, count in shown.items() if count} == {
        "pictures": 1,
        "kept-layers-picture": 1,
    }


@pytest.mark.slow
def test_the_notebook_installs_nothing_where_all_is_there(run):
    assert run["install"].outputs == []
    assert run["install"].execution_count == 1


def test_the_committed_notebook_holds_no_outputs_and_is_as_jupyter_writes_it():
    notebook = read()
    nbformat.validate(notebook)
    cells = code_cells(notebook)
    assert [cell.id for cell in cells if cell.outputs or cell.execution_count is not None] == []
    assert notebook.metadata.keys() == {"kernelspec", "language_info"}
    assert nbformat.writes(notebook, version=nbformat.NO_CONVERT) + "\n" == PATH.read_text("utf-8")
