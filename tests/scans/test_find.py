import os
import re

import nibabel as nib
import numpy as np
import pytest

from dicom_slices import item, save
from rows import every_row
from scans import touch
from voxlate.base.errors import BadInput
from voxlate.scans.cohorts.find import find_cohort
from voxlate.scans.cohorts.presets import load_preset
from voxlate.scans.formats.io import read_volume
from voxlate.scans.options.layout import presets


def names(cases):
    return {one.case: list(one.files) for one in cases}


STUDIES = "{patient}/{case}/{modality}.nii.gz"
LAYOUTS = {
    "a folder a case": (
        ["b/t1.nii.gz", "b/ct.mha", "a/t1.NII", "a/ct.png", "a/notes.txt", "a/.hidden.nii.gz"],
        {},
        {("a", "a"): ["ct", "t1"], ("b", "b"): ["ct", "t1"]},
    ),
    "the case's name before the modality": (
        ["p_1/p_1_t1.nii.gz", "p_1/p_1_t1_gd.nii.gz"],
        {},
        {("p_1", "p_1"): ["t1", "t1_gd"]},
    ),
    "a pattern of patient, case and modality": (
        ["p1/day1/T1.nii.gz", "p1/day2/T1.nii.gz", "p2/day3/T1.nii.gz"],
        {"pattern": STUDIES},
        {("day1", "p1"): ["t1"], ("day2", "p1"): ["t1"], ("day3", "p2"): ["t1"]},
    ),
    "studies called alike in two patients": (
        ["p1/baseline/t1.nii.gz", "p2/baseline/t1.nii.gz"],
        {"pattern": STUDIES},
        {("p1_baseline", "p1"): ["t1"], ("p2_baseline", "p2"): ["t1"]},
    ),
    "a pattern of wildcards that leaves the suffix open": (
        ["site/x/p1-scan-t1.nii.gz", "site/x/p1-scan-t2.png", "site/x/other.png"],
        {"pattern": "**/{patient}-*-{modality}"},
        {("p1", "p1"): ["t1", "t2"]},
    ),
    "named modalities in their order": (
        ["a/t1.png", "a/t2.png", "a/ct.png"],
        {"modalities": ["t2", "ct"]},
        {("a", "a"): ["t2", "ct"]},
    ),
    "names with spaces and signs, one spelling of a modality alone": (
        ["Patient 0+1/T1W.png"],
        {},
        {("Patient_0_1", "Patient_0_1"): ["t1w"]},
    ),
    "two spellings in one case": (
        ["a/T1W.nii.gz", "a/t1.nii.gz", "b/t1.nii.gz"],
        {},
        {("a", "a"): ["t1", "t1w"], ("b", "b"): ["t1"]},
    ),
    "synthrad": (
        [
            *(f"Task1/brain/1BA001/{name}.nii.gz" for name in ("mr", "ct", "mask")),
            "Task1/brain/overview/ct.nii.gz",
        ],
        {"preset": "synthrad"},
        {("1BA001", "1BA001"): ["ct", "mr"]},
    ),
    "ixi": (
        [
            "IXI-T1/IXI002-Guys-0828-T1.nii.gz",
            "IXI-T2/IXI002-Guys-0828-T2.nii.gz",
            "IXI-DTI/IXI002-Guys-0828-DTI-00.nii.gz",
        ],
        {"preset": "ixi"},
        {("IXI002-Guys-0828", "IXI002"): ["t1", "t2"]},
    ),
    "bids": (
        [f"sub-1/ses-{k}/anat/sub-1_ses-{k}_acq-hi_T1w.nii.gz" for k in (1, 2)],
        {"preset": "bids"},
        {("ses-1", "sub-1"): ["t1"], ("ses-2", "sub-1"): ["t1"]},
    ),
    "topcow": (
        ["imagesTr/topcow_ct_001_0000.nii.gz", "imagesTr/topcow_mr_001_0000.nii.gz"],
        {"preset": "topcow"},
        {("001", "001"): ["cta", "tof"]},
    ),
}


