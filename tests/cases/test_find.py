import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from rows import every_row
from voxlate.cohorts.case_files import CaseFiles
from voxlate.cohorts.find import find_cohort
from voxlate.cohorts.presets import load_preset
from voxlate.formats.io import read_volume
from voxlate.options.layout import presets
from voxlate.system.errors import BadInput


def touch(root: Path, *paths: str) -> Path:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b"")
    return root


def names(cases: list[CaseFiles]) -> dict[str, list[str]]:
    return {one.case: list(one.files) for one in cases}


def test_a_folder_a_case_needs_no_option(tmp_path: Path) -> None:
    touch(
        tmp_path,
        "b/t1.nii.gz",
        "b/ct.mha",
        "a/t1.NII",
        "a/ct.png",
        "a/notes.txt",
        "a/.hidden.nii.gz",
        "a/ct_std.png",
    )
    cases = find_cohort(tmp_path).cases
    assert names(cases) == {"a": ["ct", "t1"], "b": ["ct", "t1"]}
    assert cases[1].files["ct"] == tmp_path / "b" / "ct.mha"
    assert [(one.patient, one.split, one.mask) for one in cases] == [
        ("a", None, None),
        ("b", None, None),
    ]


def test_masks_and_label_maps_are_no_modalities(tmp_path: Path) -> None:
    touch(
        tmp_path,
        *(f"a/{name}.nii.gz" for name in ("t1", "seg", "lesion", "labels", "brainmask", "mask")),
    )
    (case,) = find_cohort(tmp_path).cases
    assert list(case.files) == ["t1"]
    assert sorted(case.labels) == ["labels", "lesion", "seg"]
    assert case.mask == tmp_path / "a" / "mask.nii.gz"


def test_a_case_name_before_the_modality_is_dropped(tmp_path: Path) -> None:
    touch(tmp_path, "p_1/p_1_t1.nii.gz", "p_1/p_1_t1_gd.nii.gz")
    assert names(find_cohort(tmp_path).cases) == {"p_1": ["t1", "t1_gd"]}


def test_a_folder_that_is_itself_a_case_is_one(tmp_path: Path) -> None:
    touch(tmp_path / "anna", "t1.nii.gz", "ct.nii.gz")
    assert names(find_cohort(tmp_path / "anna").cases) == {"anna": ["ct", "t1"]}


def test_a_dicom_folder_is_a_modality(tmp_path: Path) -> None:
    touch(tmp_path, "a/ct/0001.dcm", "a/ct/0002.dcm")
    (tmp_path / "a" / "mr").mkdir()
    (tmp_path / "a" / "mr" / "IM0001").write_bytes(bytes(128) + b"DICM")
    (tmp_path / "a" / "notes").mkdir()
    (tmp_path / "a" / "notes" / "text").write_text("no image")
    (case,) = find_cohort(tmp_path).cases
    assert case.files == {"ct": tmp_path / "a" / "ct", "mr": tmp_path / "a" / "mr"}


def test_a_pattern_names_patient_case_and_modality(tmp_path: Path) -> None:
    touch(tmp_path, "p1/day1/T1.nii.gz", "p1/day2/T1.nii.gz", "p2/day3/T1.nii.gz")
    cases = find_cohort(tmp_path, pattern="{patient}/{case}/{modality}.nii.gz").cases
    assert [(one.case, one.patient) for one in cases] == [
        ("day1", "p1"),
        ("day2", "p1"),
        ("day3", "p2"),
    ]
    assert list(cases[0].files) == ["t1"]


def test_studies_called_alike_in_two_patients_stay_apart(tmp_path: Path) -> None:
    touch(tmp_path, "p1/baseline/t1.nii.gz", "p2/baseline/t1.nii.gz")
    cases = find_cohort(tmp_path, pattern="{patient}/{case}/{modality}.nii.gz").cases
    assert [(one.case, one.patient) for one in cases] == [
        ("p1_baseline", "p1"),
        ("p2_baseline", "p2"),
    ]


def test_a_pattern_may_hold_wildcards_and_leave_the_suffix_open(tmp_path: Path) -> None:
    touch(tmp_path, "site/x/p1-scan-t1.nii.gz", "site/x/p1-scan-t2.png", "site/x/other.png")
    assert names(find_cohort(tmp_path, pattern="**/{patient}-*-{modality}").cases) == {
        "p1": ["t1", "t2"]
    }


def test_only_named_modalities_are_kept_in_their_order(tmp_path: Path) -> None:
    touch(tmp_path, "a/t1.png", "a/t2.png", "a/ct.png")
    assert names(find_cohort(tmp_path, modalities=["t2", "ct"]).cases) == {"a": ["t2", "ct"]}


