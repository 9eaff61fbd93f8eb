"""Which scans of a folder or table are cases, patients and modalities, and which of them count: --exclude."""

import json
import os
import re

from dicom_slices import item, save
from preparing import prepare
from refusals import refuses
from rows import every_row
from scans import touch
from voxlate.scans.cases.prepared import open_cohort
from voxlate.scans.cohorts.find import find_cohort
from voxlate.scans.cohorts.presets import load_preset
from voxlate.scans.layout_options import presets


def names(cases):
    return {one.case: list(one.files) for one in cases}


def test_a_dicom_folder_is_a_modality(tmp_path):
    touch(tmp_path, "a/ct/0001.dcm", "a/ct/0002.dcm", "a/mr/IM0001", "a/notes/text")
    (tmp_path / "a/mr/IM0001").write_bytes(bytes(128) + b"DICM")
    report = item(SOPClassUID="1.2.3", SOPInstanceUID="1.2.4", Modality="SR")
    save(report, tmp_path / "a/report/0001.dcm")
    (case,) = find_cohort(tmp_path).cases
    assert case.files == {"ct": tmp_path / "a/ct", "mr": tmp_path / "a/mr"}


def test_every_preset_loads_and_says_where_its_layout_is_from():
    assert {"bids", "brats", "gold_atlas", "ixi", "synthrad", "topcow"} <= set(presets())
    assert all("http" in load_preset(name).source for name in presets())


@every_row(
    "path, options, words",
    [
        ("readme.txt", {}, "an empty cohort"),
        ("a/seg.png", {}, "an empty cohort"),
        ("a/t1.png", {"pattern": "{case}-{modality}.png"}, "{modality}.png', found 1"),
        ("a/t1.png", {"pattern": "{case}/{contrast}.png"}, "found 'contrast'."),
        ("a/t1.png", {"modalities": ["ct"]}, "found 'ct'. They are t1."),
        ("images/a{1,2}_{ct,vibe}.nii.gz", {}, "of another form ('images/a1_vibe."),
        ("HN-CHUM-00{1,2}{,__CT,__PT}.nii.gz", {}, "of another form"),
        ("train/pat0{1,2}/tp{1,2}/{t1,ct}.png test/pat01/tp3/{t1,ct}.png", {}, "pat01"),
        ("D{1,2}/imagesTr/x_1_000{0,1}.nii.gz", {}, "2 folders imagesTr"),
        ("{mr,ct}{1,2,3}.nii.gz", {}, "--pattern '**/{modality}{case}'"),
        ("MR/mr{1,2,3}_reg.nii.gz CT/ct{1,2,3}.nii.gz", {}, "--pattern '**/{modality}{case}'"),
        ("data/{mr,ct}-{1,2,3}.nii.gz", {}, "--pattern '**/{modality}-{case}'"),
        ("data/MR{12,13,15,17,18,19}.nii.gz", {}, "--pattern '**/{modality}{case}'"),
    ],
)
def test_a_folder_that_is_not_a_cohort_is_refused_in_one_sentence(tmp_path, path, options, words):
    with refuses(re.escape(words)):
        find_cohort(touch(tmp_path, *path.split()), **options)


def test_the_development_scans_are_found_without_an_option(shared):
    pairs = find_cohort(shared / "data/harvard_ct_mr").cases
    assert len(pairs) == 134
    assert sum(one.split == "train" for one in pairs) == 114
    assert {one.patient for one in pairs if one.split == "val"} == {"case41"}
    tumours = find_cohort(shared / "data/brats_like").cases
    assert sum("t1" not in one.files for one in tumours) == 3
    assert all((one.mask is not None) == one.case.startswith("BraTS2013") for one in tumours)


def test_scans_right_in_the_folder_are_cases_of_their_own_by_the_pattern_that_is_offered(tmp_path):
    touch(tmp_path, "heads/anna_mine.nii.gz", "heads/bert_mine.nii.gz")
    touch(tmp_path, "numbers/1.2.840.10.nii.gz", "numbers/1.2.840.11.nii.gz")
    for folder in ("heads", "numbers"):
        with refuses() as caught:
            find_cohort(tmp_path / folder)
        pattern = str(caught.value).partition("--pattern '")[2].partition("'")[0]
        cases = find_cohort(tmp_path / folder, pattern=pattern).cases
        assert [[*one.files] for one in cases] == [["scan"]] * 2


