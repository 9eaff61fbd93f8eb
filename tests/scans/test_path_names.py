"""What folders and names state where no option does: each cohort is a table of paths with what they are read as."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_layouts import lay_out, table

import voxlate
from refusals import refuses
from rows import every_row
from voxlate.scans.cohorts.find import find_cohort
from voxlate.scans.formats.io import read_volume, write_volume
from voxlate.scans.formats.nifti import description_of
from voxlate.scans.images.grid import Volume

# Paths -> the table of cases that they make, as in test_layouts.py.
COHORTS = """
b/{t1.nii.gz,ct.mha} a/{t1.NII,ct.png,notes.txt,.hidden.nii.gz} -> =/a ct+t1, =/b ct+t1
p_1/p_1_{t1,t1_gd}.nii.gz -> =/p_1 t1+t1_gd
Patient~0+1/T1W.png -> =/Patient_0_1 t1w
trainA/{1,2,3}.png trainB/{1,2,3}.png testA/{1,2}.png testB/{1,2}.png -> /test_1 test a+b, /test_2 test a+b, /train_1 train a+b, /train_2 train a+b, =/train_3 train a+b
A/train/{1,2}.png B/train/{1,2}.png A/test/3.png B/test/3.png -> =/1 train a+b, =/2 train a+b, =/3 test a+b
train/{t1,ct}_{1,2}.png test/{t1,ct}_3.png -> =/1 train ct+t1, =/2 train ct+t1, =/3 test ct+t1
site/training/p{1,2}_{t1,ct}.png site/validation/p3_{t1,ct}.png site/testing/p4_{t1,ct}.png -> =/p1 train ct+t1, =/p2 train ct+t1, =/p3 val ct+t1, =/p4 test ct+t1
MR/train/{x,y}.png CT/train/{x,y}.png MR/test/z.png CT/test/z.png -> =/x train ct+mr, =/y train ct+mr, =/z test ct+mr
train/{t1,ct}/00{1,2}.png test/{t1,ct}/001.png -> /test_001 test ct+t1, /train_001 train ct+t1, =/train_002 train ct+t1
train/p{1,2}/{t1,ct}.nii.gz val/p1/{t1,ct}.nii.gz -> /train_p1 train ct+t1, =/train_p2 train ct+t1, /val_p1 val ct+t1
BraTS2020_TrainingData/c{1,2}/{t1,ct}.nii.gz BraTS2020_ValidationData/c3/{t1,ct}.nii.gz -> =/c1 train ct+t1, =/c2 train ct+t1, =/c3 val ct+t1
pat01/2019010{1,2}/{t1,ct}.nii.gz pat02/20190303/{t1,ct}.nii.gz -> pat01/pat01_20190101 ct+t1, pat01/pat01_20190102 ct+t1, pat02/pat02_20190303 ct+t1
pat01/preRT/{t1,ct}.nii.gz pat01/postRT/{t1,ct}.nii.gz pat02/{t1,ct}.nii.gz -> pat01/pat01_postRT ct+t1, pat01/pat01_preRT ct+t1, =/pat02 ct+t1
pat01/anat/{t1,ct}.nii.gz pat02/anat/{t1,ct}.nii.gz -> =/pat01 ct+t1, =/pat02 ct+t1
pat01/{pat01_tp1/pat01_tp1,pat01_tp2/pat01_tp2}_{t1,ct}.nii.gz pat02/pat02_tp1/pat02_tp1_{t1,ct}.nii.gz -> pat01/pat01_tp1 ct+t1, pat01/pat01_tp2 ct+t1, pat02/pat02_tp1 ct+t1
P01/CT/scan.nii.gz P01/T1/scan.nii.gz P02/CT/scan.nii.gz P02/T1/scan.nii.gz -> =/P01 ct+t1, =/P02 ct+t1
P01/CT/00{1,2}.png P01/MR/00{1,2}.png P02/CT/001.png P02/MR/001.png -> P01/P01_001 ct+mr, P01/P01_002 ct+mr, P02/P02_001 ct+mr
{CT,MR}_00{1,2}.png -> =/001 ct+mr, =/002 ct+mr
Task1/brain/1BA00{1,2}/{mr,ct}.nii.gz Task1/pelvis/1PA001/{mr,ct}.nii.gz Task1/brain/overview/1BA001_train.png -> =/1BA001 ct+mr, =/1BA002 ct+mr, =/1PA001 ct+mr
x/{BraTS-GLI-00001-000/BraTS-GLI-00001-000,BraTS-GLI-00001-001/BraTS-GLI-00001-001,BraTS-GLI-00002-000/BraTS-GLI-00002-000}-{t1n,t2f}.nii.gz -> BraTS-GLI-00001/BraTS-GLI-00001-000 flair+t1, BraTS-GLI-00001/BraTS-GLI-00001-001 flair+t1, BraTS-GLI-00002/BraTS-GLI-00002-000 flair+t1
p{1,2,3}/{t1,ct}.nii.gz test_p4/{t1,ct}.nii.gz p5_val/{t1,ct}.nii.gz -> =/p1 train ct+t1, =/p2 train ct+t1, =/p3 train ct+t1, =/p5_val val ct+t1, =/test_p4 test ct+t1
Train/p{0,1}/{t1,ct}.nii.gz tune/p2/{t1,ct}.nii.gz heldout/p3/{t1,ct}.nii.gz -> =/p0 train ct+t1, =/p1 train ct+t1, =/p2 val ct+t1, =/p3 test ct+t1
01_train/p{0,1}/{t1,ct}.nii.gz 02_test/p2/{t1,ct}.nii.gz -> =/p0 train ct+t1, =/p1 train ct+t1, =/p2 test ct+t1
train_v2/p{0,1}/{t1,ct}.nii.gz test_v2/p2/{t1,ct}.nii.gz -> =/p0 train ct+t1, =/p1 train ct+t1, =/p2 test ct+t1
test_p{1,2}/{t1,ct}.nii.gz -> =/test_p1 ct+t1, =/test_p2 ct+t1
P01/{test,retest}/{t1,ct}.nii.gz -> P01/P01_retest ct+t1, P01/P01_test ct+t1
tr/p{1,2,3}/{t1,ct}.nii.gz va/p4/{t1,ct}.nii.gz te/p5/{t1,ct}.nii.gz -> =/p1 train ct+t1, =/p2 train ct+t1, =/p3 train ct+t1, =/p4 val ct+t1, =/p5 test ct+t1
{ct,t1}/trn/p1.png {ct,t1}/dev/p2.png {ct,t1}/tst/p3.png -> =/p1 train ct+t1, =/p2 val ct+t1, =/p3 test ct+t1
te/p{1,2}/{t1,ct}.nii.gz -> =/p1 ct+t1, =/p2 ct+t1
P1/MR_d0{129,757}/{t1,ct}.nii.gz P2/MR_d0653/{t1,ct}.nii.gz -> P1/P1_MR_d0129 ct+t1, P1/P1_MR_d0757 ct+t1, P2/P2_MR_d0653 ct+t1
O1_MR_d{1,2}/anat2/O1_t1.nii.gz O1_MR_d{1,2}/anat3/O1_t2.nii.gz O2_MR_d3/anat2/O2_t1.nii.gz O2_MR_d3/anat5/O2_t2.nii.gz -> /O1_MR_d1 t1+t2, /O1_MR_d2 t1+t2, =/O2_MR_d3 t1+t2
S1_MR{1,2}/2-mprage/f/t1.nii.gz S1_MR{1,2}/5-bone/f/ct.nii.gz S2_MR1/2-mprage/f/t1.nii.gz S2_MR1/5-bone/f/ct.nii.gz -> /S1_MR1 ct+t1, /S1_MR2 ct+t1, =/S2_MR1 ct+t1
A/002_S_0413/PT/2006-05-02_12_31/I7/002_S_0413_PT.nii A/002_S_0413/MR/2006-05-02_12_31/I9/002_S_0413_MR.nii -> =/002_S_0413 mr+pt
s001{1,2}/ct.nii.gz s001{1,2}/segmentations/{liver,spleen}.nii.gz -> =/s0011 ct, =/s0012 ct
sub0{1,2}/{t1,ct}.nii.gz sub0{1,2}/T1.anat/{T1,T1_biascorr,T1_to_MNI}.nii.gz -> =/sub01 ct+t1, =/sub02 ct+t1
train/f100{1,2}_{pd,pdfs}.png test/f1003_{pd,pdfs}.png -> =/f1001 train pd+pdfs, =/f1002 train pd+pdfs, =/f1003 test pd+pdfs
p0{1,2}_{T1,T2_FLAIR}.nii.gz -> =/p01 flair+t1, =/p02 flair+t1
p0{1,2}/{t1,ct}.jpg -> =/p01 ct+t1, =/p02 ct+t1
A~B/{T1~x,ct}.nii.gz C~D/{T1~x,ct}.nii.gz -> =/A_B ct+t1_x, =/C_D ct+t1_x
P0{1,2}/{Frühphase,Spätphase}/t1.nii.gz -> P01/P01_Frühphase t1, P01/P01_Spätphase t1, P02/P02_Frühphase t1, P02/P02_Spätphase t1
P{1,2}/{Plan,Fx1}/{ct,mr}.nii.gz -> P1/P1_Fx1 ct+mr, P1/P1_Plan ct+mr, P2/P2_Fx1 ct+mr, P2/P2_Plan ct+mr
{mr,ct}_train/p{1,2}.png {mr,ct}_test/p3.png -> =/p1 train ct+mr, =/p2 train ct+mr, =/p3 test ct+mr
train{MR,CT}/p{1,2}.png test{MR,CT}/p3.png -> =/p1 train ct+mr, =/p2 train ct+mr, =/p3 test ct+mr
train_mr/{1,2}_mr.png train_ct/{1,2}_ct.png val_mr/3_mr.png val_ct/3_ct.png -> =/1 train ct+mr, =/2 train ct+mr, =/3 val ct+mr
overview.png p{1,2}/{t1,ct}.nii.gz p{1,2}/qc.png -> =/p1 ct+t1, =/p2 ct+t1
patient0{1,2}/study{1,2}_{T1W,CT}.nii.gz -> patient01/patient01_study1 ct+t1w, patient01/patient01_study2 ct+t1w, patient02/patient02_study1 ct+t1w, patient02/patient02_study2 ct+t1w
MR/{p1_mr,p2-mr}.png CT/{p1_ct,p2-ct}.png -> =/p1 ct+mr, =/p2 ct+mr
ct{1,2}/{t1,ct}.nii.gz -> =/ct1 ct+t1, =/ct2 ct+t1
P00{1,2}/P00{1,2}_{T1_64mT,T1_3T}.nii.gz -> =/P001 t1_3t+t1_64mt, =/P002 t1_3t+t1_64mt
train/{source,target}/00{1,2}.png val/{source,target}/003.png -> =/001 train source+target, =/002 train source+target, =/003 val source+target
Kontrolle0{1,2}/{t1,ct}.nii.gz Patient0{1,2}/{t1,ct}.nii.gz -> =/Kontrolle01 ct+t1, =/Kontrolle02 ct+t1, =/Patient01 ct+t1, =/Patient02 ct+t1
P0{1,2}/{Kopf~T2,Kopf~T1,Kopf~T1~mit~KM,Dunkelflüssigkeit~(FLAIR)}.nii.gz -> =/P01 flair+t1+t1c+t2, =/P02 flair+t1+t1c+t2
p01/{t1~,ct}.nii.gz p02/{t1,ct}.nii.gz -> =/p01 ct+t1, =/p02 ct+t1
p0{1,2}/{Ax~T1~MPRAGE~(1),ct}.nii.gz -> =/p01 ct+t1, =/p02 ct+t1
p0{1,2}/{AXIAL~T1~POST,ct}.nii.gz -> =/p01 ct+t1c, =/p02 ct+t1c
p01/{T2-FLAIR~-~Copy,ct}.nii.gz p02/{flair,ct}.nii.gz -> =/p01 ct+flair, =/p02 ct+flair
p0{1,2}/{Gd~T1,ct}.nii.gz -> =/p01 ct+t1c, =/p02 ct+t1c
p0{1,2}/{Kopf~T1~ohne~KM,ct}.nii.gz -> =/p01 ct+t1, =/p02 ct+t1
p0{1,2}/{Kopf~T1~post~OP,ct}.nii.gz -> =/p01 ct+kopf_t1_post_op, =/p02 ct+kopf_t1_post_op
p0{1,2}/{Tumor~T1,ct}.nii.gz -> =/p01 ct+tumor_t1, =/p02 ct+tumor_t1
p0{1,2}/{Kopf~T2~map,ct}.nii.gz -> =/p01 ct+kopf_t2_map, =/p02 ct+kopf_t2_map
p0{1,2}/{weird,ct}.nii.gz -> =/p01 ct+weird, =/p02 ct+weird
p0{1,2}/{rCBF,Perfusion_Tmax}.nii.gz -> =/p01 cbf+tmax, =/p02 cbf+tmax
p0{1,2}/{T_max,asl_cbf}.nii.gz -> =/p01 asl_cbf+tmax, =/p02 asl_cbf+tmax
P0{1,2}/{Kopf~T2,Hals~T2,T1}.nii.gz -> =/P01 hals_t2+kopf_t2+t1, =/P02 hals_t2+kopf_t2+t1
x/imagesTr/x_{0001,0002}.nii.gz x/labelsTr/x_{0001,0002}.nii.gz -> =/x_0001 image+seg, =/x_0002 image+seg
"""


@every_row("line", COHORTS.strip().splitlines())
def test_paths_are_read_as_the_split_the_patient_and_the_modality_that_they_state(tmp_path, line):
    paths, expected = line.split(" -> ")
    assert ", ".join(table(lay_out(tmp_path, paths))) == expected


def test_own_train_and_test_folders_leave_the_test_patients_out_of_training(tmp_path):
    lay_out(tmp_path, "train/pat0{1,2}/tp{1,2}/{t1,ct}.png test/pat03/tp1/{t1,ct}.png")
    splits = {case.patient: case.split for case in find_cohort(tmp_path).cases}
    assert splits["pat03"] == "test"
    assert {splits["pat01"], splits["pat02"]} == {"train", "val"}
    lay_out(tmp_path, "test/pat01/tp3/{t1,ct}.png")
    with refuses("pat01"):
        find_cohort(tmp_path)


def test_the_manifest_of_a_folder_states_what_prepare_would_read_and_may_be_corrected(tmp_path):
    lay_out(
        tmp_path, "siteA/{a,b}/{t1,ct,mask}.nii.gz siteB/a/ses-1/{t1,ct}.nii.gz test/c/t1.nii.gz"
    )
    found = voxlate.manifest(tmp_path)
    table = tmp_path / "cases.csv"
    with refuses("line [23]"):
        find_cohort(tmp_path)
    rows = [line.split(",") for line in table.read_text().splitlines()]
    filled = [[row[1][:7] if number else row[0], *row[1:]] for number, row in enumerate(rows)]
    table.write_text("\n".join(map(",".join, filled)))
    again = find_cohort(tmp_path)
    assert [one.paths for one in again.cases] == [one.paths for one in found.cases]
    assert [one.patient for one in again.cases] == ["c", "siteA_a", "siteA_b", "siteB_a"]
    with refuses("new file"):
        voxlate.manifest(tmp_path)


def test_a_pattern_on_dicom_keeps_the_unit_and_tags_name_what_it_leaves_open(tmp_path):
    pytest.importorskip("pydicom")
    from dicom_slices import image, save

    for case in "ab":
        for folder, modality, text in (("s1", "CT", "bone"), ("s2", "MR", "MPRAGE")):
            header = image(np.zeros((4, 4), np.int16), Modality=modality, SeriesDescription=text)
            header.PatientID = case
            save(header, tmp_path / case / folder / "1.dcm")
    named = {None: ["ct", "t1"], "{case}/*": ["ct", "t1"], "{case}/{modality}": ["ct_s1", "s2"]}
    for pattern, expected in named.items():
        cases = find_cohort(tmp_path, pattern=pattern).cases
        assert [[*case.files] for case in cases] == [expected] * 2


def test_a_pattern_may_state_the_split(tmp_path):
    lay_out(tmp_path, "tr/{t1,ct}_{1,2}.png dev/{t1,ct}_3.png holdout/{t1,ct}_4.png")
    found = find_cohort(tmp_path, pattern="{split}/{modality}_{case}")
    assert [case.split for case in found.cases] == ["train", "train", "val", "test"]


def test_the_halves_of_pictures_side_by_side_are_two_modalities(tmp_path):
    twice_as_wide = np.arange(128, dtype=np.uint8).reshape(8, 16)
    dark_between = np.full((14, 16), 200, np.uint8)
    dark_between[:, 6:10] = 9
    for number, values in enumerate((twice_as_wide, dark_between)):
        root = lay_out(tmp_path / f"{number}", "train/{1,2}.png val/3.png")
        for path in root.rglob("*.png"):
            Image.fromarray(values).save(path)
        cases = find_cohort(root).cases
        assert [case.split for case in cases] == ["train", "train", "val"]
        for name, half in (("a", values[:, :8]), ("b", values[:, 8:])):
            np.testing.assert_array_equal(read_volume(cases[2].files[name]).data[0, 0], half)
        Image.fromarray(values[:, 1:]).save(root / "train/2.png")
        with refuses():
            read_volume(cases[1].files["a"])
    Image.fromarray(dark_between[:, :12]).save(root / "train/1.png")
    with refuses():
        find_cohort(root)


def test_what_decided_a_split_is_told_apart(tmp_path):
    lay_out(tmp_path, "train/p{1,2,3,6}/{t1,ct}.png test/p4/{t1,ct}.png p5_test/{t1,ct}.png")
    said = " ".join(find_cohort(tmp_path).guessed)
    assert re.findall(r"(\d) cases? of (\w+) by (\w+)", said) == [
        ("2", "test", "folders"),
        ("3", "train", "folders"),
        ("1", "val", "default"),
    ]


def write(path: Path, values: np.ndarray, description: str = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_volume(path, Volume(np.float32(values)[None], np.eye(4), "a.u.", "x"), description)


@every_row(
    "labels, name",
    [(lambda x: x % 3, "seg"), (lambda x: x - 1000.0, "ct"), (lambda x: x / 7, "target")],
)
def test_nnunet_s_labels_are_a_label_map_or_an_image_by_their_values(tmp_path, labels, name):
    values = np.arange(64.0).reshape(4, 4, 4)
    for case in ("Tr/a", "Tr/b", "Tr/c", "Ts/d"):
        for channel in (0, 1):
            write(tmp_path / f"images{case}_{channel:04}.nii.gz", values)
        write(tmp_path / f"labels{case}.nii.gz", labels(values))
    (tmp_path / "dataset.json").write_text('{"channel_names": {"0": "T1w", "1": "FLAIR"}}')
    cases = find_cohort(tmp_path).cases
    assert all({"t1", "flair", name} == {*case.files, *case.labels} for case in cases)
    assert ("seg" in cases[0].labels) == (name == "seg")
    assert [case.split == "test" for case in cases] == [False, False, False, True]


def test_only_images_that_voxlate_wrote_are_left_out_and_they_are_listed(tmp_path):
    """FSL calls images resampled to the standard brain t1_std."""
    values = np.ones((4, 4, 4))
    for case in "ab":
        write(tmp_path / case / "t1_std.nii.gz", values)
        write(tmp_path / case / "ct_unfamiliar.nii.gz", values)
        write(tmp_path / case / "ct_std.nii.gz", values, description_of("ct_std.nii.gz"))
    lay_out(tmp_path, "a/desc-synthetic_mine.png")
    found = find_cohort(tmp_path)
    assert [[*case.files] for case in found.cases] == [["ct_unfamiliar", "t1_std"]] * 2
    assert "a/ct_std.nii.gz" in found.unclaimed[0]


OWN = [
    "{a,b}/{x_mprage,y_bone}.nii.gz",
    "train/s/p1/d1/{mr,ct}.nii.gz test/s/p2/d1/{mr,ct}.nii.gz",
    "{images_t2,images_ct,labels}/{a,b}.nii.gz",
]


@every_row("number", range(3))
def test_the_documented_layouts_find_their_cases(tmp_path, number):
    guide = Path(__file__).parents[2] / "docs/guides/own_data.md"
    preset = tmp_path / "own.toml"
    preset.write_text(guide.read_text().split("```toml\n")[number + 1].split("```")[0])
    cases = find_cohort(lay_out(tmp_path / "scans", OWN[number]), preset=preset).cases
    assert [len(case.files) for case in cases] == [2, 2]