def test_every_preset_loads_and_says_where_its_layout_is_from() -> None:
    assert {"bids", "brats", "gold_atlas", "ixi", "synthrad", "topcow"} <= set(presets())
    assert all("http" in load_preset(name).source for name in presets())


def test_brats_spellings_of_2019_and_2023_mean_the_same(tmp_path: Path) -> None:
    old, new = "HGG/BraTS19_2013_10_1/BraTS19_2013_10_1", "BraTS-GLI-00008-001/BraTS-GLI-00008-001"
    touch(
        tmp_path / "old", *(f"{old}_{name}.nii.gz" for name in ("t1", "t1ce", "t2", "flair", "seg"))
    )
    touch(
        tmp_path / "new", *(f"{new}-{name}.nii.gz" for name in ("t1n", "t1c", "t2w", "t2f", "seg"))
    )
    for year, preset in (
        ("old", "brats"),
        ("new", "brats"),
        ("old", "brats2019"),
        ("new", "brats2023"),
    ):
        (case,) = find_cohort(tmp_path / year, preset=preset).cases
        assert sorted(case.files) == ["flair", "t1", "t1c", "t2"]
        assert list(case.labels) == ["seg"]
        assert case.patient == {"old": "BraTS19_2013_10_1", "new": "BraTS-GLI-00008"}[year]


def test_the_decathlon_s_volumes_are_flair_t1_t1c_and_t2(tmp_path: Path) -> None:
    for name in ("imagesTr/BRATS_001", "imagesTs/BRATS_485", "labelsTr/BRATS_001"):
        path = tmp_path / f"{name}.nii.gz"
        path.parent.mkdir(exist_ok=True)
        volumes = np.ones((8, 8, 4, 4)) * [1, 2, 3, 4] if "images" in name else np.ones((8, 8, 4))
        nib.save(nib.Nifti1Image(volumes.astype(np.float32), np.eye(4)), path)
    touch(tmp_path, "imagesTr/._BRATS_001.nii.gz")
    (case,) = find_cohort(tmp_path, preset="msd_brain_tumour").cases
    assert (case.case, list(case.labels)) == ("BRATS_001", ["seg"])
    means = {name: read_volume(path, name).data.mean() for name, path in case.files.items()}
    assert means == {"flair": 1, "t1": 2, "t1c": 3, "t2": 4}


def test_open_ms_scans_are_found_in_both_spellings_with_mask_and_lesions(tmp_path: Path) -> None:
    scans = ("FLAIR", "T1W", "T1WKS", "T2W", "consensus_gt", "brainmask")
    touch(tmp_path, *(f"coregistered/patient01/{name}.nii.gz" for name in scans))
    touch(
        tmp_path,
        *(f"coregistered/patient10/patient10_{name}.nii.gz" for name in scans),
        "raw/patient01/T1W.nii.gz",
    )
    for case in find_cohort(tmp_path, preset="open_ms").cases:
        assert (sorted(case.files), list(case.labels)) == (["flair", "t1", "t1c", "t2"], ["lesion"])
        assert case.mask is not None


PUBLIC = {
    "synthrad": (
        [
            *(f"Task1/brain/1BA001/{name}.nii.gz" for name in ("mr", "ct", "mask")),
            *(f"Task1/brain/overview/{name}" for name in ("1BA001_train.png", "ct.nii.gz")),
        ],
        {("1BA001", "1BA001"): ["ct", "mr"]},
    ),
    "ixi": (
        [
            "IXI-T1/IXI002-Guys-0828-T1.nii.gz",
            "IXI-T2/IXI002-Guys-0828-T2.nii.gz",
            "IXI-DTI/IXI002-Guys-0828-DTI-00.nii.gz",
        ],
        {("IXI002-Guys-0828", "IXI002"): ["t1", "t2"]},
    ),
    "bids": (
        [f"sub-1/ses-{k}/anat/sub-1_ses-{k}_acq-hi_T1w.nii.gz" for k in (1, 2)],
        {("ses-1", "sub-1"): ["t1"], ("ses-2", "sub-1"): ["t1"]},
    ),
    "topcow": (
        ["imagesTr/topcow_ct_001_0000.nii.gz", "imagesTr/topcow_mr_001_0000.nii.gz"],
        {("001", "001"): ["cta", "tof"]},
    ),
}


