"""Which cases and files of a cohort count: --prefer, --exclude, --exclude-file, and a table as the cohort."""

import shutil
from pathlib import Path

import pytest

from rows import every_row
from scans import touch
from voxlate.base.errors import BadInput
from voxlate.checks.prepare import prepare
from voxlate.scans.cases.prepared import open_cohort
from voxlate.scans.cohorts.case_files import CohortFiles
from voxlate.scans.cohorts.find import find_cohort


@pytest.fixture
def two_runs(tmp_path) -> Path:
    """Two BIDS patients; the first has two T1w runs."""
    root = tmp_path / "bids"
    for name in ("sub-01_run-1_T1w", "sub-01_run-2_T1w", "sub-01_T2w", "sub-02_T1w", "sub-02_T2w"):
        touch(root, f"{name[:6]}/anat/{name}.nii.gz")
    (root / "dataset_description.json").write_text("{}")
    return root


def t1_of(found: CohortFiles, case: str) -> str:
    return next(one for one in found.cases if one.case == case).files["t1"].name


def test_the_preferred_of_two_files_is_taken_and_the_other_is_named(two_runs):
    found = find_cohort(two_runs, prefer="*run-2*")
    assert t1_of(found, "sub-01") == "sub-01_run-2_T1w.nii.gz"
    assert t1_of(found, "sub-02") == "sub-02_T1w.nii.gz"
    (said,) = found.unclaimed
    assert said.startswith("1 files in whose place --prefer took another")
    assert "sub-01_run-1_T1w.nii.gz" in said


def test_a_preference_that_fits_both_files_leaves_the_next_to_decide(two_runs):
    found = find_cohort(two_runs, prefer=["*T1w*", "*run-1*"])
    assert t1_of(found, "sub-01") == "sub-01_run-1_T1w.nii.gz"
    with pytest.raises(BadInput):
        find_cohort(two_runs, prefer=["*T1w*"])


@pytest.fixture
def two_t1(tmp_path) -> Path:
    """Two cases with t1 and t2; the first has a second t1, and the second another scan."""
    names = ("a/t1", "a/t1_run-2", "a/t2", "b/t1", "b/t1_new", "b/t2")
    return touch(tmp_path / "cohort", *(f"{name}.nii.gz" for name in names))


def test_a_second_run_of_a_modality_is_preferred_and_is_a_modality_of_its_own_without_a_preference(
    two_t1,
):
    found = find_cohort(two_t1, prefer="*run-2*")
    assert {name: path.name for name, path in found.cases[0].files.items()} == {
        "t1": "t1_run-2.nii.gz",
        "t2": "t2.nii.gz",
    }
    assert t1_of(found, "b") == "t1.nii.gz"
    assert any("--prefer took another" in one and "a/t1" in one for one in found.unclaimed)
    assert t1_of(find_cohort(two_t1, prefer="t1.nii.gz"), "a") == "t1.nii.gz"
    assert sorted(find_cohort(two_t1).cases[0].files) == ["t1", "t1_run-2", "t2"]


def test_a_preference_that_decides_nothing_is_refused_and_says_why(two_t1, two_runs):
    with pytest.raises(BadInput):
        find_cohort(two_runs, prefer=["*run-2*", "*nothing*"])
    with pytest.raises(BadInput):
        find_cohort(two_t1, prefer="*new*")


def test_aliases_make_two_names_one_modality_as_the_refusal_of_a_preference_says(two_t1):
    preset = two_t1.parent / "mine.toml"
    preset.write_text('patterns = ["{case}/{modality}"]\n[aliases]\nt1_new = "t1"\n')
    assert t1_of(find_cohort(two_t1, preset=preset, prefer="*new*"), "b") == "t1_new.nii.gz"


def test_an_excluded_file_leaves_the_other_one(two_runs):
    found = find_cohort(two_runs, exclude_file=["anat/*run-1*"])
    assert t1_of(found, "sub-01") == "sub-01_run-2_T1w.nii.gz"
    (said,) = found.unclaimed
    assert "sub-01_run-1_T1w.nii.gz" in said


def test_an_excluded_case_is_not_looked_at(two_runs):
    found = find_cohort(two_runs, exclude="sub-01")
    assert [one.case for one in found.cases] == ["sub-02"]
    assert found.unclaimed == ["1 cases that --exclude names ('sub-01')"]


@pytest.mark.parametrize("options", [{"exclude": "sub-03"}, {"exclude_file": "*.mgz"}])
def test_what_is_to_be_left_out_and_is_not_there_is_refused(two_runs, options):
    with pytest.raises(BadInput) as error:
        find_cohort(two_runs, prefer="*run-1*", **options)
    assert ("'sub-01' or 'sub-02'?" in str(error.value)) == ("exclude" in options)


