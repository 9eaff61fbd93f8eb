import re
from pathlib import Path

import pytest

from refusals import refuses
from rows import every_row
from scans import touch
from voxlate.scans.cohorts.case_files import CaseFiles, CohortFiles
from voxlate.scans.cohorts.find import find_cohort


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return touch(tmp_path / "scans", "{a,b,c}/{mr,ct}.png")


def stated(cases: list[CaseFiles]) -> dict[str, tuple[str, str | None]]:
    """The patient and the split of each case."""
    return {one.case: (one.patient, one.split) for one in cases}


def listed(root: Path, text: str, encoding: str = "utf-8", **options: object) -> CohortFiles:
    """The cohort by a manifest with this text."""
    path = root.parent / "table.csv"
    path.write_text(text, encoding)
    return find_cohort(root, manifest=path, **options)


TABLE = "case,t1,t2\nMüller,a/mr.png,a/ct.png\np2,b/mr.png,\n"
TABLES = [  # what spreadsheets export, and the case, patient, split and scans that they state
    (TABLE, "utf-8", "Müller Müller None t1+t2, p2 p2 None t1"),
    (TABLE.replace(",", ";"), "utf-8", "Müller Müller None t1+t2, p2 p2 None t1"),
    (TABLE.replace("/", "\\"), "utf-8", "Müller Müller None t1+t2, p2 p2 None t1"),
    (TABLE.replace("mr.png,\n", "mr.png,NA\n"), "utf-8", "Müller Müller None t1+t2, p2 p2 None t1"),
    (TABLE, "utf-16", "Müller Müller None t1+t2, p2 p2 None t1"),
    (TABLE, "cp1252", "Müller Müller None t1+t2, p2 p2 None t1"),
    (f"\ufeff{TABLE}".replace(",", "\t"), "utf-8", "Müller Müller None t1+t2, p2 p2 None t1"),
    (
        "Case\tPatient\tAge\tT1\nx\tp\t61\tscans/a/mr.png\ny\tq\t50\tscans/b/mr.png\n",
        "utf-8",
        "x p None t1, y q None t1",
    ),
    (
        "case,modality,path,split\nx,t1,a/mr.png,test\nx,seg,a/ct.png,test\n",
        "utf-8",
        "x x test t1+seg",
    ),
    (
        'case, patient, note, split\na, "p1", "old, but good", train\n\n,,,\nb,p2,"say ""a""",val\n',
        "utf-8",
        "a p1 train ct+mr, b p2 val ct+mr",
    ),
    (
        "case,patient,subject,fold,split\na,p1,x,0,train\nb,p2,x,1,test\n",
        "utf-8",
        "a p1 train ct+mr, b p2 test ct+mr",
    ),
    ("case,mr\na,a/mr.png\nb,a/mr.png\n", "utf-8", "a a None mr, b b None mr"),
    ("case,modality,path,seg\na,mr,a/mr.png,a/ct.png\n", "utf-8", "a a None mr+seg"),
    ("case,modality,path\na,-m/.r,a/mr.png\n", "utf-8", "a a None -m_.r"),
]


@every_row("text, encoding, expected", TABLES)
def test_a_table_states_the_scans_and_patients_of_its_cases(root, text, encoding, expected):
    found = listed(root, text, encoding)
    lines = [
        f"{one.case} {one.patient} {one.split} {'+'.join([*one.files, *one.labels])}"
        for one in found.cases
    ]
    assert ", ".join(lines) == expected


def test_a_table_by_patient_takes_all_cases_of_each(root):
    touch(root, "p1-{x,y}/mr.png")
    cases = listed(root, "patient,split\np1,train\n", pattern="{patient}-{case}/{modality}").cases
    assert stated(cases) == {"x": ("p1", "train"), "y": ("p1", "train")}