@every_row("preset", PUBLIC)
def test_public_data_sets_have_their_cases_patients_and_modalities(
    tmp_path: Path, preset: str
) -> None:
    paths, expected = PUBLIC[preset]
    touch(tmp_path, *paths)
    cases = find_cohort(tmp_path, preset=preset).cases
    assert {(case.case, case.patient): sorted(case.files) for case in cases} == expected
    assert all((case.mask is not None) == (preset == "synthrad") for case in cases)


def test_ixi_leaves_out_and_names_who_lacks_a_contrast_that_is_asked_for(tmp_path: Path) -> None:
    for subject in ("IXI002-Guys-0828", "IXI013-HH-1212", "IXI014-HH-1236"):
        touch(tmp_path, *(f"IXI-{name}/{subject}-{name}.nii.gz" for name in ("T1", "T2", "PD")))
    touch(tmp_path, "IXI-MRA/IXI002-Guys-0828-MRA.nii.gz", "IXI-MRA/IXI014-HH-1236-MRA.nii.gz")
    found = find_cohort(tmp_path, preset="ixi", modalities=["t2", "mra"])
    assert [(one.patient, list(one.files)) for one in found.cases] == [
        ("IXI002", ["t2", "mra"]),
        ("IXI014", ["t2", "mra"]),
    ]
    assert found.unclaimed == [
        "1 of 3 cases that lack a modality which is asked for (IXI013-HH-1212 has no mra)"
    ]
    assert len(find_cohort(tmp_path, preset="ixi", modalities=["t1", "pd"]).cases) == 3


def test_a_users_own_preset_is_read_from_its_path(tmp_path: Path) -> None:
    preset = tmp_path / "ours.toml"
    preset.write_text(
        'title = "x"\nsource = "y"\npatterns = ["{modality}/{case}.png"]\n[aliases]\nA = "t1"\n'
    )
    touch(tmp_path / "c", "A/1.png", "B/1.png")
    assert names(find_cohort(tmp_path / "c", preset=preset).cases) == {"1": ["b", "t1"]}


@every_row(
    ("paths", "options", "sentence"),
    [
        (["readme.txt"], {}, "an empty cohort"),
        (["a/seg.png"], {}, "an empty cohort"),
        (["deep/a/t1.png"], {}, "found 1 of another form ('deep/a/t1.png'). Pass --pattern"),
        (
            ["a/t1.png"],
            {"pattern": "{case}-{modality}.png"},
            "expected paths like '{case}-{modality}.png', found 1",
        ),
        (["a/t1.png"], {"pattern": "{case}/{contrast}.png"}, "found {contrast}. Use these names."),
        (["a/t1.png"], {"pattern": "{case}/t1.png"}, "expected {modality} in it"),
        (["a/t1.png", "a/t1.nii.gz"], {}, "expected one t1 of case a, found also"),
        (
            ["a/t1.png", "b/t2.png"],
            {"modalities": ["t1"]},
            "case b: expected the modality t1, found t2 (1 of 2 cases",
        ),
        (
            ["a/t1.png"],
            {"modalities": ["ct"]},
            "expected cases with the modality ct, found none, only t1",
        ),
        (
            ["a/t1.png"],
            {"preset": "brast"},
            "expected one of bids, brats, brats2019, brats2023, gold_atlas",
        ),
    ],
)
def test_a_folder_that_is_not_a_cohort_is_refused_in_one_sentence(
    tmp_path: Path, paths: list[str], options: dict[str, object], sentence: str
) -> None:
    touch(tmp_path, *paths)
    with pytest.raises(BadInput) as error:
        find_cohort(tmp_path, **options)  # type: ignore[arg-type]
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_in_place_of_a_folder_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, "t1.png")
    with pytest.raises(BadInput, match="found a file"):
        find_cohort(tmp_path / "t1.png")
    with pytest.raises(BadInput, match="found nothing"):
        find_cohort(tmp_path / "absent")


def test_the_development_scans_are_found_without_an_option(shared: Path) -> None:
    pairs = find_cohort(shared / "data" / "harvard_ct_mr").cases
    assert len(pairs) == 134
    assert sum(one.split == "train" for one in pairs) == 114
    assert {one.patient for one in pairs if one.split == "val"} == {"case41"}
    tumours = find_cohort(shared / "data" / "brats_like").cases
    assert sum("t1" not in one.files for one in tumours) == 3
    assert all((one.mask is not None) == one.case.startswith("BraTS2013") for one in tumours)


