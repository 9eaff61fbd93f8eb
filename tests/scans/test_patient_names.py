"""Which names of cases are those of one patient: conventions of public data sets and of folders met in practice."""

from pathlib import Path

import numpy as np
import pytest

from refusals import refuses
from rows import every_row
from scans import touch
from voxlate.scans.cohorts.case_files import CaseFiles
from voxlate.scans.cohorts.find import find_cohort
from voxlate.scans.cohorts.patient_names import group_by_patient, patient_in

TOGETHER = """
00012 = 00012_11 00012_12
case21 = case21_s004 case21_s005
pat00 = pat00_tp1 pat00_tp2
pat00 = pat00tp1 pat00tp2
sub-00 = sub-00_ses-1 sub-00_ses-2
sub-00 = sub-00_ses-pre_run-1 sub-00_ses-post_acq-x_run-2
patient01 = patient01_study1 patient01_study2
Case01 = Case01Visit1 Case01Visit2
p01 = p01_20190102 p01_20200304
p01 = p01_2019-01-02 p01_2020-03-04
knee07 = knee07_left knee07_right
OAS1_0001 = OAS1_0001_MR1 OAS1_0001_MR2
OAS30001 = OAS30001_MR_d0129 OAS30001_MR_d0757
002_S_0295 = 002_S_0295_m06 002_S_0295_bl
BraTS-GLI-00005 = BraTS-GLI-00005-000 BraTS-GLI-00005-001
UPENN-GBM-00001 = UPENN-GBM-00001_11 UPENN-GBM-00001_21
10001 = 10001_1000001 10001_1000002
100101 = 100101A 100101B
100307 = 100307_3T 100307_7T
Patient-001 = Patient-001_week-012-2 Patient-001_week-044
PatientID_0003 = PatientID_0003_Timepoint_1 PatientID_0003_Timepoint_2
HCA6002236 = HCA6002236_V1_MR HCA6002236_V2_MR
1000001 = 1000001_20252_2_0 1000001_20252_3_0
case21 = case21s004 case21s005
case21 = case21_004 case21_005
case01 = case01_copy case01_copy2
pat03 = visit1_pat03 visit2_pat03
sub-04 = ses-1_sub-04 ses-2_sub-04
P01 = P01_baseline P01_fu1
case21 = case21_s004_007 case21_s004_008
001 = 001-01 001-02
IXI002-Guys-0828 = IXI002-Guys-0828_run1 IXI002-Guys-0828_run2
abc123 = abc123.visit.1 abc123.visit.2
P01 = P01_axial P01_sag
P01 = P01_0h P01_24h
P01 = P01_1st P01_2nd
P01 = MR_20190304_P01 MR_20200304_P01
P01 = P01_patch003 P01_patch004
P01 = P01_a P01_b
Pat01 = Pat01.1 Pat01.2
Meier_Anna = Meier_Anna_20190101 Meier_Anna_2020-01-01
P01 = P01_admission P01_discharge
P01 = P01_flip P01_mirror
P01 = P01_rot_90 P01_aug_3
Brown = Brown-2021-01-14 Brown-2021-02-14
Schäfer = Schäfer-2019-02-11 2020-03-11_Schäfer
Müller_Ä = Müller_Ä_Verlauf_11.02.2021 Müller_Ä_Erstuntersuchung Müller_Ä_1.3.22
Weber = Weber_baseline_2020-01-01 Weber_Kontrolle_3.2.21 Weber_Nachsorge_2 Weber_2._Termin Weber_März_2021
"""
# As people name two scans of one patient, and how the two differ.
SPELLINGS = """
pat01_arterial pat01_venous
P07_arterial P07_portal_venous
1004_arterial 1004_delayed
case12-preRT case12-postRT
0012_preRT 0012_midRT
P01_pre_contrast P01_post_contrast
pat05_gd pat05
pat05_T1gd pat05_T1
S012_ce S012_nce
S012_contrast S012_native
lung03_supine lung03_prone
0417_inhale 0417_exhale
0417_insp 0417_exp
pat01_1mm pat01_5mm
AB123_0.5mm AB123_iso
AB123_thin AB123_thick
pat08_lowres pat08_highres
pat08_lowdose pat08_fulldose
0033_siemens 0033_philips
UKE0033_GE UKE0033_canon
pat02_3T pat02_1.5T
pat02_3tesla pat02_7tesla
0051_skyra 0051_prisma
pat01 pat1
Patient_007 patient7
sub01 sub-001
subj03_pre subj3_post
case009_tp1 case9_tp2
0021_planning 0021_replanning
0021_simCT 0021_planCT
0021_fx01 0021_fx12
pat03_baseline pat03_6months
pat03_2019 pat03_2021
pat03_190102 pat03_200304
pat03_02-01-2019 pat03_04.03.2020
pat03_Jan2019 pat03_Mar2020
AB12_rest AB12_stress
AB12_recon1 AB12_recon2
AB12_soft AB12_bone
AB12_B30f AB12_B70h
HN04_primary HN04_recurrence
HN04_before_surgery HN04_after_surgery
pat04_scannerA pat04_scannerB
"""
# As systems of files name copies.
COPIES = ["P01 - Kopie", "P01 - Copy", "P01 - Copy (2)", "P01 (1)", "P01(1)", "P01 - Kopie.2"]
APART = """
case_01 case_02
IXI002-Guys-0828 IXI012-HH-1211
IXI002-Guys-0828 IXI002-HH-0829
BraTS-GLI-00001-000 BraTS-GLI-00002-000
BraTS2013-pat0003 BraTS2013-pat0004
TCGA-DU-7294 TCGA-DU-7295
TCGA-02-0001 TCGA-02-0003
openMS-cs-patient07 openMS-cs-patient26
BraTS20_Training_001 BraTS20_Training_002
Brats17_2013_0_1 Brats17_2013_10_1
BraTS19_TCIA01_131_1 BraTS19_TCIA01_147_1
Prostate3T-01-0001 Prostate3T-01-0002
QIN-HEADNECK-01-0003 QIN-HEADNECK-01-0004
site1_001 site1_002
site1_s001 site1_s002
sub-r001s001 sub-r001s002
r001s001 r001s002
002_S_0295 002_S_0413
CQ500CT0 CQ500CT1
CC0001_philips_15_55_M CC0002_philips_15_56_M
1BA001 1BA002
sub-strokecase0001 sub-strokecase0002
file_brain_AXT1_202_2020098 file_brain_AXT1_202_2020120
study2020_001 study2020_002
ID_0002cd41 ID_0002cd42
scan01 scan02
s00 s01
1.2.840.113619.2.1 1.2.840.113619.2.2
550e8400-e29b-41d4-a716-446655440000 550e8400-e29b-41d4-a716-446655440001
mr_train_1001 mr_train_1002
HN-CHUM-001 HN-CHUM-002
A00028185 A00028186
NDARINV003RTV85 NDARINV005V6D2C
volume-0 volume-1
slice0000 slice0001
20200101_001 20200101_002
BraTS2020_001 BraTS2021_001
group1_patient2 group1_patient3
visit1_001 visit1_002
3d12 3d13
case_0001_ct case_0002_ct
P1 P2
a b
c0 c1
2019_001 2019_002
hosp_2019_001 hosp_2019_002
01_001 01_002
1_01 1_02
A_patient1 B_patient1
UKE_MR_20190101 UKE_MR_20200102
brain_scan_20190101 brain_scan_20200102
GE_Signa_20190101 GE_Signa_20200102
Meier_Anna_20190101 Meier_Ida_20190101
MR_20190304_P01 MR_20190304_P02
P01_a P02_a
P01_24h P02_24h
site1_a site1_b
UKE01-H12 UKE01-H13
01_anna 01_bert
2019_anna 2019_bert
siteA_001 siteB_001
site2_anna site2_bert
LIDC-IDRI-0001 LIDC-IDRI-0010
pat10 pat100
1_1 11
case01_ct case10_ct
P100 P10_0
Brown-2021-01-14 Jones-2021-01-14
Kontrolle01 Kontrolle02
1.2.840.1.10.45 1.2.840.1.10.46
"""
# Their names state a time alone, which is said.
NOBODY = ("slice0000", "visit1_001", "UKE_MR", "brain_scan", "GE_Signa")


