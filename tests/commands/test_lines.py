"""Commands print few lines; OUT/messages.jsonl has every message."""


def lines(answer) -> int:
    assert answer.code == 0, answer.err
    return len([*answer.out.splitlines(), *answer.err.splitlines()])


def test_prepare_synth_and_evaluate_of_an_ordinary_cohort_print_few_lines(
    voxlate, cohort, run, tmp_path
):
    assert lines(voxlate("prepare", cohort, "--out", tmp_path / "ready")) <= 15
    assert lines(voxlate("synth", run, cohort, "--out", tmp_path / "out")) <= 8
    assert lines(voxlate("evaluate", tmp_path / "out", "--truth", cohort)) <= 19
