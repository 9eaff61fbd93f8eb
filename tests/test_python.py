"""The commands in Python: docs/python.md is run as it stands."""

import re
from pathlib import Path

import nibabel as nib
import pytest

import voxlate as package

DOCUMENT = (Path(__file__).parents[1] / "docs" / "python.md").read_text()
CELLS = re.findall(r"```python\n(.*?)```", DOCUMENT, re.DOTALL)


@pytest.fixture
def cells(cohort, tmp_path, monkeypatch) -> dict:
    """The names that are left after all cells of the tutorial have run."""
    (tmp_path / "cohort").rename(tmp_path / "COHORT")
    monkeypatch.chdir(tmp_path)
    names = {"MINUTES": 0.1, "SCAN": tmp_path / "COHORT" / "case0" / "t1.nii.gz"}
    made = "\n".join(CELLS).replace("minutes=MINUTES", "minutes=MINUTES, mode='samples'")  # else the mean alone fits
    exec(made, names)
    return names


def test_the_tutorial_runs_as_it_stands_and_its_results_show_themselves(cells, tmp_path):
    assert cells["plan"].tables["train"]["seed"] == 1
    assert nib.load(tmp_path / "MEAN" / cells["mean"].cases[0] / "t2.nii.gz").shape == (20, 24, 6)
    assert (tmp_path / "SAMPLES" / cells["samples"].cases[0] / "t2_std_uncalibrated.nii.gz").exists()
    assert cells["made"].to_nifti().shape == (20, 24, 6)
    for name, word in (("plan", "data.patch"), ("scores", "MAE"), ("table", "MEAN")):
        assert word in cells[name]._repr_html_()
    assert cells["samples"]._repr_png_().startswith(b"\x89PNG")


def test_a_run_that_was_begun_by_auto_resumes(prepared, tmp_path):
    package.train("auto", prepared, tmp_path / "run", minutes=0.2, changes={"train.steps": "2"})
    before = (tmp_path / "run" / "recipe.toml").read_bytes()
    package.train("auto", prepared, tmp_path / "run", minutes=5)
    assert (tmp_path / "run" / "recipe.toml").read_bytes() == before


def test_the_package_lists_its_commands():
    assert {"prepare", "plan", "train", "synthesise", "evaluate", "compare", "load"} <= set(dir(package))


def test_several_runs_are_one_ensemble(run, cohort, tmp_path):
    made = package.synthesise([run, run], cohort / "case0", tmp_path / "out")
    assert made.cases == ("case0",)
    assert (tmp_path / "out" / "case0" / "t2_std_uncalibrated.nii.gz").is_file()
