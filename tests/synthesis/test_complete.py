"""Completion and latent models through the command line, as a user would train and use them."""

from preparing import prepare
from rows import slow
from scans import change_scan, hold_out_the_last
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


@slow
def test_a_target_whose_scale_varies_between_cases_is_said_to_be_a_guess(
    voxlate, completing, cohort, out, tmp_path
):
    for number in (1, 3, 5):
        change_scan(cohort / f"case{number}" / "t2.nii.gz", lambda data: data * 4)
    hold_out_the_last(cohort)
    varied = prepare(cohort, tmp_path / "varied", audit=False).folder
    own = ("--set", 'intensity.t2={kind="percentile"}')
    run, sentence = tmp_path / "vrun", "it differs from scanner to scanner"
    train = ("train", tmp_path / "done.toml", "--data", varied, "--out", run, *own)
    assert sentence in voxlate(*train).done().err
    for name in ("t2", "t1"):  # t1 has one window
        synth = ("synth", run, cohort / "case5", "--out", out / name, "--missing", name)
        assert (sentence in voxlate(*synth).done().err) == (name == "t2")