REFUSED = """
case,patient,split a,p,train b,p,val -> p in train and val
case,split a,train b,exam -> 'exam'
case,split a,train b, -> line 3
case,split a,train a,val -> case a
case,mr a,a/mr.png b,b/gone.png -> b/gone.png
case,modality,path a,mr,a/mr.png a,MR,b/mr.png -> one mr of case a
case,modality,path,split a,mr,a/mr.png,val a,ct,a/ct.png,test -> one split of case a
name,split a,train -> found name, split
case,split -> an empty cohort
case,patient,split a,p0,train b,P0,test -> 'P0' and 'p0'
case,mr A,a/mr.png a,b/mr.png -> 'A' and 'a'
case,patient,split a,p0,train b,,test -> line 3
case,patient,split a,p0,train ,p1,test -> line 3
case,Split,split~ a,train,test -> 'split' twice
case,split a,train,p1 -> line 2
case,age,split a,61,train ~ b,train -> line 4
case,patient,split a,"p0,train b,"p0,test c,p2,val -> line 2
case,mask a,a/mr.png -> none but masks
case,path,kind a,a/mr.png,x a,a/ct.png,y -> column 'modality'
case,subject_id,patient_id a,p1,p2 -> subject_id and patient_id
case,mr a,a/mr.png b,C:\\data\\b\\mr.png -> line 3
case,patient,fold a,p,1 b,q,6 -> folds 0 to 4 or 1 to 5
case,patient,fold a,p,1 b,q,x -> line 3: expected the number of a fold
case,patient,fold a,p,1 b,p,2 -> one fold, found p in
"""


@every_row("line", REFUSED.strip().splitlines())
def test_a_manifest_that_cannot_be_meant_is_refused_by_the_name_of_its_fault(root, line):
    text, words = line.split(" -> ")
    with refuses(re.escape(words)):
        listed(root, "\n".join(row.replace("~", " ") for row in text.split(" ")))


@every_row("length", [101, 300])
def test_names_and_paths_that_are_too_long_are_refused(root, length):
    long = "x" * length
    with refuses():
        listed(root, f"case,modality,path\na,{long},{long}.png\n")


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


def test_columns_that_name_no_scan_and_cases_without_a_file_are_said(root):
    (root / "a/about.json").write_text("{}")
    text = (
        "case,age,,about,seen,said\na,61,0,scans/a/about.json,01/02/2020,no/rest\nb,,1,,02/02/2020,"
    )
    found = listed(root, f"{text}#/{100 * 'long '}\n")
    columns, lacking = found.unclaimed
    assert re.findall(r"'(.*?)'", columns) == ["about", "age", "column 3"]
    assert lacking.endswith(": 'c'")
    assert listed(root, "case,split,\na,train,\nb,val,\nc,val,\n").unclaimed == []
    (without,) = listed(root, "case,mr\na,a/mr.png\nb,\nc,NA\n").unclaimed
    assert without.endswith("('b', 'c')")


@every_row(
    ("columns", "rows"),
    [
        ("case,PatientID,Partition", "a,p1,train b,p1,train c,p2,Dev"),
        ("case,Subject_ID,set", "a,p1,train b,p1,train c,p2,validation"),
        ("case,subject,patient_id,usage", "a,p1,p1,train b,p1,p1,train c,p2,p2,val"),
        ("case,subject,cv_fold", "a,p1,1 b,p1,1 c,p2,0"),
    ],
)
def test_columns_of_other_names_are_read_and_said(root, columns, rows):
    found = listed(root, "\n".join([columns, *rows.split()]))
    assert stated(found.cases) == {"a": ("p1", "train"), "b": ("p1", "train"), "c": ("p2", "val")}
    assert sum("the column" in one for one in found.guessed) >= 2


@every_row(
    ("text", "expected"),
    [
        ("pid,mri,ct|p,a/x.png,a/y.png|q,b/x.png,", "p train ct+mri, q test mri"),
        ("file,pid,sequence,stage|a/x.png,p,CT,train|a/y.png,p,T1,train", "p None ct+t1"),
        ("case,t1_path,ct_path|a,a/x.png,a/y.png|b,b/x.png,b/y.png", "a train ct+t1, b test ct+t1"),
    ],
)
def test_the_only_table_of_scans_is_the_manifest(tmp_path, text, expected):
    touch(tmp_path, "{a,b}/{x,y}.png")
    (tmp_path / "m.csv").write_text(text.replace("|", "\n"))
    (tmp_path / "test.txt").write_text("b")
    cases = find_cohort(tmp_path).cases
    lines = [f"{one.case} {one.split} {'+'.join(one.files)}" for one in cases]
    assert ", ".join(lines) == expected


def test_a_table_of_scans_without_their_cases_is_asked_about(tmp_path):
    touch(tmp_path, "{a,b}/{x,y}.png")
    (tmp_path / "m.csv").write_text("mr,ct\na/x.png,a/y.png\n")
    with refuses("'case'"):
        find_cohort(tmp_path)
