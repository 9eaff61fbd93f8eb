"""What commands say about folders, names and options that a new user gives them."""

import json
import re
import shlex
import shutil
from typing import get_type_hints

import nibabel as nib
import numpy as np
import pytest

from rows import every_row
from voxlate.base.files import write_json
from voxlate.base.options.option import option_of, suggestions
from voxlate.evaluation.options.evaluate import EvaluateOptions
from voxlate.evaluation.reports.page import report
from voxlate.scans.formats.io import write_volume
from voxlate.scans.images.grid import Volume
from voxlate.training.recipe import text as recipe_text


def test_info_counts_the_cases_and_modalities_of_a_cohort_folder(voxlate, cohort):
    facts = json.loads(voxlate("info", cohort, "--json").out)
    assert (facts["cases"], facts["modalities"]) == (6, {"t1": 6, "t2": 6})
    assert facts["next"] == f"voxlate prepare {cohort} --out PREPARED"


def test_manifest_names_the_table_that_it_wrote(voxlate, cohort, tmp_path):
    table = tmp_path / "my table.csv"
    assert f"--manifest {shlex.quote(str(table))}" in " ".join(
        voxlate("manifest", cohort, "--out", table).out.split()
    )
    assert table.is_file()


def test_info_describes_a_synthesis(voxlate, run, cohort, tmp_path):
    assert voxlate("synth", run, cohort, "--out", tmp_path / "out").code == 0
    facts = json.loads(voxlate("info", tmp_path / "out", "--json").out)
    assert facts["cases"] == sorted(path.name for path in cohort.iterdir() if path.is_dir())
    assert facts["images"] == ["t2"]
    assert facts["next"].startswith(f"voxlate evaluate {tmp_path / 'out'}")


def test_a_modality_without_intensity_is_refused_with_the_option_that_adds_it(
    voxlate, tiny, prepared, tmp_path
):
    answer = voxlate(
        "train", tiny, "--data", prepared, "--out", tmp_path / "r", "--set", 'data.source=["T1"]'
    )
    assert answer.code == 2
    assert "--set 'intensity.T1={kind=\"percentile\"}'" in answer.err
    advised = ["--set", 'data.source=["pd"]', "--set", 'intensity.pd={kind="percentile"}']
    answer = voxlate("train", tiny, "--data", prepared, "--out", tmp_path / "r", *advised)
    assert "intensity" not in answer.err, "the advice is enough for the recipe"


def test_an_unknown_split_is_answered_with_those_there_are(voxlate, run, cohort, tmp_path):
    answer = voxlate("synth", run, cohort, "--out", tmp_path / "out", "--split", "valid")
    assert all(name in answer.refusal for name in ("'train'", "'val'", "'test'"))


@pytest.mark.slow
def test_the_table_counts_mask_files(voxlate, cohort, tmp_path):
    assert (
        "mask"
        not in json.loads(voxlate("prepare", cohort, "--out", tmp_path / "none", "--json").out)[
            "overview"
        ]["rows"]
    )
    image = nib.load(cohort / "case0" / "t1.nii.gz")
    nib.save(
        nib.Nifti1Image((image.get_fdata() > 0).astype(np.uint8), image.affine),
        cohort / "case0" / "mask.nii.gz",
    )
    plan = json.loads(
        voxlate("prepare", cohort, "--out", tmp_path / "out", "--dry-run", "--json").out
    )
    done = json.loads(voxlate("prepare", cohort, "--out", tmp_path / "out", "--json").out)
    assert plan["rows"]["mask"] == done["overview"]["rows"]["mask"]
    assert done["overview"]["rows"]["mask"]["all"] == 1


def test_recipes_are_found_whatever_the_case_and_listed_with_their_modalities(voxlate):
    assert voxlate("recipes", "MRDPM").out.startswith(recipe_text.text_of("mrdpm"))
    assert "Did you mean 'mrdpm'" in voxlate("recipes", "MRDP").err
    listed = {one["name"]: one for one in json.loads(voxlate("recipes", "--json").out)}
    assert (listed["t1_to_t2_brain"]["source"], listed["t1_to_t2_brain"]["target"]) == (
        ["t1"],
        ["t2"],
    )


@every_row(
    ("table", "name", "begun", "known"),
    [
        (EvaluateOptions, "mask", "b", ["body", "brain"]),
        (EvaluateOptions, "scopes", "both_masked.c", ["both_masked.crops"]),
    ],
)
def test_values_complete_in_the_shell(table, name, begun, known):
    option = option_of(get_type_hints(table, include_extras=True)[name])
    assert suggestions(option, begun) == known


def test_a_made_ct_of_grey_values_is_not_described_in_hounsfield_units(voxlate, tmp_path):
    write_volume(
        tmp_path / "o" / "a" / "ct.nii.gz",
        Volume(np.full((1, 4, 4, 4), 9, np.float32), np.eye(4), "grey", "ct"),
    )
    assert (
        json.loads(voxlate("info", tmp_path / "o" / "a" / "ct.nii.gz", "--json").out)["unit"]
        == "HU"
    )
    write_json(
        tmp_path / "o" / "a" / "provenance.json",
        {"units": {"ct": "grey"}, "inputs": {}, "synth": {}},
    )
    assert (
        json.loads(voxlate("info", tmp_path / "o" / "a" / "ct.nii.gz", "--json").out)["unit"]
        == "grey"
    )
    assert ">HU<" not in report(tmp_path / "o").read_text()


@pytest.mark.slow
def test_keys_of_a_finished_run_are_changed_by_a_new_run_that_its_refusal_names(
    voxlate, run, prepared, tmp_path
):
    change = ("--set", "train.optimiser.lr=1e-4")
    refused = voxlate("train", run, *change)
    said = refused.refusal
    command = re.search(r"from these weights: voxlate (.+)\.", said)
    assert command, said
    words = {"PREPARED": prepared, "NEW": tmp_path / "new"}
    line = [str(words.get(word, word)) for word in shlex.split(command[1])]
    voxlate(*line, *change).done()
    other = voxlate("train", run / "recipe.toml", "--data", prepared, "--out", run, *change)
    assert f"--init {run}" in "".join(other.err.split("\n"))


def test_info_calls_a_unit_by_a_files_name_a_guess_and_checks_its_values(voxlate, cohort, tmp_path):
    shutil.copy(cohort / "case0" / "t1.nii.gz", tmp_path / "CT_of_head.nii.gz")
    of_mr = json.loads(voxlate("info", tmp_path / "CT_of_head.nii.gz", "--json").out)
    (guess,) = of_mr["guessed"]
    assert "it may be no CT" in guess["text"]
    own = json.loads(voxlate("info", cohort / "case0" / "t1.nii.gz", "--json").out)
    assert "guessed" not in own
    assert ("next" in own, "next" in of_mr) == (True, False), "a CT is rarely given to a model"