def test_a_scan_goes_to_the_first_pattern_it_matches_and_none_is_lost(tmp_path: Path) -> None:
    """Once, the first pattern that matched any file won for the whole cohort: one ce-gd hid all other scans."""
    contrasts = ("T1w", "T2w", "FLAIR")
    touch(tmp_path, *(f"sub-{k}/anat/sub-{k}_{one}.nii.gz" for k in (1, 2) for one in contrasts))
    touch(
        tmp_path,
        "sub-1/anat/sub-1_ce-gd_T1w.nii.gz",
        "sub-2/func/sub-2_task-rest_bold.nii.gz",
        "dataset_description.json",
    )
    found = find_cohort(tmp_path)
    assert names(found.cases) == {
        "sub-1": ["flair", "t1", "t1c", "t2"],
        "sub-2": ["flair", "t1", "t2"],
    }
    assert found.unclaimed == [
        "1 scans that no pattern claims ('sub-2/func/sub-2_task-rest_bold.nii.gz')"
    ]


def test_flat_folders_are_many_cases_or_one_or_refused_but_never_glued_together(
    tmp_path: Path,
) -> None:
    touch(tmp_path / "flat", *(f"p{k}_{one}.nii.gz" for k in (1, 2, 3) for one in ("t1", "flair")))
    assert names(find_cohort(tmp_path / "flat").cases) == {
        f"p{k}": ["flair", "t1"] for k in (1, 2, 3)
    }
    touch(tmp_path / "heads", "anna.nii.gz", "bert.nii.gz")
    with pytest.raises(
        BadInput, match=r"found 2 scans of another form .* Pass --pattern '\{case\}_\{modality\}'"
    ):
        find_cohort(tmp_path / "heads")
    touch(tmp_path / "dicom", "scan_a/1.dcm", "scan_b/1.dcm")
    with pytest.raises(
        BadInput, match=r"found DICOM files right in 'scan_a', 'scan_b'. Pass --preset FILE.toml"
    ):
        find_cohort(tmp_path / "dicom")


def test_nnunets_folders_are_read_by_their_dataset_json(tmp_path: Path) -> None:
    touch(
        tmp_path,
        *(f"imagesTr/BRATS_{k:03}_{c:04}.nii.gz" for k in (1, 2) for c in (0, 1)),
        "labelsTr/BRATS_001.nii.gz",
    )
    (tmp_path / "dataset.json").write_text('{"channel_names": {"0": "FLAIR", "1": "T1w"}}')
    one, two = find_cohort(tmp_path).cases
    assert (one.case, list(one.files), list(one.labels)) == ("BRATS_001", ["flair", "t1"], ["seg"])
    assert (two.case, list(two.files), two.labels) == ("BRATS_002", ["flair", "t1"], {})


def test_train_a_and_train_b_are_two_modalities(tmp_path: Path) -> None:
    touch(tmp_path, "trainA/1.png", "trainA/2.png", "trainB/1.png", "trainB/2.png")
    assert names(find_cohort(tmp_path).cases) == {"1": ["a", "b"], "2": ["a", "b"]}


@every_row("suffix", ["", "_{}", "-{}"])
def test_folders_called_as_modalities_are_modalities_of_many_cases(
    tmp_path: Path, suffix: str
) -> None:
    for case in ("p1", "p2", "p3"):
        touch(
            tmp_path, *(f"{name}/{case}{suffix.format(name.lower())}.png" for name in ("MR", "CT"))
        )
    assert names(find_cohort(tmp_path).cases) == {case: ["ct", "mr"] for case in ("p1", "p2", "p3")}


def test_folders_of_cases_that_are_called_as_modalities_stay_cases(tmp_path: Path) -> None:
    touch(tmp_path, "ct1/t1.nii.gz", "ct1/ct.nii.gz", "ct2/t1.nii.gz", "ct2/ct.nii.gz")
    assert names(find_cohort(tmp_path).cases) == {"ct1": ["ct", "t1"], "ct2": ["ct", "t1"]}


def test_a_linked_case_is_read_once_under_its_own_name_and_said(tmp_path: Path) -> None:
    touch(tmp_path, "zeta/t1.nii.gz", "other/t1.nii.gz")
    (tmp_path / "alpha").symlink_to(tmp_path / "zeta")
    found = find_cohort(tmp_path)
    assert names(found.cases) == {"other": ["t1"], "zeta": ["t1"]}
    assert found.unclaimed == ["1 link to folders that are read under other names ('alpha')"]


def test_one_modality_in_two_spellings_is_one_and_said(tmp_path: Path) -> None:
    touch(tmp_path, "a/t1.nii.gz", "a/ct.nii.gz", "b/T1W.nii.gz", "b/ct.nii.gz")
    found = find_cohort(tmp_path)
    assert names(found.cases) == {"a": ["ct", "t1"], "b": ["ct", "t1"]}
    assert found.guessed == ["t1w in 1 case is t1, as others call it"]


