"""A cross-validation in one folder: out-of-fold cases and those of the ensemble are scored apart."""

import numpy as np
import pytest

from made_scores import STORED_RECIPE
from made_volumes import head, save
from voxlate.base.files import read_json, write_json
from voxlate.evaluation.compare import compare
from voxlate.evaluation.reports.page import report
from voxlate.evaluation.scoring.evaluate import evaluate
from voxlate.evaluation.scoring.scores import read_scores

FOLDS = {"p0": 0, "p1": 1, "p2": 0, "p3": 1}  # p4 and p5 are for test
SECTIONS = ["ct, out of fold", "ct, ensemble"]


@pytest.fixture
def folders(tmp_path):
    """Images 10, 20, … HU too bright, of which synth states which runs made them."""
    out, cohort = tmp_path / "out", tmp_path / "cohort"
    for number in range(6):
        case = f"p{number}"
        save(cohort / case / "ct.nii.gz", head(number))
        save(out / case / "ct.nii.gz", head(number) + 10 * (number + 1))
        fold = FOLDS.get(case)
        made = {"members": [{}, {}], "run": f"../../runs/fold{fold or 0}"}
        if fold is None:
            made["runs"] = ["../../runs/fold0", "../../runs/fold1"]
        else:
            made["held_out_by"] = [fold]
        write_json(out / case / "provenance.json", made)
    return out, cohort


def test_out_of_fold_cases_and_those_of_the_ensemble_have_their_own_means_and_verdicts(folders):
    scores = evaluate(*folders)
    assert [*scores.means] == [*scores.parts] == SECTIONS
    means = [scores.means[name]["synthesis"]["mae"]["mean"] for name in SECTIONS]
    assert means == pytest.approx([25, 55], abs=1e-3)
    assert [verdict.modality for verdict in scores.verdicts] == SECTIONS
    assert [*scores.short_table().lines] == SECTIONS
    folds = scores.folds["ct, out of fold"]["mae"]
    assert folds["by_fold"] == pytest.approx({"fold0": 20, "fold1": 30}, abs=1e-3)
    assert (folds["mean"], folds["sd"]) == pytest.approx((25, np.sqrt(50)), abs=1e-3)
    stated = read_json(folders[0] / "metrics.json")
    assert stated["out_of_fold"] == {case: f"fold{fold}" for case, fold in FOLDS.items()}
    assert [*stated["modalities"]] == SECTIONS
    assert stated["modalities"]["ct, ensemble"]["cases"] == 2
    read = read_scores(folders[0] / "metrics.json")
    assert read.frame.equals(scores.frame)
    assert read.means == scores.means
    assert {*scores.frame["fold"]} == {"fold0", "fold1", ""}
    page = report(folders[0]).read_text(encoding="utf-8")
    assert all(name in page for name in SECTIONS)


def test_cases_that_no_fold_held_out_and_all_trained_on_are_no_cases_of_the_ensemble(folders):
    out, _ = folders
    data = {"splits": {"train": ["p2", "p4"]}}
    for fold in ("fold0", "fold1"):
        stated = {"recipe": STORED_RECIPE, "data": data}
        write_json(out.parent / "runs" / fold / "provenance.json", stated)
    scores = evaluate(*folders)
    assert [*scores.parts] == ["ct, out of fold", "ct, ensemble", "ct, in training"]
    means = scores.means["ct, in training"]["synthesis"]["mae"]
    assert (means["mean"], means["n"]) == (pytest.approx(50, abs=1e-3), 1)
    tables = [*compare([out]).table().lines]
    assert tables == [*scores.parts]


def test_where_all_cases_are_out_of_fold_they_are_one_section_with_a_summary_over_folds(folders):
    scores = evaluate(*folders, cases=FOLDS)
    assert [*scores.parts] == ["ct"]
    assert scores.folds["ct"]["mae"]["mean"] == pytest.approx(25, abs=1e-3)
    assert evaluate(*folders, cases=["p4", "p5"]).folds == {}
