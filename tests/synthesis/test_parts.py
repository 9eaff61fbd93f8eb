"""Several jobs synthesise the cases of one cohort into one folder."""

import json
import shutil

import pytest

import voxlate as package
from refusals import refuses
from rows import every_row, slow
from voxlate.base.files import lock, read_json
from voxlate.synthesis.cohort import part_of
from voxlate.synthesis.scans import find_scans


def test_parts_share_out_all_cases_and_each_once():
    parts = [[*range(7)][part_of(text)] for text in ("1/3", "2/3", "3/3")]
    assert parts == [[0, 3, 6], [1, 4], [2, 5]]


@every_row("text", ["", "3", "0/3", "4/3", "-1/3", "1/0", "a/b", "1/3/5"])
def test_an_invalid_part_is_refused_in_one_sentence(text):
    with refuses("expected the number of a part and how many there are"):
        part_of(text)


def test_parts_give_the_same_files_as_one_job_and_scores_miss_an_unfinished_part(
    voxlate, run, cohort, tmp_path
):
    options = ("synth", run, cohort, "--split", "train", "--out")
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    voxlate(*options, whole).done()
    cases = sorted(one.name for one in whole.iterdir() if one.is_dir())
    voxlate(*options, parts, "--part", "2/2").done()
    assert sorted(one.name for one in parts.iterdir() if one.is_dir()) == cases[1::2]
    early = voxlate("evaluate", parts, "--truth", cohort).refusal
    assert f"not scored: {', '.join(cases[::2])} (" in early
    voxlate(*options, parts, "--part", "1/2").done()
    voxlate("evaluate", parts, "--truth", cohort).done()
    for case in cases:
        one, other = ((out / case / "t2.nii.gz").read_bytes() for out in (parts, whole))
        assert one == other
    assert sorted(read_json(parts / "provenance.json")["cases"]) == cases


@slow
def test_a_case_that_another_job_makes_is_left_to_it(synth, run, cohort, out):
    with lock(out / "case0"):
        answer = synth(run, cohort, "--part", "1/1")
    assert "case0: expected no other voxlate to write here" in answer.refusal
    assert (out / "case1/t2.nii.gz").exists()
    synth(run, cohort, "--part", "1/1").done()
    assert not read_json(out / "provenance.json").get("failed")


@pytest.fixture
def trained_on(voxlate, out):
    """trained_on(truth): the cases of `out` whose scores are not held-out scores."""
    return lambda truth: json.loads(voxlate("evaluate", out, "--truth", truth, "--json").out)[
        "trained_on"
    ]


@slow
def test_another_patient_with_the_name_of_a_training_case_counts_as_held_out(
    synth, trained_on, run, cohort, out, tmp_path, small_head
):
    others = tmp_path / "others"
    for number in range(2):
        small_head(others / f"case{number}", 100 + number)  # names of training cases
    assert "It has the name of a training case and other voxels" in synth(run, others).err
    assert trained_on(others) == []
    shutil.rmtree(out)
    assert "other voxels" not in synth(run, cohort, "--split", "train").err
    assert trained_on(cohort)


def test_a_training_case_under_another_name_counts_as_one(synth, trained_on, run, cohort, tmp_path):
    splits = read_json(run / "provenance.json")["data"]["splits"]
    (tmp_path / "renamed").mkdir()
    (cohort / splits["train"][0]).rename(tmp_path / "renamed/somebody")
    synth(run, tmp_path / "renamed").done()
    assert trained_on(tmp_path / "renamed") == ["somebody"]


@every_row(
    "name, t1_grade, mr_grade",
    [
        ("scan", None, None),
        ("mr_20190304", None, None),
        ("Chris T1 2019-03-04", None, None),
        ("chris_t2", "caution", None),
        ("chris_ct", "caution", "caution"),
    ],
)
def test_a_lone_scan_is_a_caution_only_where_its_name_states_another_modality(
    run, shipped_starters, tmp_path, name, t1_grade, mr_grade
):
    path = tmp_path / f"{name}.nii.gz"
    path.touch()
    for model, grade in ((run, t1_grade), (shipped_starters / "head-mr-to-ct", mr_grade)):
        (scans,) = find_scans([str(path)], package.load(model))
        assert [note.grade for note in scans.notes] == ([grade] if grade else [])
