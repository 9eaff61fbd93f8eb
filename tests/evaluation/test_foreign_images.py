"""Images that other software wrote are scored by their paths, whatever its folders look like."""

import shutil

import numpy as np
import pytest

from made_volumes import save
from refusals import refuses
from voxlate.evaluation.scoring.evaluate import evaluate
from voxlate.evaluation.scoring.scored_images import check_unchanged
from voxlate.evaluation.scoring.scores import read_scores

ERRORS = {"p1": 10.0, "p10": 30.0}


@pytest.fixture
def truths(tmp_path):
    """Two cases, of which the name of one begins as that of the other."""
    body = np.full((6, 20, 20), -1000.0)
    body[1:5, 4:16, 4:16] = 40
    for case in ERRORS:
        save(tmp_path / "cohort" / case / "ct.nii.gz", body)
        save(tmp_path / "cohort" / case / "t1.nii.gz", body + 1000, "t1", "a.u.")
    return body


@pytest.mark.parametrize(
    "layout",
    ["{}.nii.gz", "{}_ct.nii.gz", "p1/{}/ct.nii.gz", "p10/{}_pred.mha"],
)
def test_each_image_belongs_to_the_case_that_its_path_names(layout, truths, tmp_path):
    out = tmp_path / "other"
    for case, error in ERRORS.items():
        save(out / layout.format(case), truths + error)
    others = ["atlas", "p10_ct_from_t1", "p1_seg", "p1_std", "p1_p10_ct"]
    for name in others:
        save(out / f"{name}.nii.gz", truths)
    scores = evaluate(out, tmp_path / "cohort")
    found = {(row.case, row.modality): row.scores["mae"] for row in scores.rows}
    assert found == {(case, "ct"): pytest.approx(error) for case, error in ERRORS.items()}
    header = read_scores(out / "metrics.json").header
    assert header["recognised"] == {f"{case}/ct": layout.format(case) for case in ERRORS}
    said = {message["code"] for message in header["messages"]}
    assert said == {"recognised", "same-voxels"}, "the truths of all cases here are one"
    assert sorted(header["without_truth"]) == sorted(others)
    check_unchanged(out, header)
    save(out / layout.format("p1"), truths)
    with refuses():
        check_unchanged(out, header)


def test_two_images_of_one_case_are_no_choice_and_other_names_no_images(truths, tmp_path):
    out = tmp_path / "other"
    save(out / "scan7.nii.gz", truths)
    with refuses(r"CASE_ct\.nii\.gz"):
        evaluate(out, tmp_path / "cohort")
    save(out / "p1_ct.nii.gz", truths)
    save(out / "p1_sct.nii.gz", truths)
    with refuses("p1_ct"):
        evaluate(out, tmp_path / "cohort")


def test_without_a_run_the_baselines_are_learned_from_the_prepared_training_cases(
    cohort, prepared, tmp_path
):
    out = tmp_path / "other"
    out.mkdir()
    for case in ("case0", "case5"):
        shutil.copy(cohort / case / "t2.nii.gz", out / f"{case}_t2.nii.gz")
    (plain,) = evaluate(out, cohort).verdicts
    assert (plain.outcome, plain.baseline) == ("unknown", None)
    judged = evaluate(out, cohort, prepared=prepared)
    assert {row.method for row in judged.rows} >= {"synthesis", "mean image", "copy of t1"}
    (verdict,) = judged.verdicts
    assert (verdict.synthesis, verdict.lower_on) == (0, 2)