def test_one_spelling_alone_and_two_in_one_case_stay_as_they_are(tmp_path: Path) -> None:
    touch(tmp_path / "x", "a/T1W.nii.gz", "b/T1W.nii.gz")
    touch(tmp_path / "y", "a/T1W.nii.gz", "a/t1.nii.gz", "b/t1.nii.gz")
    assert names(find_cohort(tmp_path / "x").cases) == {"a": ["t1w"], "b": ["t1w"]}
    assert names(find_cohort(tmp_path / "y").cases) == {"a": ["t1", "t1w"], "b": ["t1"]}


def test_studies_in_the_folder_of_a_patient_are_cases(tmp_path: Path) -> None:
    for patient in ("patient01", "patient02"):
        touch(
            tmp_path,
            *(f"{patient}/study{k}_{name}.nii.gz" for k in (1, 2) for name in ("T1W", "CT")),
        )
    found = find_cohort(tmp_path)
    assert names(found.cases) == {
        f"patient0{p}_study{k}": ["ct", "t1w"] for p in (1, 2) for k in (1, 2)
    }
    assert {one.patient for one in found.cases} == {"patient01", "patient02"}
    assert "--pattern '{patient}/{case}_{modality}'" in found.guessed[0]


def test_a_case_without_a_modality_is_left_out_by_the_option_that_is_named(tmp_path: Path) -> None:
    touch(tmp_path, "a/t1.nii.gz", "a/ct.nii.gz", "b/t1.nii.gz")
    with pytest.raises(BadInput, match=r"\(--exclude b\)"):
        find_cohort(tmp_path, modalities=["t1", "ct"])
    assert names(find_cohort(tmp_path, modalities=["t1", "ct"], exclude="b").cases) == {
        "a": ["t1", "ct"]
    }


def test_what_is_lost_is_listed(tmp_path: Path) -> None:
    touch(tmp_path, "a/t1.nii.gz", "b/t1.nii.gz", "c/scan.mat", "docs/read.txt")
    assert find_cohort(tmp_path).unclaimed == ["c: no image of a kind that is read ('scan.mat')"]


def test_a_folder_that_may_not_be_read_is_listed(tmp_path: Path, monkeypatch) -> None:
    touch(tmp_path, "a/t1.nii.gz", "b/t1.nii.gz")
    real = os.scandir

    def closed(path):
        if str(path).endswith("/b"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", closed)
    found = find_cohort(tmp_path)
    assert names(found.cases) == {"a": ["t1"]}
    assert "b: expected a folder that may be read, found 'Permission denied'" in found.unread[0]


def test_a_folder_that_is_a_link_to_nothing_is_listed(tmp_path: Path) -> None:
    touch(tmp_path, "a/t1.nii.gz", "b/t1.nii.gz")
    (tmp_path / "b" / "ct").symlink_to("/lost/ct")
    (tmp_path / "b" / "notes.txt").symlink_to("/lost/notes.txt")
    found = find_cohort(tmp_path)
    assert names(found.cases) == {"a": ["t1"], "b": ["t1"]}
    assert found.unread == [
        f"{tmp_path}/b/ct: expected a folder or file, found a link that leads nowhere"
    ]


def test_links_to_a_parent_do_not_go_round_without_end(tmp_path: Path) -> None:
    touch(tmp_path, *(f"c{k}/t1.nii.gz" for k in range(4)))
    for k in range(4):
        (tmp_path / f"c{k}" / "up").symlink_to(tmp_path)
        (tmp_path / f"c{k}" / "up2").symlink_to(tmp_path)
    assert len(find_cohort(tmp_path).cases) == 4


@every_row("name", ["a b", "x" * 101, "-a/.b", ".."])
def test_names_that_could_leave_their_folder_are_refused(tmp_path: Path, name: str) -> None:
    touch(tmp_path, "ok/t1.nii.gz")
    (tmp_path / "m.csv").write_text(f"case,modality,path\nc,{name},ok/t1.nii.gz\n")
    with pytest.raises(BadInput, match="expected a name of letters"):
        find_cohort(tmp_path, manifest=tmp_path / "m.csv")


def test_cases_of_label_maps_without_a_scan_are_listed(tmp_path: Path) -> None:
    touch(tmp_path, "a/t1.nii.gz", "a/seg.nii.gz", "b/seg.nii.gz")
    found = find_cohort(tmp_path)
    assert [case.case for case in found.cases] == ["a"]
    assert found.unclaimed == ["1 cases of label maps or a mask without a scan ('b')"]
