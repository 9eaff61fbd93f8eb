from pathlib import Path

import pytest

from voxlate.data.find import find_cases
from voxlate.errors import BadInput


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for case in "abc":
        for name in ("mr", "ct"):
            path = tmp_path / "scans" / case / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"")
    return tmp_path / "scans"


def manifest(root: Path, text: str, name: str = "table.csv") -> Path:
    path = root.parent / name
    path.write_text(text)
    return path


def test_notes_alone_add_patient_and_split_to_files_found_by_layout(root: Path) -> None:
    (root / "cases.csv").write_text("case,patient,slice,split\nb,p1,4,Training\na,p1,5,train\nc,p2,1,Validation\n")
    cases = find_cases(root)
    assert [(one.case, one.patient, one.split) for one in cases] == [
        ("a", "p1", "train"),
        ("b", "p1", "train"),
        ("c", "p2", "val"),
    ]
    assert cases[0].files["mr"] == root / "a" / "mr.png"


def test_cases_that_a_manifest_does_not_list_are_left_out(root: Path) -> None:
    assert [one.case for one in find_cases(root, manifest=manifest(root, "case\na\nc\n"))] == ["a", "c"]


def test_a_wide_table_holds_a_path_a_modality_and_may_leave_one_empty(root: Path) -> None:
    text = "Case\tPatient\tAge\tT1\tCT\nx\tp\t61\tscans/a/mr.png\tscans/a/ct.png\ny\tq\t50\tscans/b/mr.png\t\n"
    cases = find_cases(root, manifest=manifest(root, text, "wide.tsv"))
    assert [(one.case, one.patient, list(one.files)) for one in cases] == [("x", "p", ["ct", "t1"]), ("y", "q", ["t1"])]
    assert cases[0].files["t1"].samefile(root / "a" / "mr.png")


def test_a_long_table_holds_a_row_a_file(root: Path) -> None:
    text = "case,modality,path,split\nx,t1,a/mr.png,test\nx,seg,a/ct.png,test\n"
    (case,) = find_cases(root, manifest=manifest(root, text))
    assert (list(case.files), list(case.labels), case.split) == (["t1"], ["seg"], "test")


def test_a_table_by_patient_takes_all_cases_of_each(root: Path) -> None:
    for case in "ab":
        (root / case).rename(root / f"p1-{case}")
    text = "patient,split\np1,train\nc,val\n"
    preset = root.parent / "ours.toml"
    preset.write_text('title = "x"\nsource = "y"\npatterns = ["{case}/{modality}.png"]\npatient = "^(p1)-"\n')
    cases = find_cases(root, preset=preset, manifest=manifest(root, text))
    assert [(one.case, one.patient, one.split) for one in cases] == [
        ("c", "c", "val"),
        ("p1-a", "p1", "train"),
        ("p1-b", "p1", "train"),
    ]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("case,patient,split\na,p,train\nb,p,val\n", "expected each patient in one split, found p in train and val"),
        ("case,split\na,train\nb,exam\n", "expected a split train, val or test, found 'exam'"),
        ("case,split\na,train\nb,\n", "expected a split for every case or for none, found none for b"),
        ("case,split\na,train\na,train\n", "expected each case in one row, found a twice"),
        ("case,split\na,train\nz,train\n", "expected files of the case z, found only others (a, b, c, …)"),
        ("case,mr\na,a/mr.png\nb,b/gone.png\n", "expected the file b/gone.png for mr of case b, found none"),
        ("case,modality,path\na,mr,a/mr.png\na,MR,b/mr.png\n", "expected one mr of case a, found also"),
        (
            "case,modality,path,split\na,mr,a/mr.png,val\na,ct,a/ct.png,test\n",
            "expected one patient and split of case a",
        ),
        ("case,split\n../../etc,train\n", "expected a name of letters"),
        ("name,split\na,train\n", "expected a column 'case' or 'patient', found name, split"),
        ("case,split\n", "an empty cohort"),
    ],
)
def test_a_manifest_that_cannot_be_meant_gets_one_sentence(root: Path, text: str, sentence: str) -> None:
    with pytest.raises(BadInput) as error:
        find_cases(root, manifest=manifest(root, text))
    assert sentence in str(error.value)


def test_a_manifest_that_is_not_there_is_refused(root: Path) -> None:
    with pytest.raises(BadInput, match=r"gone\.csv: expected a CSV or TSV manifest"):
        find_cases(root, manifest=root / "gone.csv")


@pytest.mark.parametrize(
    "way", ["{root}/../outside/t1.nii.gz", "../outside/t1.nii.gz", "link.nii.gz", "linked/t1.nii.gz"]
)
def test_paths_that_leave_the_cohort_are_read_only_where_that_is_allowed(tmp_path: Path, way: str) -> None:
    root = tmp_path / "root"
    for folder in (root / "a", tmp_path / "outside"):
        folder.mkdir(parents=True)
        (folder / "t1.nii.gz").write_bytes(b"")
    (root / "link.nii.gz").symlink_to(tmp_path / "outside" / "t1.nii.gz")
    (root / "linked").symlink_to(tmp_path / "outside")
    (root / "cases.csv").write_text(f"case,t1\nc,{way.format(root=root)}\n")
    with pytest.raises(BadInput, match=r"which leads out of them\. Pass --allow-outside"):
        find_cases(root)
    assert [one.case for one in find_cases(root, allow_outside=True)] == ["c"]


@pytest.mark.parametrize("form", ["semicolon", "utf-16", "backslash", "na"])
def test_tables_as_spreadsheets_write_them(tmp_path: Path, form: str) -> None:
    (tmp_path / "a").mkdir()
    for name in ("t1", "t2"):
        (tmp_path / "a" / f"{name}.nii.gz").write_bytes(b"")
    text = "case,t1,t2\np1,a/t1.nii.gz,a/t2.nii.gz\np2,a/t1.nii.gz,\n"
    changed = {
        "semicolon": text.replace(",", ";"),
        "backslash": text.replace("a/", "a\\"),
        "na": text.replace("gz,\n", "gz,NA\n"),
    }
    (tmp_path / "m.csv").write_text(changed.get(form, text), encoding="utf-16" if form == "utf-16" else "utf-8")
    cases = find_cases(tmp_path, manifest=tmp_path / "m.csv")
    assert [(one.case, list(one.files)) for one in cases] == [("p1", ["t1", "t2"]), ("p2", ["t1"])]


def test_a_table_with_masks_alone_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.nii.gz").write_bytes(b"")
    (tmp_path / "m.csv").write_text("case,mask\np1,a.nii.gz\n")
    with pytest.raises(BadInput, match="found none but masks"):
        find_cases(tmp_path, manifest=tmp_path / "m.csv")
