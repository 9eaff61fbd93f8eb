"""Images that other software wrote, in the layout of synth."""

import shutil

import numpy as np
import pytest

from made_volumes import save
from refusals import refuses
from voxlate.evaluation.scoring.evaluate import evaluate
from voxlate.evaluation.scoring.scored_images import check_unchanged
from voxlate.evaluation.scoring.scores import read_scores

ERRORS = {"p1": 10.0, "p10": 30.0}


def test_images_of_other_software_are_scored_where_synth_would_write_them(tmp_path):
    """The name of one case begins as that of the other."""
    out = tmp_path / "other"
    truths = np.full((6, 20, 20), -1000.0)
    truths[1:5, 4:16, 4:16] = 40
    for case in ERRORS:
        save(tmp_path / "cohort" / case / "ct.nii.gz", truths)
        save(tmp_path / "cohort" / case / "t1.nii.gz", truths + 1000, "t1", "a.u.")
    save(out / "p1_ct.nii.gz", truths)
    with refuses("OUT/CASE/MODALITY"):
        evaluate(out, tmp_path / "cohort")
    for case, error in ERRORS.items():
        save(out / case / "ct.nii.gz", truths + error)
    save(out / "atlas/ct.nii.gz", truths)
    scores = evaluate(out, tmp_path / "cohort")
    found = {(row.case, row.modality): row.scores["mae"] for row in scores.rows}
    assert found == {(case, "ct"): pytest.approx(error) for case, error in ERRORS.items()}
    header = read_scores(out / "metrics.json").header
    assert header["without_truth"] == ["atlas/ct"]
    check_unchanged(out, header)
    save(out / "p1/ct.nii.gz", truths)
    with refuses():
        check_unchanged(out, header)


def test_without_a_run_the_baselines_are_learned_from_the_prepared_training_cases(
    cohort, prepared, tmp_path
):
    out = tmp_path / "other"
    for case in ("case0", "case5"):
        (out / case).mkdir(parents=True)
        shutil.copy(cohort / case / "t2.nii.gz", out / case)
    (plain,) = evaluate(out, cohort).verdicts
    assert (plain.outcome, plain.baseline) == ("unknown", None)
    judged = evaluate(out, cohort, prepared=prepared)
    assert {row.method for row in judged.rows} >= {"synthesis", "mean image", "copy of t1"}
    (verdict,) = judged.verdicts
    assert (verdict.synthesis, verdict.lower_on) == (0, 2)