def test_rows_of_a_manifest_that_are_excluded_need_no_files(two_runs):
    path, stem = two_runs / "mine.csv", "sub-02/anat/sub-02"
    path.write_text(
        f"case,t1,t2\nsub-01,gone.nii.gz,\nsub-02,{stem}_T1w.nii.gz,{stem}_T2w.nii.gz\n"
    )
    with pytest.raises(BadInput):
        find_cohort(two_runs, manifest=path)
    found = find_cohort(two_runs, manifest=path, exclude="sub-01", exclude_file="*T2w*")
    assert [sorted(one.files) for one in found.cases] == [["t1"]]


def test_of_two_rows_of_one_modality_the_preferred_one_counts(two_runs):
    path = two_runs / "mine.csv"
    rows = [f"sub-01,t1,sub-01/anat/sub-01_run-{run}_T1w.nii.gz" for run in (1, 2)]
    path.write_text("\n".join(["case,modality,path", *rows]) + "\n")
    with pytest.raises(BadInput):
        find_cohort(two_runs, manifest=path)
    found = find_cohort(two_runs, manifest=path, prefer="*run-2*")
    assert t1_of(found, "sub-01") == "sub-01_run-2_T1w.nii.gz"


def test_a_table_may_be_the_cohort(two_runs):
    path = two_runs / "mine.tsv"
    path.write_text("case\tt1\nsub-02\tsub-02/anat/sub-02_T1w.nii.gz\n")
    assert [one.case for one in find_cohort(path).cases] == ["sub-02"]
    with pytest.raises(BadInput):
        find_cohort(path, manifest=path)
    with pytest.raises(BadInput):
        find_cohort(two_runs / "gone.csv")


@every_row(
    "table, expected",
    [
        ("patient,set\nsub-01,a,train\nsub-02,b,validation", "a None train, b None val"),
        ("Subject,Fold\nsub-01,a,train\nsub-02,b,validation", "a None train, b None val"),
        ("fold\nsub-01,1\nsub-02,0", "sub-01 1 train, sub-02 0 val"),
        ("fold,split\nsub-01,,test\nsub-02,3,train", "sub-01 None test, sub-02 3 train"),
    ],
)
def test_a_table_states_patients_splits_and_numbers_of_folds_in_columns_of_several_names(
    two_runs, table, expected
):
    (two_runs / "cases.csv").write_text(f"case,{table}\n")
    found = find_cohort(two_runs, prefer="*run-1*")
    stated = [f"{one.patient} {one.fold} {one.split}" for one in found.cases]
    assert ", ".join(stated) == expected
    assert not any("name no scans" in one for one in found.unclaimed)


@every_row(
    "rows, words",
    [
        ("sub-01,a,1\nsub-02,b,5", "line 3: expected a fold 0 to 4.*found 5"),
        ("sub-01,a,1\nsub-02,b,", "line 3: expected a fold 0 to 4.*found none"),
        ("sub-01,a,1\nsub-02,a,2", "patient a in one fold"),
    ],
)
def test_folds_that_cannot_be_are_refused(two_runs, rows, words):
    (two_runs / "cases.csv").write_text(f"case,patient,fold\n{rows}\n")
    with pytest.raises(BadInput, match=words):
        find_cohort(two_runs, prefer="*run-1*")


def test_the_folds_of_a_table_are_those_of_the_prepared_cohort(cohort, tmp_path):
    rows = [f"case{number},{number % 3}" for number in range(6)]
    (cohort / "cases.csv").write_text("\n".join(["case,fold", *rows]))
    prepare(cohort, tmp_path / "prepared", workers=1, audit=False)
    opened = open_cohort(tmp_path / "prepared")
    assert opened.splits["val"] == ["case0", "case3"]
    assert opened.in_fold(2).splits == {
        "train": ["case0", "case1", "case3", "case4"],
        "val": ["case2", "case5"],
        "test": [],
    }
    with pytest.raises(BadInput):
        opened.in_fold(4)


@pytest.mark.slow
def test_prepare_synth_and_evaluate_take_a_table_and_leave_the_same_cases_out(
    voxlate, run, cohort, tmp_path, out
):
    shutil.copy(cohort / "case0" / "t1.nii.gz", cohort / "case0" / "T1.nii.gz")
    table = cohort / "mine.csv"
    table.write_text("\n".join(["case", *(f"case{number}" for number in range(6))]))
    options = ("--exclude", "case[1234]", "--exclude-file", "T1.nii.gz")
    dry = voxlate("prepare", cohort, "--dry-run", *options).done()
    assert "4 cases that --exclude names" in dry.err
    voxlate("prepare", table, "--out", tmp_path / "fewer", *options, "--no-audit").done()
    voxlate("synth", run, table, "--out", out, *options).done()
    assert sorted(one.name for one in out.glob("*/")) == ["case0", "case5"]
    voxlate("evaluate", out, "--truth", table, *options).done()
    assert "T1.nii.gz" in voxlate("evaluate", out, "--truth", table).refusal
