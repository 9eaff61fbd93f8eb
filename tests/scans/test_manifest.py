import re
from pathlib import Path

import pytest

from refusals import refuses
from rows import every_row
from scans import touch
from voxlate.scans.cohorts.case_files import CaseFiles
from voxlate.scans.cohorts.find import CohortFiles, find_cohort


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return touch(tmp_path / "scans", "{a,b,c}/{mr,ct}.png")


def stated(cases: list[CaseFiles]) -> dict[str, tuple[str, str | None]]:
    """The patient and the split of each case."""
    return {one.case: (one.patient, one.split) for one in cases}


def listed(root: Path, text: str, name: str = "table.csv", **options: Path) -> CohortFiles:
    """The cohort by a manifest with this text."""
    path = root.parent / name
    path.write_text(text)
    return find_cohort(root, manifest=path, **options)


def test_a_wide_table_holds_a_path_a_modality_and_may_leave_one_empty(root):
    text = "Case\tPatient\tAge\tT1\tCT\nx\tp\t61\tscans/a/mr.png\tscans/a/ct.png\ny\tq\t50\tscans/b/mr.png\t\n"
    cases = listed(root, text, "wide.tsv").cases
    assert [(one.case, one.patient, list(one.files)) for one in cases] == [
        ("x", "p", ["ct", "t1"]),
        ("y", "q", ["t1"]),
    ]
    assert cases[0].files["t1"].samefile(root / "a/mr.png")


def test_a_long_table_holds_a_row_a_file(root):
    text = "case,modality,path,split\nx,t1,a/mr.png,test\nx,seg,a/ct.png,test\n"
    (case,) = listed(root, text).cases
    assert ([*case.files], [*case.labels], case.split) == (["t1"], ["seg"], "test")


def test_a_table_by_patient_takes_all_cases_of_each(root):
    for case in "ab":
        (root / case).rename(root / f"IXI001-{case}")
    cases = listed(root, "patient,split\nIXI001,train\nc,val\n", patients=r"^(IXI\d+|.)").cases
    assert stated(cases)["IXI001-b"] == ("IXI001", "train")


REFUSED = [
    (
        "case,patient,split\na,p,train\nb,p,val\n",
        "expected each patient in one split, found p in train and val",
    ),
    ("case,split\na,train\nb,exam\n", "expected a split train, val or test, found 'exam'"),
    ("case,split\na,train\nb,\n", "line 3: expected a split in every row or in none"),
    ("case,split\na,train\na,train\n", "expected each case in one row, found a twice"),
    (
        "case,split\na,train\nz,train\n",
        "expected files of z, found only others (a, b, c)",
    ),
    (
        "case,mr\na,a/mr.png\nb,b/gone.png\n",
        "expected the file b/gone.png for mr of case b, found none",
    ),
    ("case,modality,path\na,mr,a/mr.png\na,MR,b/mr.png\n", "expected one mr of case a, found also"),
    (
        "case,modality,path,split\na,mr,a/mr.png,val\na,ct,a/ct.png,test\n",
        "expected one patient and split of case a",
    ),
    ("case,split\n../../etc,train\n", "expected a name of letters"),
    ("case,modality,path\na,-a/.b,a/mr.png\n", "expected a name of letters"),
    (f"case,modality,path\na,{'x' * 101},a/mr.png\n", "expected a name of letters"),
    ("name,split\na,train\n", "expected a column 'case' or 'patient', found name, split"),
    ("case,split\n", "an empty cohort"),
    (
        "case,patient,split\na,p0,train\nb,P0,test\n",
        "expected one spelling of a patient, found 'P0' and 'p0'",
    ),
    ("case,patient,split\na,p 0,train\nb,p0,test\n", "line 2, patient: expected a name of letters"),
    ("case,mr\nA,a/mr.png\na,b/mr.png\n", "expected one spelling of a case, found 'A' and 'a'"),
    (
        "case,patient,split\na,p0,train\nb,,test\n",
        "line 3: expected a patient in every row or in none",
    ),
    (
        "case,patient,split\na,p0,train\n,p1,test\n",
        "line 3: expected a case in every row or in none",
    ),
    (f"case,mr\na,{'x' * 300}.png\n", "expected the file xxx"),
    ("case,Split,split \na,train,test\n", "expected each column once, found 'split' twice"),
    ("case,split\na,train,p1\n", "line 2: expected 2 cells, as in the first line, found 3"),
    (
        "case,age,split\na,61,train\n\nb,train\n",
        "line 4: expected 3 cells, as in the first line, found 2",
    ),
    (
        'case,patient,split\na,"p0,train\nb,"p0,test\nc,p2,val\n',
        "table.csv, line 2: expected quotes in pairs",
    ),
    ('case,patient,split\na,"p\n0",train\n', "table.csv, line 2: expected quotes in pairs"),
    ('case,patient,split\na,"p0"0,train\n', "table.csv, line 2: expected quotes in pairs"),
    ("case,mask\na,a/mr.png\n", "found none but masks"),
    ("case,subject_id,patient_id\na,p1,p2\n", "subject_id and patient_id, which differ"),
    ("case,pateint,split\na,p1,train\n", "expected a column 'patient', found 'pateint'"),
    ("case,modalty,path\na,mr,a/mr.png\n", "expected a column 'modality', found 'modalty'"),
    ("case,mr\na,a/mr.png\nb,C:\\data\\b\\mr.png\n", "line 3"),
    ("case,modality,path,mask\na,mr,a/mr.png,a/ct.png\n", "found scans in the column 'mask', too"),
    (
        "case,path\na,a/mr.png\n",
        "expected the columns modality and path together, found path alone",
    ),
]