@every_row("layout", LAYOUTS)
def test_every_layout_has_its_cases_patients_and_modalities(tmp_path, layout):
    paths, options, expected = LAYOUTS[layout]
    cases = find_cohort(touch(tmp_path, *paths), **options).cases
    assert {(one.case, one.patient): list(one.files) for one in cases} == expected
    assert all((one.mask is not None) == (layout == "synthrad") for one in cases)
    assert all(path.is_relative_to(tmp_path) for one in cases for path in one.files.values())


def test_masks_and_label_maps_are_no_modalities(tmp_path):
    scans = ("t1", "seg", "lesion", "labels", "brainmask", "mask")
    touch(tmp_path, *(f"a/{name}.nii.gz" for name in scans))
    (case,) = find_cohort(tmp_path).cases
    assert (list(case.files), sorted(case.labels)) == (["t1"], ["labels", "lesion", "seg"])
    assert case.mask == tmp_path / "a/mask.nii.gz"


def test_a_modality_of_a_file_s_name_has_an_underscore_for_what_names_may_not_hold(tmp_path):
    touch(tmp_path, "p1_T1+C.nii.gz", "p1_T1.nii.gz")
    assert [{*case.files} for case in find_cohort(tmp_path).cases] == [{"t1_c", "t1"}]


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
    "preset, stem, names, patient",
    [
        ("brats2019", "HGG/{0}/{0}_", ("t1", "t1ce", "t2", "flair", "seg"), "BraTS19_2013_10_1"),
        ("brats2023", "{0}-001/{0}-001-", ("t1n", "t1c", "t2w", "t2f", "seg"), "BraTS-GLI-00008"),
    ],
)
def test_brats_spellings_of_2019_and_2023_mean_the_same(tmp_path, preset, stem, names, patient):
    touch(tmp_path, *(f"{stem.format(patient)}{name}.nii.gz" for name in names))
    for known in ("brats", preset):
        (case,) = find_cohort(tmp_path, preset=known).cases
        assert sorted(case.files) == ["flair", "t1", "t1c", "t2"]
        assert (list(case.labels), case.patient) == (["seg"], patient)


def test_the_decathlon_s_volumes_are_flair_t1_t1c_and_t2(tmp_path):
    names = (
        "imagesTr/BRATS_001",
        "imagesTs/BRATS_485",
        "labelsTr/BRATS_001",
        "imagesTr/._BRATS_001",
    )
    touch(tmp_path, *(f"{name}.nii.gz" for name in names))
    volumes = np.ones((8, 8, 4, 4), np.float32) * np.arange(1, 5, dtype=np.float32)
    nib.save(nib.Nifti1Image(volumes, np.eye(4)), tmp_path / f"{names[0]}.nii.gz")
    (case,) = find_cohort(tmp_path, preset="msd_brain_tumour").cases
    assert (case.case, list(case.labels)) == ("BRATS_001", ["seg"])
    means = {name: read_volume(path, name).data.mean() for name, path in case.files.items()}
    assert means == {"flair": 1, "t1": 2, "t1c": 3, "t2": 4}


def test_open_ms_scans_are_found_in_both_spellings_with_mask_and_lesions(tmp_path):
    scans = ("FLAIR", "T1W", "T1WKS", "T2W", "consensus_gt", "brainmask")
    for stem in ("patient01/", "patient10/patient10_"):
        touch(tmp_path, *(f"coregistered/{stem}{name}.nii.gz" for name in scans))
    touch(tmp_path, "raw/patient01/T1W.nii.gz")
    for case in find_cohort(tmp_path, preset="open_ms").cases:
        assert (sorted(case.files), list(case.labels)) == (["flair", "t1", "t1c", "t2"], ["lesion"])
        assert case.mask is not None


