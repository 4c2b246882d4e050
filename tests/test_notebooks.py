"""Every notebook runs from top to bottom with the installed package, with shorter trainings."""

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
# What is put in place of what: the saved outputs show what the long trainings reach.
SHORTER = {
    "01_quickstart": {'load("digits")': 'load("digits", ["train.epochs=6", "export.variants=[float32, int8]"])'},
    "02_compress": {
        'load("digits")': 'load("digits", ["train.epochs=6"])',
        "import logging": "import logging\nfrom pipeline.export.compress import candidates\n"
        "candidates.RATIOS, candidates.SHRINKS = (0.0, 0.5, 0.75), (1.0,)",
        '"compress.channels.epochs=30"': '"compress.channels.epochs=1"',
        "drop<3pp": "drop<80pp",
    },
    "03_convolution_by_hand": {},
}


def test_notebooks_are_found():
    assert [path.stem for path in NOTEBOOKS] == list(RUNS)


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(path: Path, tmp_path: Path):
    notebook = nbformat.read(path, as_version=4)
    for long, short in SHORTER[path.stem].items():
        [cell] = [cell for cell in notebook.cells if cell["cell_type"] == "code" and long in cell["source"]]
        cell["source"] = cell["source"].replace(long, short)
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
