"""Commands print few lines; OUT/messages.jsonl has every message."""

import json

from voxlate.scans.formats.io import read_volume, write_volume

CASES = 5


def lines(answer) -> int:
    assert answer.code == 0, answer.err
    return len([*answer.out.splitlines(), *answer.err.splitlines()])


def test_prepare_synth_and_evaluate_of_an_ordinary_cohort_print_few_lines(
    voxlate, cohort, run, tmp_path
):
    assert lines(voxlate("prepare", cohort, "--out", tmp_path / "ready")) <= 15
    assert lines(voxlate("synth", run, cohort, "--out", tmp_path / "out")) <= 8
    assert lines(voxlate("evaluate", tmp_path / "out", "--truth", cohort)) <= 17


def test_many_cases_with_the_same_warning_are_one_line_with_three_names(
    voxlate, run, small_head, tmp_path
):
    for number in range(CASES):
        folder = tmp_path / "heads" / f"c{number:02d}"
        small_head(folder, 0, modalities=("t1",))
        scan = read_volume(folder / "t1.nii.gz", "t1")
        bright = type(scan)(scan.data * 1.9, scan.affine, scan.unit, "t1")
        write_volume(folder / "t1.nii.gz", bright)
    answer = voxlate("synth", run, tmp_path / "heads", "--out", tmp_path / "out")
    assert lines(answer) <= 8
    assert answer.err.count(": 5 cases (c00, c01, c02, …): t1: its brightness") == 1
    stored = (tmp_path / "out" / "messages.jsonl").read_text(encoding="utf-8").splitlines()
    bright = [line for line in map(json.loads, stored) if line["code"] == "brightness"]
    assert sorted(line["case"] for line in bright) == [f"c{n:02d}" for n in range(CASES)]