@every_row("text, sentence", REFUSED)
def test_a_manifest_that_cannot_be_meant_is_refused_in_one_sentence(root, text, sentence):
    with refuses(re.escape(sentence)):
        listed(root, text)


@every_row(
    "way",
    ["{root}/../outside/t1.nii.gz", "../outside/t1.nii.gz", "link.nii.gz", "linked/t1.nii.gz"],
)
def test_paths_that_leave_the_cohort_are_read_only_where_that_is_allowed(tmp_path, way):
    root = touch(tmp_path, "outside/t1.nii.gz", "root/a/t1.nii.gz") / "root"
    (root / "link.nii.gz").symlink_to(tmp_path / "outside/t1.nii.gz")
    (root / "linked").symlink_to(tmp_path / "outside")
    (root / "cases.csv").write_text(f"case,t1\nc,{way.format(root=root)}\n")
    with refuses():
        find_cohort(root)
    assert [one.case for one in find_cohort(root, allow_outside=True).cases] == ["c"]


TABLE = "case,t1,t2\nMüller,a/mr.png,a/ct.png\np2,b/mr.png,\n"


@every_row(
    "text, encoding",
    [
        (TABLE.replace(",", ";"), "utf-8"),
        (TABLE.replace("/", "\\"), "utf-8"),
        (TABLE.replace("mr.png,\n", "mr.png,NA\n"), "utf-8"),
        (TABLE, "utf-16"),
        (TABLE, "cp1252"),
        (f"\ufeff{TABLE}".replace(",", "\t"), "utf-8"),
    ],
)
def test_tables_that_spreadsheets_export_are_read(root, text, encoding):
    path = root.parent / "m.csv"
    path.write_text(text, encoding)
    cases = find_cohort(root, manifest=path).cases
    assert [(one.case, [*one.files]) for one in cases] == [("Müller", ["t1", "t2"]), ("p2", ["t1"])]


def test_quotes_hold_separators_and_may_follow_a_blank(root):
    text = (
        'case, patient, note, split\na, "p1", "old, but good", train\n\n,,,\nb,p2,"say ""a""",val\n'
    )
    cases = listed(root, text).cases
    assert stated(cases) == {"a": ("p1", "train"), "b": ("p2", "val")}


