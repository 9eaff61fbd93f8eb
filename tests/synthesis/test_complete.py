"""Completion and latent models through the command line, as a user would train and use them."""

from voxlate.scans.cohorts.find import find_cohort


def test_cases_with_mixed_gaps_are_completed_and_whole_ones_listed(synth, completing, cohort, out):
    assert "--missing" in synth(completing, cohort / "case1").refusal, "nothing is"
    (cohort / "case4/t1.nii.gz").unlink()
    (cohort / "case2/t2.nii.gz").unlink()
    assert "case0, case1, case3, case5" in synth(completing, cohort).done().out
    made = sorted(f"{path.parent.name}/{path.name}" for path in out.glob("*/*.nii.gz"))
    assert made == ["case2/desc-synthetic_t2.nii.gz", "case4/desc-synthetic_t1.nii.gz"]


def test_images_that_were_synthesised_are_no_scans_of_a_cohort(voxlate, completing, cohort):
    (cohort / "case4/t1.nii.gz").unlink()
    voxlate("synth", completing, cohort, "--out", cohort).done()
    found = find_cohort(cohort)
    names = {case.case: set(case.files) for case in found.cases}
    assert names.pop("case4") == {"t2"}
    assert all(own == {"t1", "t2"} for own in names.values())
    assert found.unclaimed == ["images that were synthesised: 'case4/desc-synthetic_t1.nii.gz'"]
