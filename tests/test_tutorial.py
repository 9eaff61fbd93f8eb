"""The tutorial in docs/start/tutorial.ipynb: every code cell runs, in order."""

import json
from pathlib import Path

import pytest

from rows import slow

NOTEBOOK = Path(__file__).parents[1] / "docs" / "start" / "tutorial.ipynb"


@pytest.fixture
def cells():
    """The cells of code of the notebook."""
    found = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    return [cell for cell in found if cell["cell_type"] == "code"]


@slow
def test_every_cell_of_the_tutorial_runs_and_two_patients_are_no_proof(
    cells, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "__main__"}
    for cell in cells:
        exec("".join(cell["source"]), names)
    assert names["images"].left_out == {}
    (verdict,) = names["scores"].verdicts
    assert verdict.patients == 2
    assert verdict.outcome == "unclear"
    assert verdict.synthesis < 0.8 * verdict.naive
    assert {"ct.nii.gz", "ct_low.nii.gz", "ct_high.nii.gz"} <= {
        path.name for path in (tmp_path / "images" / names["images"].cases[0]).iterdir()
    }
    assert names["page"].is_file()
    assert names["result"].to_nifti().shape == (48, 56, 10)


def test_the_notebook_is_committed_without_outputs(cells):
    assert all(cell["outputs"] == [] for cell in cells)