def test_ixi_leaves_out_and_names_who_lacks_a_contrast_that_is_asked_for(tmp_path):
    for subject in ("IXI002-Guys-0828", "IXI013-HH-1212", "IXI014-HH-1236"):
        touch(tmp_path, *(f"IXI-{name}/{subject}-{name}.nii.gz" for name in ("T1", "T2", "PD")))
    touch(tmp_path, "IXI-MRA/IXI002-Guys-0828-MRA.nii.gz", "IXI-MRA/IXI014-HH-1236-MRA.nii.gz")
    found = find_cohort(tmp_path, preset="ixi", modalities=["t2", "mra"])
    assert [one.patient for one in found.cases] == ["IXI002", "IXI014"]
    assert [list(one.files) for one in found.cases] == [["t2", "mra"]] * 2
    (said,) = found.unclaimed
    assert said.startswith("1 of 3 cases")
    assert "IXI013-HH-1212 has no mra" in said
    assert len(find_cohort(tmp_path, preset="ixi", modalities=["t1", "pd"]).cases) == 3


@every_row(
    "path, options, words",
    [
        ("readme.txt", {}, "an empty cohort"),
        ("a/seg.png", {}, "an empty cohort"),
        ("a/t1.png", {"pattern": "{case}-{modality}.png"}, "{modality}.png', found 1"),
        ("a/t1.png", {"pattern": "{case}/{contrast}.png"}, "found 'contrast'."),
        ("a/t1.png", {"pattern": "{case}/t1.png"}, "expected {modality} in it"),
        ("a/t1.png", {"modalities": ["ct"]}, "found 'ct'. They are t1."),
    ],
)
def test_a_folder_that_is_not_a_cohort_is_refused_in_one_sentence(tmp_path, path, options, words):
    with pytest.raises(BadInput, match=re.escape(words)):
        find_cohort(touch(tmp_path, path), **options)


def test_the_development_scans_are_found_without_an_option(shared):
    pairs = find_cohort(shared / "data/harvard_ct_mr").cases
    assert len(pairs) == 134
    assert sum(one.split == "train" for one in pairs) == 114
    assert {one.patient for one in pairs if one.split == "val"} == {"case41"}
    tumours = find_cohort(shared / "data/brats_like").cases
    assert sum("t1" not in one.files for one in tumours) == 3
    assert all((one.mask is not None) == one.case.startswith("BraTS2013") for one in tumours)


def test_a_scan_goes_to_the_first_pattern_it_matches_and_none_is_lost(tmp_path):
    """A pattern does not win for the whole cohort: one ce-gd would hide all other scans."""
    touch(
        tmp_path,
        *(f"sub-{k}/anat/sub-{k}_{one}.nii.gz" for k in (1, 2) for one in ("T1w", "FLAIR")),
        "sub-1/anat/sub-1_ce-gd_T1w.nii.gz",
        "sub-2/func/sub-2_task-rest_bold.nii.gz",
        "dataset_description.json",
    )
    found = find_cohort(tmp_path)
    assert names(found.cases) == {"sub-1": ["flair", "t1", "t1c"], "sub-2": ["flair", "t1"]}
    (said,) = found.unclaimed
    assert said.startswith("1 scans")
    assert "sub-2_task-rest_bold.nii.gz" in said


def test_scans_right_in_the_folder_are_refused_and_never_glued_together(tmp_path):
    touch(tmp_path / "heads", "anna_mine.nii.gz", "bert_mine.nii.gz")
    with pytest.raises(BadInput) as caught:
        find_cohort(tmp_path / "heads")
    pattern = str(caught.value).partition("--pattern '")[2].partition("'")[0]
    assert len(find_cohort(tmp_path / "heads", pattern=pattern).cases) == 2
    touch(tmp_path / "dicom", "scan_a/1.dcm", "scan_b/1.dcm")
    with pytest.raises(BadInput):
        find_cohort(tmp_path / "dicom")


def test_nnunets_folders_are_read_by_their_dataset_json(tmp_path):
    touch(
        tmp_path,
        *(f"imagesTr/BRATS_{k:03}_{c:04}.nii.gz" for k in (1, 2) for c in (0, 1)),
        "labelsTr/BRATS_001.nii.gz",
    )
    (tmp_path / "dataset.json").write_text('{"channel_names": {"0": "FLAIR", "1": "T1w"}}')
    cases = find_cohort(tmp_path).cases
    assert names(cases) == {"BRATS_001": ["flair", "t1"], "BRATS_002": ["flair", "t1"]}
    assert [list(one.labels) for one in cases] == [["seg"], []]


