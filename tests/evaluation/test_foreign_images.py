"""Images that other software wrote, in the layout of synth."""

import numpy as np
import pytest

from made_volumes import save, save_pair
from refusals import refuses
from voxlate.base.files import write_json
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


def test_a_model_without_baselines_is_compared_with_copies_of_its_sources_in_the_unit_of_the_truth(
    tmp_path,
):
    """As a starter, of which the training cases are not there."""
    truth = np.zeros((6, 20, 20))
    truth[1:5, 4:16, 4:16] = np.arange(100, 244).reshape(12, 12)
    for name, unit in (("t1", "a.u."), ("ct", "HU")):
        save(tmp_path / "cohort/p1" / f"{name}.nii.gz", truth * 2, name, unit)
    out, cohort = save_pair(tmp_path, truth, truth + 10, "t2", "a.u.", case="p1")
    inputs = {name: {"path": f"../../cohort/p1/{name}.nii.gz"} for name in ("t1", "ct")}
    write_json(out / "p1/provenance.json", {"case": "p1", "inputs": inputs})
    errors = evaluate(out, cohort).errors("t2")
    assert errors.keys() == {"synthesis", "copy of t1"}
    assert errors["copy of t1"]["p1"] == pytest.approx(0, abs=1e-6)  # up to its own peak