def lines(table: str) -> list[str]:
    return table.strip().splitlines()


@every_row("line", lines(TOGETHER))
def test_sessions_slices_sides_dates_and_copies_are_read_as_parts_of_a_patient(line):
    patient, names = line.split(" = ")
    assert {patient_in(name) for name in names.split()} == {patient}


@every_row("line", lines(SPELLINGS))
def test_spellings_of_one_patient_s_two_scans_are_of_one_patient(line):
    first, second = line.split()
    owners, _ = group_by_patient([first, second, "zz99"])
    assert owners.keys() == {first, second}
    assert owners[first] == owners[second]


def test_copies_and_parts_are_of_the_patient_whom_another_case_is_named_after():
    assert {patient_in(name) for name in COPIES} == {"P01"}
    for own, part, other in (("P01", "P01 (1)", "P02"), ("pat1", "pat1_tp2", "pat2")):
        owners, _ = group_by_patient([own, part, other])
        assert owners == {own: own, part: own}


def test_years_and_sites_before_numbers_are_no_patients():
    assert group_by_patient(["2019_001", "2019_002", "2020_001"]) == ({}, "")
    sites = [f"{site}_{number}" for site in ("01", "02") for number in ("001", "002", "004")]
    assert group_by_patient(sites) == ({}, "")