@every_row(
    ("lost", "said"),
    [
        ("c/scan.mat", "c: no image of a kind that is read ('scan.mat')"),
        ("previews/{a,b}.jpg", None),
        ("c/t1.bin", "c: no image of a kind that is read ('t1.bin')"),
        ("c/seg.nii.gz", "cases of label maps or a mask without a scan: 'c'"),
    ],
)
def test_what_is_lost_is_listed(tmp_path, lost, said):
    touch(tmp_path, "a/t1.nii.gz", "b/t1.nii.gz", "docs/read.txt", "code/train.py", lost)
    found = find_cohort(tmp_path)
    assert names(found.cases) == {"a": ["t1"], "b": ["t1"]}
    assert found.unread == [said] * bool(said)


def test_a_folder_that_may_not_be_read_is_listed(tmp_path, monkeypatch):
    touch(tmp_path, "a/t1.nii.gz", "b/t1.nii.gz")
    real = os.scandir

    def closed(path):
        if str(path).endswith("/b"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", closed)
    found = find_cohort(tmp_path)
    assert names(found.cases) == {"a": ["t1"]}
    assert "found 'Permission denied'" in found.unread[0]


def test_a_linked_case_is_read_once_and_links_upwards_do_not_go_round(tmp_path):
    touch(tmp_path, "a/t1.nii.gz", "z/t1.nii.gz")
    for link, to in (
        ("alpha", "z"),
        ("a/notes.txt", "/lost/notes.txt"),
        ("a/up", ".."),
        ("z/up", ".."),
    ):
        (tmp_path / link).symlink_to(to)
    found = find_cohort(tmp_path)
    assert names(found.cases) == {"a": ["t1"], "z": ["t1"]}
    assert not found.unread


@every_row(
    ("folder", "links", "expected", "doubts"),
    [
        ("all", "train/a test/b", {"a": "train", "b": "test"}, 0),
        ("all", "train/a test/a test/b", {"a": "test", "b": "test"}, 1),
        ("1/all", "2/train/a 2/test/b", {"a": None, "b": None}, 1),
        ("train", "test/c", {"a": "train", "c": "test"}, 1),
    ],
)
def test_links_to_cases_in_folders_of_splits_state_them_or_are_a_doubt(
    tmp_path, folder, links, expected, doubts
):
    touch(tmp_path, f"{folder}/{{a,b}}/{{t1,ct}}.nii.gz")
    for link in map(tmp_path.joinpath, links.split()):
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(tmp_path / folder / (link.name if link.name in "ab" else "b"))
    found = find_cohort(tmp_path)
    assert {case.case: case.split for case in found.cases} == expected
    assert len(found.unread) == doubts


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
    with refuses():
        opened.in_fold(4)


def test_two_files_of_one_modality_are_refused_and_of_runs_the_first_counts_and_a_case_is_left_out(
    tmp_path,
):
    touch(tmp_path, "dataset_description.json", "sub-02/anat/sub-02_{T1w,T2w}.nii.gz")
    touch(tmp_path, "sub-01/anat/sub-01_{run-1_T1w,run-2_T1w,T2w}.nii.gz")
    assert find_cohort(tmp_path).cases[0].files["t1"].name == "sub-01_run-1_T1w.nii.gz"
    found = find_cohort(tmp_path, exclude="sub-01")
    assert [one.case for one in found.cases] == ["sub-02"]
    with refuses("Did you mean 'sub-0[12]' or 'sub-0[12]'"):
        find_cohort(tmp_path, exclude="sub-03")
    with refuses("run-1.*run-2"):
        find_cohort(tmp_path, pattern="{case}/anat/{case}*_{modality}")


def test_the_images_that_a_provenance_lists_are_no_scans_and_others_beside_them_are(tmp_path):
    touch(tmp_path, "a/t1.nii.gz", "a/t2.nii.gz", "OUT/a/ct.nii.gz", "OUT/b/t1.nii.gz")
    touch(tmp_path, "a/desc-synthetic_mine.nii.gz")
    stated = {"voxlate": "0.8", "images": {"ct.nii.gz": "0123"}}
    (tmp_path / "OUT/a/provenance.json").write_text(json.dumps(stated))
    (tmp_path / "OUT/b/provenance.json").write_text(json.dumps({"images": {"t1.nii.gz": ""}}))
    found = find_cohort(tmp_path)
    assert names(found.cases) == {"a": ["t1", "t2"], "OUT": ["t1"]}
    (said,) = found.unclaimed
    assert re.findall("'(.*?)'", said) == ["OUT/a/ct.nii.gz", "a/desc-synthetic_mine.nii.gz"]