@every_row("value", ["scans/{}/mr.png.bak", "scans/{}/mr.xyz", "gone/{}.nii.bak"])
def test_a_column_of_files_that_are_not_read_is_refused(root, value):
    touch(root, "{a,b}/mr.{png.bak,xyz}")
    rows = "".join(f"{case},scans/{case}/ct.png,{value.format(case)}\n" for case in "ab")
    with refuses():
        listed(root, "case,ct,t1\n" + rows)


def test_columns_that_name_no_scan_are_said_in_one_line(root):
    (root / "a/about.json").write_text("{}")
    text = (
        "case,age,,about,seen,said\na,61,0,scans/a/about.json,01/02/2020,no/rest\nb,,1,,02/02/2020,"
    )
    text += "#/" + 100 * "long " + "\n"
    found = listed(root, text)
    assert [one.case for one in found.cases] == ["a", "b"]
    assert found.unclaimed == [
        "columns of table.csv that name no scans ('about', 'age', 'column 3', 'said', 'seen')",
        "1 case that table.csv does not list (c)",
    ]
    text = "case,split,\na,train,\nb,val,\nc,val,\n"
    assert listed(root, text).unclaimed == []


def test_cases_without_any_file_are_said(root):
    found = listed(root, "case,mr\na,a/mr.png\nb,\nc,NA\n")
    assert [one.case for one in found.cases] == ["a"]
    assert found.unclaimed == ["2 cases of table.csv that have no scan in it (b, c)"]


@every_row("suffix", [".npy", ".hdr", ".dcm"])
def test_a_wide_table_takes_every_kind_that_is_read(root, suffix):
    touch(root, f"one{suffix}")
    (case,) = listed(root, f"case,t1\na,one{suffix}\n").cases
    assert case.files["t1"].samefile(root / f"one{suffix}")


@every_row(
    ("columns", "rows"),
    [
        ("case,PatientID,Partition", "a,p1,train b,p1,train c,p2,Dev"),
        ("case,Subject_ID,set", "a,p1,train b,p1,train c,p2,validation"),
        ("case_id,participant_id,Fold", "a,p1,training b,p1,train c,p2,val"),
        ("case,subject,patient_id,usage", "a,p1,p1,train b,p1,p1,train c,p2,p2,val"),
        ("case,subject,cv_fold", "a,p1,1 b,p1,1 c,p2,0"),
    ],
)
def test_columns_of_other_names_are_read_and_said(root, columns, rows):
    found = listed(root, "\n".join([columns, *rows.split()]))
    assert stated(found.cases) == {"a": ("p1", "train"), "b": ("p1", "train"), "c": ("p2", "val")}
    assert sum("the column" in one for one in found.guessed) >= 2


def test_columns_like_ours_are_notes_where_ours_are_there(root):
    text = "case,patient,subject,fold,split\na,p1,x,0,train\nb,p2,x,1,test\n"
    assert stated(listed(root, text).cases) == {"a": ("p1", "train"), "b": ("p2", "test")}


def test_a_list_of_patients_with_two_spellings_is_refused(root):
    (root.parent / "whose.txt").write_text("a p0\nb P0\nc\n")
    with refuses():
        find_cohort(root, patients=root.parent / "whose.txt")


@pytest.mark.parametrize("value", ["a/mr.png", "scans/b/../a/mr.png", "link.png"])
def test_a_file_that_is_listed_twice_is_refused(root, value):
    (root / "link.png").symlink_to(root / "a/mr.png")
    for text in ("case,mr\na,a/mr.png\nb,{}\n", "case,mr,ct\na,a/mr.png,{}\n"):
        with refuses():
            listed(root, text.format(value))


def test_one_mask_for_several_patients_is_a_guess_that_is_said(root):
    text = "case,patient,mr,mask\na,p,a/mr.png,c/mr.png\nb,{},b/mr.png,c/mr.png\n"
    pictures, mask = listed(root, text.format("q")).guessed
    assert pictures.startswith("2 cases have pictures")
    assert mask == "the mask mr.png fits all 2 patients for whom it is used"
    assert listed(root, text.format("p")).guessed == [pictures]