@every_row("line", lines(APART))
def test_names_of_different_patients_are_not_read_as_one(line):
    first, second = line.split()
    assert (patient_in(first) or first) != (patient_in(second) or second)
    owners, sentence = group_by_patient([first, second])
    assert owners == {}
    assert bool(sentence) <= line.startswith(NOBODY)


@every_row("names", [["p1_s1", "p1_s2", "p1_s3"], ["slice_001", "slice_002"]])
def test_a_name_that_all_cases_share_and_slices_alone_are_no_patient_and_are_said(names):
    owners, sentence = group_by_patient(names)
    assert owners == {}
    assert f"({', '.join(names)})" in sentence


def owners(cases: list[CaseFiles]) -> dict[str, str]:
    return {one.case: one.patient for one in cases}


TWO_PATIENTS = {"pat00_tp1": "pat00", "pat00_tp2": "pat00", "pat01_tp1": "pat01_tp1"}


@pytest.fixture
def two_patients(tmp_path) -> Path:
    return touch(tmp_path, "{pat00_tp1,pat00_tp2,pat01_tp1}/t1.nii.gz")


@every_row(
    "paths, options",
    [
        (("{}/t1.nii.gz", "{}/ct.nii.gz"), {}),
        (("{}_t1.nii.gz", "{}_ct.nii.gz"), {}),
        (("T1/{}.nii.gz", "CT/{}.nii.gz"), {"pattern": "{modality}/{case}.nii.gz"}),
        (("all/{0}/{0}-t1n.nii.gz", "all/{0}/{0}-t2f.nii.gz"), {"preset": "brats2023"}),
        (("trainA/{}.png", "trainB/{}.png"), {}),
    ],
)
def test_two_time_points_are_one_patient_in_every_layout(tmp_path, paths, options):
    for case in TWO_PATIENTS:
        touch(tmp_path, *(path.format(case) for path in paths))
    found = find_cohort(tmp_path, **options)
    assert owners(found.cases) == TWO_PATIENTS
    (sentence,) = [one for one in found.guessed if "patient" in one]
    assert sentence.startswith("2 of 3 cases are sessions, slices or copies of 1 patient")
    each = find_cohort(tmp_path, patients="each", **options)
    assert all(one.patient == one.case for one in each.cases)
    assert not any("patient" in one for one in each.guessed)


