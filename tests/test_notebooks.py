"""Every notebook runs from top to bottom with the installed package."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))

RUNS = {
    "01_quickstart": ["quickstart"],
    "02_compress": ["digits-budget", "digits-small"],
    "03_convolution_by_hand": [],
}


def test_notebooks_are_found():
    assert [path.stem for path in NOTEBOOKS] == list(RUNS)


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(path: Path, tmp_path: Path):
    notebook = nbformat.read(path, as_version=4)
    (tmp_path / "runs").mkdir()
    NotebookClient(notebook, timeout=1200, kernel_name="python3", resources={"metadata": {"path": tmp_path}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert not [output for output in outputs if output["output_type"] == "error"]
    runs = [path.parent.name for path in (tmp_path / "runs").glob("*/report.html")]
    assert sorted(runs) == RUNS[path.stem]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_imports_the_package_and_defines_nothing_long(path: Path):
    for cell in nbformat.read(path, as_version=4).cells:
        if cell["cell_type"] == "code":
            assert len(cell["source"].splitlines()) <= 12
            assert "def " not in cell["source"]
