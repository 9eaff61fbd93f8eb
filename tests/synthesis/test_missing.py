"""Folders that are written to more than once, by one run or several: scores are of what the last command made."""

import shutil

import nibabel as nib
import numpy as np

from rows import every_row, slow
from scans import contents_of, keep_cases
from voxlate.base.files import read_json
from voxlate.evaluation.scoring.scores import read_scores
from voxlate.scans.images.grid import Volume
from voxlate.synthesis.provenance import is_unchanged, write_images


@every_row("place", ["done", "prepared", "elsewhere"])
def test_synth_never_replaces_the_provenance_of_something_else(
    voxlate, completing, cohort, prepared, place
):
    out = prepared.with_name(place)
    if place == "elsewhere":
        out.mkdir()
        (out / "provenance.json").write_text('{"scanner": "ours"}')
    before = contents_of(out)
    sentence = (
        f"{out}: expected a new folder, one of scans, or one that voxlate synth wrote, found "
    )
    for command in (("synth", completing, cohort, "--missing", "t2", "--out", out),):
        assert sentence in voxlate(*command).refusal
        assert contents_of(out) == before


def test_a_provenance_of_something_else_in_a_case_is_kept_and_in_another_case_passed_over(
    voxlate, completing, cohort
):
    for case in ("case0", "case1"):
        (cohort / case / "provenance.json").write_text('{"inputs": ["scanner"]}')
    (cohort / "case0/t1.nii.gz").unlink()
    (cohort / "case2/t1.nii.gz").unlink()
    answer = voxlate("synth", completing, cohort, "--out", cohort).refusal
    sentence = "case0: expected a new folder, one of scans, or one that voxlate synth wrote, found provenance"
    assert sentence in answer
    assert (cohort / "case0/provenance.json").read_text() == '{"inputs": ["scanner"]}'
    assert (cohort / "case2/desc-synthetic_t1.nii.gz").is_file()


def test_an_image_that_is_gone_or_changed_is_made_again(synth, run, cohort, out):
    synth(run, cohort).done()
    before = {path: nib.load(path).get_fdata() for path in out.glob("*/t2.nii.gz")}
    (out / "case1/t2.nii.gz").unlink()
    (out / "case2/provenance.json").unlink()  # as a run that was killed leaves it
    shutil.copyfile(out / "case4/t2.nii.gz", out / "case3/t2.nii.gz")
    answer = synth(run, cohort, "-v").done()
    assert "3 of 6" in answer.err
    for path, image in before.items():
        np.testing.assert_array_equal(nib.load(path).get_fdata(), image)


def test_only_files_that_were_listed_and_are_unchanged_are_removed(tmp_path):
    def content(value):
        return Volume(np.full((1, 2, 2, 2), value, np.float32), np.eye(4), "a.u.", "t2")

    (tmp_path / "scan.nii.gz").write_text("a scan")
    made = {f"{name}.nii.gz": content(ord(name)) for name in "abc"}
    write_images(tmp_path, made, {})
    assert is_unchanged(tmp_path)
    (tmp_path / "b.nii.gz").write_text("somebody's own")
    assert not is_unchanged(tmp_path)
    write_images(tmp_path, {"c.nii.gz": content(0)}, {})
    names = {path.name for path in tmp_path.glob("*.gz")}
    assert names == {"b.nii.gz", "c.nii.gz", "scan.nii.gz"}
    assert list(read_json(tmp_path / "provenance.json")["images"]) == ["c.nii.gz"]


def table_of(folder):
    """The lines of the scores, but for those of times."""
    lines = (folder / "scores.csv").read_text().splitlines()
    return [line for line in lines if ",seconds_per_slice," not in line]


@slow
def test_completing_in_place_scores_the_synthesis_and_not_the_scan(
    voxlate, completing, cohort, out, tmp_path
):
    place = shutil.copytree(keep_cases(cohort, "case0", "case1"), tmp_path / "place")
    command = ("synth", completing, place, "--missing", "t2", "--out")
    for to in (out, place):
        voxlate(*command, to).done()
    for to in (out, place):
        voxlate("evaluate", to, "--truth", cohort).done()
    assert {row.modality for row in read_scores(place / "metrics.json").rows} == {"t2"}
    assert table_of(place) == table_of(out)
    assert all(row.scores["mae"] > 0 for row in read_scores(out / "metrics.json").rows)
    voxlate(*command, place, "--seed", "1").done()
    assert len(list(place.glob("*/t[12].nii.gz"))) == 4, "scans stay"