def test_array_files_need_no_list_where_all_names_tell_patients(tmp_path):
    def patients(*cases: str) -> list[str]:
        for case in cases:
            for name in ("mr", "ct"):
                np.save(tmp_path / f"{case}_{name}.npy", np.zeros((4, 4), np.float32))
        return [one.patient for one in find_cohort(tmp_path, pattern="{case}_{modality}.npy").cases]

    told = patients("case02_s010", "case02_s011", "case16_s009")
    assert told == ["case02", "case02", "case16_s009"]
    assert {*patients("0007")} == {""}  # prepare then asks for a list


def test_a_manifest_without_patients_is_read_by_its_names_and_one_with_them_is_believed(
    two_patients,
):
    table = two_patients / "m.csv"
    rows = "".join(f"{case},{case}/t1.nii.gz,{case}\n" for case in TWO_PATIENTS)
    table.write_text(f"case,t1,note\n{rows}")
    assert owners(find_cohort(table).cases) == TWO_PATIENTS
    table.write_text(f"case,t1,patient\n{rows}")
    assert owners(find_cohort(table).cases) == {case: case for case in TWO_PATIENTS}


def test_a_table_of_notes_may_name_the_patients_that_names_tell(two_patients):
    (two_patients / "cases.csv").write_text("patient,split\npat00,train\npat01_tp1,val\n")
    found = find_cohort(two_patients).cases
    assert owners(found) == TWO_PATIENTS
    assert [one.split for one in found] == ["train", "train", "val"]


def test_a_split_that_parts_two_sessions_is_refused(two_patients):
    rows = "pat00_tp1,train\npat00_tp2,val\npat01_tp1,val\n"
    (two_patients / "cases.csv").write_text("case,split\n" + rows)
    with refuses(r"found pat00 in train and val\."):
        find_cohort(two_patients)
    assert len(find_cohort(two_patients, patients="each").cases) == 3


def test_a_patient_whom_names_tell_may_be_excluded(two_patients):
    assert owners(find_cohort(two_patients, exclude="pat00").cases) == {"pat01_tp1": "pat01_tp1"}


# Pictures are single slices, so that what stands before their numbers is a patient; the same names of volumes are apart.
SLICES = """
anna = anna_slice003 anna_slice004
anna = anna_s005 anna_s006
anna = anna_schicht_5 anna_schicht_6
anna = anna_005 anna_006
Meier_Anna = Meier_Anna_z05 Meier_Anna_z06
case16 = case16_img5 case16_img6
case16 = case16_schicht5 case16_schicht6
"""
PATIENTS_OF_PICTURES = """
pat_01 pat_02
sub-01 sub-02
case41 case42
TCGA-DU-7294 TCGA-DU-7295
BraTS-GLI-00001-000 BraTS-GLI-00002-000
HN-CHUM-001 HN-CHUM-002
siteA_001 siteA_002
01_001 01_002
anna_9 anna_10
"""


@every_row("line", lines(SLICES))
def test_pictures_with_a_running_number_are_slices_of_the_patient_before_it(line):
    patient, names = line.split(" = ")
    owners, _ = group_by_patient([*names.split(), "bert_s005"], pictures=True)
    assert owners == dict.fromkeys(names.split(), patient)


@every_row("line", lines(PATIENTS_OF_PICTURES))
def test_pictures_whose_numbers_are_those_of_patients_are_apart(line):
    assert group_by_patient([*line.split(), "bert_s005"], pictures=True)[0] == {}


@every_row("line", lines(SLICES)[:5])
def test_volumes_of_such_names_are_apart(line):
    _, names = line.split(" = ")
    assert group_by_patient([*names.split(), "bert_s005"])[0] == {}


@every_row(
    "name, unowned",
    [
        ("slice00{}_ct.png", 1),
        ("ct/00{}.png", 1),
        ("ct/im{}.png", 1),
        ("ct/p00{}.png", 0),
        ("slice00{}_ct.nii.gz", 0),
    ],
)
def test_pictures_of_slices_without_a_patient_are_noted_as_such(tmp_path, name, unowned):
    touch(tmp_path, *(name.format(number) for number in range(3)))
    assert len(find_cohort(tmp_path).unowned) == unowned