def test_one_modality_in_two_spellings_is_one_and_said(tmp_path):
    touch(tmp_path, "a/t1.nii.gz", "a/ct.nii.gz", "b/T1W.nii.gz", "b/ct.nii.gz")
    found = find_cohort(tmp_path)
    assert names(found.cases) == {"a": ["ct", "t1"], "b": ["ct", "t1"]}
    assert found.guessed == ["t1w in 1 case is t1"]


@every_row(
    ("name", "plain"),
    [
        ("t1 ", "t1"),
        ("Ax T1 MPRAGE (1)", "t1"),
        ("AXIAL T1 POST", "t1c"),
        ("T2-FLAIR - Copy", "flair"),
        ("Gd T1", "t1c"),
        ("Kopf T1 ohne KM", "t1"),
        ("Kopf T1 post OP", "kopf_t1_post_op"),
        ("Tumor T1", "tumor_t1"),
        ("Kopf T2 map", "kopf_t2_map"),
        ("weird", "weird"),
    ],
)
def test_the_words_of_scanners_in_a_scan_s_name_are_read_and_said(tmp_path, name, plain):
    root = tmp_path / plain / name
    touch(root, f"a/{name}.nii.gz", "a/ct.nii.gz", "b/ct.nii.gz")
    found = find_cohort(root)
    assert {*found.cases[0].files} == {"ct", plain}
    assert found.guessed


def test_a_case_may_lack_one_of_the_modalities_that_are_named_and_is_left_out_without_any(tmp_path):
    touch(tmp_path, "a/t1.nii.gz", "a/ct.nii.gz", "b/t1.nii.gz", "c/t2.nii.gz", "c/pd.nii.gz")
    found = find_cohort(tmp_path, modalities=["t1", "ct"])
    assert names(found.cases) == {"a": ["t1", "ct"], "b": ["t1"]}
    assert len(found.unclaimed) == 1
    with pytest.raises(BadInput):
        find_cohort(tmp_path, modalities=["t1", "flair"])


@every_row(
    ("lost", "said"),
    [
        ("c/scan.mat", "c: no image of a kind that is read ('scan.mat')"),
        ("c/seg.nii.gz", "1 cases of label maps or a mask without a scan ('c')"),
    ],
)
def test_what_is_lost_is_listed(tmp_path, lost, said):
    touch(tmp_path, "a/t1.nii.gz", "b/t1.nii.gz", "docs/read.txt", lost)
    found = find_cohort(tmp_path)
    assert names(found.cases) == {"a": ["t1"], "b": ["t1"]}
    assert found.unread == [said]


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


def test_a_linked_case_is_read_once_links_upwards_do_not_go_round_and_one_to_nothing_is_listed(
    tmp_path,
):
    touch(tmp_path, "a/t1.nii.gz", "z/t1.nii.gz")
    for link, to in (
        ("alpha", "z"),
        ("a/ct", "/lost/ct"),
        ("a/notes.txt", "/lost/notes.txt"),
        ("a/up", ".."),
        ("z/up", ".."),
    ):
        (tmp_path / link).symlink_to(to)
    found = find_cohort(tmp_path)
    assert names(found.cases) == {"a": ["t1"], "z": ["t1"]}
    assert "('alpha'" in found.unclaimed[0]
    (lost,) = found.unread
    assert lost.startswith(f"{tmp_path}/a/ct: ")


@every_row("name", ["a b", "x" * 101, "-a/.b", ".."])
def test_names_that_could_leave_their_folder_are_refused(tmp_path, name):
    touch(tmp_path, "ok/t1.nii.gz")
    (tmp_path / "m.csv").write_text(f"case,modality,path\nc,{name},ok/t1.nii.gz\n")
    with pytest.raises(BadInput):
        find_cohort(tmp_path, manifest=tmp_path / "m.csv")
