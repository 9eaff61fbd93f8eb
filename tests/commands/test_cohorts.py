"""What commands say about folders, names and options that a new user gives them."""

import shutil

import numpy as np

from voxlate.base.files import write_json
from voxlate.evaluation.reports.page import report
from voxlate.scans.formats.io import write_volume
from voxlate.scans.images.grid import Volume
from voxlate.training.recipe import text as recipe_text


def test_info_counts_the_cases_and_modalities_of_a_cohort_folder(typed, cohort):
    facts = typed("info cohort --json").json
    assert (facts["cases"], facts["modalities"]) == (6, {"t1": 6, "t2": 6})
    assert facts["next"] == "voxlate prepare cohort --out PREPARED"


def test_a_modality_without_intensity_is_refused_with_the_option_that_adds_it(
    typed, tiny, prepared
):
    train = "train tiny.toml --data prepared --out r --set"
    answer = typed(f"{train} 'data.source=[\"T1\"]'")
    assert answer.code == 2
    assert "--set 'intensity.T1={kind=\"percentile\"}'" in answer.err
    advised = """'data.source=["pd"]' --set 'intensity.pd={kind="percentile"}'"""
    said = typed(f"{train} {advised}").err
    assert "expected an intensity map" not in said, "the advice is enough for the recipe"


def test_recipes_are_found_and_listed_with_their_modalities(typed):
    assert typed("recipes mrdpm").out.startswith(recipe_text.text_of("mrdpm"))
    assert "Did you mean 'mrdpm'" in typed("recipes MRDP").err
    listed = {one["name"]: one for one in typed("recipes --json").json}
    assert listed["t1_to_t2_brain"]["source"] == ["t1"]
    assert listed["t1_to_t2_brain"]["target"] == ["t2"]


def test_a_made_ct_of_grey_values_is_not_described_in_hounsfield_units(typed, tmp_path):
    case = tmp_path / "o" / "a"
    grey = Volume(np.full((1, 4, 4, 4), 9, np.float32), np.eye(4), "grey", "ct")
    write_volume(case / "ct.nii.gz", grey)
    assert typed("info o/a/ct.nii.gz --json").json["unit"] == "HU"
    stated = {"units": {"ct": "grey"}, "inputs": {}, "synth": {}}
    write_json(case / "provenance.json", stated)
    assert typed("info o/a/ct.nii.gz --json").json["unit"] == "grey"
    assert ">HU<" not in report(tmp_path / "o").read_text()


def test_info_calls_a_unit_by_a_files_name_a_guess_and_checks_its_values(typed, cohort, tmp_path):
    shutil.copy(cohort / "case0" / "t1.nii.gz", tmp_path / "CT_of_head.nii.gz")
    of_mr = typed("info CT_of_head.nii.gz --json").json
    (guess,) = of_mr["guessed"]
    assert "it may be no CT" in guess["text"]
    own = typed("info cohort/case0/t1.nii.gz --json").json
    assert "guessed" not in own
    assert ("next" in own, "next" in of_mr) == (True, False), "a CT is rarely given to a model"
