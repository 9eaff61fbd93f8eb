"""The layouts in which cohorts come: each row is a tree of files, and the table of cases that it makes, or its refusal."""

import json
from pathlib import Path

from refusals import refuses
from rows import every_row
from scans import touch
from voxlate.scans.cohort_inputs import read_inputs
from voxlate.scans.cohorts.find import find_cohort
from voxlate.scans.cohorts.owners import require_patients
from voxlate.scans.prepare_options import PrepareOptions

# '~' stands for a blank, {a,b} for several paths. Expected: patient/case split scans; '=': as the case; '*N': so many cases.
BRATS21 = "BraTS2021_0000{0,1}/BraTS2021_0000{0,1}_{t1,t1ce,t2,flair,seg}.nii.gz"
RECOGNISED = {
    "case folders": ("p{1,2}/{mr,ct}.nii.gz", "=/p1 ct+mr, =/p2 ct+mr"),
    "flat": ("p{1,2}_{t1,ct}.nii.gz", "=/p1 ct+t1, =/p2 ct+t1"),
    "one case": ("{t1,ct}.nii.gz", "*1"),
    "plain numbers": ("head_{01,02,03}_{mr,ct}.nii.gz", "=/head_01 ct+mr, *3"),
    "numbered cases": ("case_{1,2,3}/{mr,ct}.nii.gz", "=/case_1 ct+mr, *3"),
    "glued numbers": ("head{1,2,3}/{mr,ct}.nii.gz", "=/head1 ct+mr, *3"),
    "a folder a modality": ("{MR,CT}/{anna,bert}.nii.gz", "=/anna ct+mr, =/bert ct+mr"),
    "a modality before or behind a patient": (
        "{MR,CT}_p1/image.nii.gz p2_{MR,CT}/image.nii.gz",
        "=/p1 ct+mr, =/p2 ct+mr",
    ),
    "names repeat the modality": ("MR/p{1,2}_mr.nii.gz CT/p{1,2}_ct.nii.gz", "=/p1 ct+mr, *2"),
    "a folder a scan": ("P{1,2}/{CT,T1}/scan.nii.gz", "=/P1 ct+t1, *2"),
    "sessions of patients": (
        "pat01/ses-{1,2}/{t1,ct}.nii.gz pat02/ses-1/{t1,ct}.nii.gz",
        "pat01/pat01_ses-1 ct+t1, pat01/pat01_ses-2 ct+t1, pat02/pat02_ses-1 ct+t1",
    ),
    "patients of sites": (
        "siteA/patient{1,2}/{t1,ct}.nii.gz siteB/patient3/{t1,ct}.nii.gz",
        "=/patient1 ct+t1, *3",
    ),
    "BIDS with runs": (
        "dataset_description.json sub-01/anat/sub-01_{run-1_T1w,run-2_T1w,T2w}.nii.gz sub-02/anat/sub-02_{T1w,T2w}.nii.gz",
        "=/sub-01 t1+t2, =/sub-02 t1+t2",
    ),
    "BIDS sessions": (
        "dataset_description.json sub-0{1,2}/ses-{a,b}/anat/x.json sub-01/ses-{a/anat/sub-01_ses-a,b/anat/sub-01_ses-b}_{T1w,T2w}.nii.gz sub-02/ses-a/anat/sub-02_ses-a_{T1w,T2w}.nii.gz",
        "sub-01/sub-01_ses-a t1+t2, sub-02/sub-02_ses-a t1+t2, *3",
    ),
    "BIDS CT": (
        "sub-0{1,2}/ct/sub-0{1,2}_ct.nii.gz sub-0{1,2}/anat/sub-0{1,2}_T1w.nii.gz",
        "=/sub-01 ct+t1, *2",
    ),
    "nnU-Net": (
        "imagesTr/x_{1,2}_000{0,1}.nii.gz labelsTr/x_{1,2}.nii.gz imagesTs/x_3_000{0,1}.nii.gz",
        "=/x_3 test 0000+0001, *3",
    ),
    "nnU-Net for synthesis": (
        "imagesTr/x_{1,2}_0000.nii.gz targetsTr/x_{1,2}.nii.gz",
        "=/x_1 source+target, =/x_2 source+target",
    ),
    "Decathlon": (
        "imagesTr/BRATS_00{1,2}.nii.gz labelsTr/BRATS_00{1,2}.nii.gz",
        "=/BRATS_001 image+seg, *2",
    ),
    "nnsyn": (
        "INPUT_IMAGES/p{1,2}_0000.mha TARGET_IMAGES/p{1,2}_0000.mha MASKS/p{1,2}.mha",
        "=/p1 source+target+mask, *2",
    ),
    "nnsyn without channels": (
        "INPUT_IMAGES/p_000{1,2}.mha TARGET_IMAGES/p_000{1,2}.mha",
        "=/p_0001 source+target, *2",
    ),
    "BraTS 2021": (BRATS21, "=/BraTS2021_00000 flair+t1+t1c+t2+seg, *2"),
    "BraTS 2023": (
        "BraTS-GLI-00008-00{0,1}/BraTS-GLI-00008-00{0,1}-{t1n,t1c,t2w,t2f,seg}.nii.gz",
        "BraTS-GLI-00008/BraTS-GLI-00008-000 flair+t1+t1c+t2+seg, *2",
    ),
    "SynthRAD 2023": (
        "Task1/brain/1BA00{1,2}/{mr,ct,mask}.nii.gz Task1/brain/overview/1BA001_train.png",
        "=/1BA001 ct+mr+mask, *2",
    ),
    "SynthRAD 2025": ("Task1/HN/1HNA00{1,2}/{mr,ct,mask}.mha", "=/1HNA001 ct+mr+mask, *2"),
    "IXI": (
        "IXI-T1/IXI00{2,3}-Guys-0828-T1.nii.gz IXI-T2/IXI00{2,3}-Guys-0828-T2.nii.gz",
        "IXI002/IXI002-Guys-0828 t1+t2, *2",
    ),
    "CycleGAN": (
        "trainA/{1,2,3,4}.nii.gz trainB/{1,2,3,4}.nii.gz testA/5.nii.gz testB/5.nii.gz",
        "=/5 test a+b, *5",
    ),
    "folders A and B": (
        "A/train/{1,2}.nii.gz B/train/{1,2}.nii.gz A/test/3.nii.gz B/test/3.nii.gz",
        "=/3 test a+b, *3",
    ),
    "input and output folders": ("{ldct,ndct}/0{1,2,3}.nii.gz", "=/01 ldct+ndct, *3"),
    "images and labels": (
        "images/p{1,2,3}.nii.gz labels/p{1,2,3}.nii.gz",
        "=/p1 images+labels, *3",
    ),
    "images and masks": (
        "images/p{1,2,3}_{t1,ct}.nii.gz masks/p{1,2,3}.nii.gz",
        "=/p1 ct+t1+mask, *3",
    ),
    "OASIS": (
        "OAS30001_MR_d{0129,0757}/anat2/sub-OAS30001_T1w.nii.gz OAS30002_MR_d0653/anat2/sub-OAS30002_T1w.nii.gz",
        "OAS30001/OAS30001_MR_d0129 t1w, *3",
    ),
    "BraTS 2018": (
        "HGG/Brats18_2013_2_1/Brats18_2013_2_1_{t1,t1ce}.nii.gz LGG/Brats18_TCIA09_3_1/Brats18_TCIA09_3_1_{t1,t1ce}.nii.gz",
        "=/Brats18_2013_2_1 t1+t1c, *2",
    ),
    "folders of folds": (
        "fold0/p{1,2}/{mr,ct}.nii.gz fold1/p3/{mr,ct}.nii.gz",
        "=/p1 val ct+mr, =/p3 train ct+mr, *3",
    ),
    "splits then cases": (
        "train/p{1,2}/{t1,ct}.nii.gz val/p3/{t1,ct}.nii.gz test/p4/{t1,ct}.nii.gz",
        "=/p1 train ct+t1, =/p3 val ct+t1, =/p4 test ct+t1, *4",
    ),
    "splits in names": (
        "p{1,2,3}/{t1,ct}.nii.gz test_p4/{t1,ct}.nii.gz",
        "=/test_p4 test ct+t1, *4",
    ),
    "TCGA": (
        "TCGA-02-0001/2001/{t1,flair}.nii.gz TCGA-02-0002/200{1,2}/{t1,flair}.nii.gz",
        "TCGA-02-0002/TCGA-02-0002_2001 flair+t1, *3",
    ),
    "ADNI": (
        "A/002_S_0413/PT/d/I7/002_S_0413_PT.nii A/002_S_0413/MR/d/I9/002_S_0413_MR.nii A/003_S_0413/PT/d/I7/003_S_0413_PT.nii A/003_S_0413/MR/d/I9/003_S_0413_MR.nii",
        "=/002_S_0413 mr+pt, *2",
    ),
    "PI-CAI": (
        "1000/1000_500{1,2}_{adc,hbv}.mha 1001/1001_5003_{adc,hbv}.mha",
        "1000/1000_5001 adc+hbv, *3",
    ),
}
LISTS = {
    "splits_final.json": (
        "x/splits_final.json",
        [{"train": ["x_1", "x_3"], "val": ["x_2"]}, {"train": ["x_2", "x_3"], "val": ["x_1"]}],
        "train val train",
    ),
    "splits.json": (
        "splits.json",
        {"train": ["x_1"], "validation": ["x_2"], "test": ["x_3"]},
        "train val test",
    ),
    "by case": ("mine.json", {"x_1": "train", "x_2": "val", "x_3": "test"}, "train val test"),
    "MONAI": (
        "datalist.json",
        {
            "training": [{"image": "./imagesTr/x_1.nii.gz"}],
            "validation": [{"image": ["imagesTr/x_2.nii.gz"]}],
            "testing": ["x/x_3.nii.gz"],
        },
        "train val test",
    ),
    "a text a split": (
        {"train.txt": "x_1\n", "val.txt": "x_2\n", "test.txt": "x_3\n"},
        None,
        "train val test",
    ),
    "KonfAI": (
        {"Train.txt": "x_1", "Validation.txt": "x_2", "Test.txt": "x_3"},
        None,
        "train val test",
    ),
    "BIDS": (
        "participants.tsv",
        "participant_id\tage\tset\nx_1\t4\ttrain\nx_2\t5\tvalidation\nx_3\t6\ttest\n",
        "train val test",
    ),
    "semicolons and BOM": (
        "who.csv",
        "\ufeffcase;Partition\r\nx_1;Training\r\nx_2;Dev\r\nx_3;Test\r\n",
        "train val test",
    ),
    "an unnamed column": (
        "mine.csv",
        "subject_id,usage\nx_1,train\nx_2,val\nx_3,test\n",
        "train val test",
    ),
    "tables a split": (
        {"train.csv": "id\nx_1\n", "val.csv": "id\nx_2\n", "test.csv": "id\nx_3\n"},
        None,
        "train val test",
    ),
    "paths and a split": (
        "dataset.csv",
        "t1_path,ct_path,set\n./x_1_t1.nii.gz,x_1_ct.nii.gz,train\n./x_2_t1.nii.gz,,val\n/data/x_3_t1.nii.gz,,test\n",
        "train val test",
    ),
    "MONAI folds": (
        "data.json",
        {"training": [{"image": f"a/x_{case}_t1.nii.gz", "fold": case - 1} for case in (1, 2, 3)]},
        "val train train",
    ),
    "a list below": ("lists/train_ids.json", ["x_1", "x_2"], "None None"),
    "only test": ("test.txt", "x_3\n", "train train test"),
    "nnU-Net's both": (
        {
            "dataset.json": '{"training": ["x_1", "x_2"], "test": ["x_3"]}',
            "splits_final.json": '[{"train": ["x_1"], "val": ["x_2"]}]',
        },
        None,
        "train val test",
    ),
    "folds": ("folds.csv", "PatientID,fold\nx_1,1\nx_2,0\nx_3,2\n", "train val train"),
}


def lay_out(root: Path, words: str) -> Path:
    return touch(root, *(word.replace("~", " ") for word in words.split()))


def table(root: Path, **options) -> list[str]:
    """A line for each case: patient/case, split, scans."""
    lines = []
    for case in find_cohort(root, **options).cases:
        scans = [*case.files, *sorted(case.labels), *["mask"] * bool(case.mask)]
        owner = "=" if case.patient == case.case else case.patient
        split = f"{case.split} " if case.split else ""
        lines.append(f"{owner}/{case.case} {split}{'+'.join(scans)}")
    return lines


@every_row("name", RECOGNISED)
def test_a_layout_makes_the_table_of_its_cases(tmp_path, name):
    words, expected = RECOGNISED[name]
    found = table(lay_out(tmp_path, words))
    for line in expected.split(", "):
        if line.startswith("*"):
            assert len(found) == int(line[1:]), found
        else:
            assert line in found, found


@every_row("name", LISTS)
def test_the_splits_of_others_fill_the_split_of_each_case(tmp_path, name):
    files, content, expected = LISTS[name]
    if isinstance(files, str):
        files = {files: content if isinstance(content, str) else json.dumps(content)}
    touch(tmp_path, "x_{1,2,3}_{t1,ct}.nii.gz")
    for file, text in files.items():
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text(text)
    found = find_cohort(tmp_path)
    assert " ".join(str(case.split) for case in found.cases) == expected
    assert not found.unread


@every_row(
    ("file", "text"),
    [
        ("splits.json", '{"train": ["nobody"]}'),
        ("my_split.yaml", "train: [x_1]"),
        ("train.txt", "nobody"),
    ],
)
def test_a_list_that_is_not_read_is_a_doubt_that_is_named(tmp_path, file, text):
    touch(tmp_path, "x_{1,2,3}_{t1,ct}.nii.gz")
    (tmp_path / file).write_text(text)
    (doubt,) = find_cohort(tmp_path).unread
    assert file in doubt
    with refuses(file):
        read_inputs(tmp_path, PrepareOptions())


def test_a_file_that_states_no_split_is_named_as_not_read(tmp_path):
    touch(tmp_path, "x_{1,2,3}_{t1,ct}.nii.gz", "README.md", "ages.csv", "x_1_t1.json")
    (tmp_path / "ages.csv").write_text("case,age\nx_1,4\n")
    found = find_cohort(tmp_path)
    assert any("ages.csv" in one and "README" not in one for one in found.guessed)
    assert not found.unread


@every_row(
    ("files", "words"),
    [
        ({"0/train.txt": "x_1\nx_2", "0/val.txt": "x_3", "1/train.txt": "x_2\nx_3"}, "x_3"),
        ({"splits.json": '{"train": ["x_1", "x_2"], "test": ["x_1", "x_3"]}'}, "x_1"),
        ({"train.txt": "x_1\nx_2", "test.txt": "x_2\nx_3"}, "x_2"),
        ({"a.csv": "case,split\nx_1,train\nx_2,exam\n", "b.csv": "case\nx_1\n"}, None),
    ],
)
def test_lists_that_contradict_each_other_are_refused_and_others_named(tmp_path, files, words):
    touch(tmp_path, "x_{1,2,3}_{t1,ct}.nii.gz")
    for file, text in files.items():
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text(text)
    if words is None:
        assert find_cohort(tmp_path).guessed
        return
    with refuses(words):
        find_cohort(tmp_path)


def test_a_list_in_a_folder_that_the_layout_skips_is_none(tmp_path):
    touch(
        tmp_path, "Task1/brain/1BA00{1,2}/{mr,ct}.nii.gz", "Task1/brain/overview/1_brain_train.xlsx"
    )
    assert len(read_inputs(tmp_path, PrepareOptions()).found.cases) == 2


def test_a_path_of_an_unknown_case_names_no_other_case(tmp_path):
    touch(tmp_path, "x{1,2,3}/anat/{t1,ct}.nii.gz")
    (tmp_path / "train.txt").write_text("x1/anat/t1.nii.gz\nx2\ngone/anat/t1.nii.gz\n")
    (tmp_path / "val.txt").write_text("/old/x3/anat/lost.nii.gz\n")
    found = find_cohort(tmp_path)
    assert [case.split for case in found.cases] == ["train", "train", "val"]
    assert "gone" in " ".join(found.unclaimed)


def test_a_list_that_puts_a_case_of_the_test_folder_into_training_is_refused(tmp_path):
    touch(tmp_path, "train/x_1/{t1,ct}.nii.gz", "test/x_2/{t1,ct}.nii.gz")
    (tmp_path / "train.txt").write_text("x_1\nx_2\n")
    with refuses("x_2"):
        find_cohort(tmp_path)


@every_row(
    ("name", "text", "splits"),
    [
        ("m.csv", "case,split,t1\na,val,train/x_1/t1.nii.gz\nb,train,train/x_2/t1.nii.gz\n", "vtv"),
        (
            "cases.csv",
            "case,t1\na,train/x_1/t1.nii.gz\nb,train/x_2/t1.nii.gz\nc,val/x_3/t1.nii.gz\n",
            "ttv",
        ),
        (
            "cases.csv",
            "case,split,t1\na,val,train/x_1/t1.nii.gz\nb,train,val/x_3/t1.nii.gz\n",
            "vt",
        ),
    ],
)
def test_a_table_and_the_folders_of_its_scans_both_state_splits(tmp_path, name, text, splits):
    touch(tmp_path, "train/x_{1,2}/t1.nii.gz", "val/x_3/t1.nii.gz")
    (tmp_path / name).write_text(text)
    found = find_cohort(tmp_path)
    assert "".join(str(case.split)[0] for case in found.cases) == splits


ASKED = """
patient3{a,b}/{t1,ct}.nii.gz patient4a/{t1,ct}.nii.gz -> patient3a patient3b
A001{2,3}v{1,2}_{t1,ct}.nii.gz -> A0012v1 A0013v2
MUELLER_ANNA_{1,2}/{t1,ct}.nii.gz MEIER_TOM_1/{t1,ct}.nii.gz -> MUELLER_ANNA_1 MUELLER_ANNA_2
患者{1,2}_{1,2}/{t1,ct}.nii.gz -> 患者1_1 患者2_2
Schmidt_K_{alt,neu}/{t1,ct}.nii.gz Weber_A/{t1,ct}.nii.gz -> Schmidt_K_alt Schmidt_K_neu
pat0{1,2}_tp{1,2}_{t1,ct}.nii.gz -> pat01_tp1 pat02_tp2
anna_2019-01-0{1,2}/{t1,ct}.nii.gz bert_2019-01-05/{t1,ct}.nii.gz -> anna_2019-01-01 anna_2019-01-02
p1/{t1,ct}.nii.gz p1_retest/{t1,ct}.nii.gz p2/{t1,ct}.nii.gz -> p1 p1_retest
case{21,22}_00{4,5}_{t1,ct}.nii.gz -> case21_004 case22_005
site{A,B}/00{1,2}/{t1,ct}.nii.gz -> siteA_001 siteB_002
visit{1,2}/pat03/{t1,ct}.nii.gz visit1/pat04/{t1,ct}.nii.gz -> visit1_pat03 visit2_pat03
{Smith,Brown}/MRI~1{1,2}.01.2021/{T1,FLAIR}.nii.gz -> Smith_MRI_11.01.2021
"""


@every_row("line", ASKED.strip().splitlines())
def test_names_that_may_be_of_one_patient_are_asked_about_until_an_option_answers(tmp_path, line):
    paths, names = line.split(" -> ")
    root = lay_out(tmp_path, paths)
    found = find_cohort(root)
    assert {*names.split()} <= {case.case for case in found.cases if not case.patient}
    with refuses("--patients each"):
        require_patients(found, root)
    require_patients(find_cohort(root, patients="each"), root)


NOT_ASKED = [
    "p{1,2,3}",
    "case_0{1,2,3}",
    "patient_00{1,2}",
    "head0{1,2,3}",
    "site1_p{1,2}",
    "siteA_00{1,2,3}_x",
    "HN-CHUM-00{1,2}",
    "HN-{CHUM,HGJ}-00{1,2,3}",
    "{anna,bert,carl}",
    "mri_{anna,bert}",
    "BraTS2013-pat000{3,4}",
    "1BA00{1,2}",
    "sub-{01,02}",
    "C3{L,N}-0001{6,7}",
    "BraTS19_CBICA_A{AB,AG}_1",
    "study2_00{1,2,3}",
]


@every_row("names", NOT_ASKED)
def test_plain_numbers_and_names_of_patients_are_not_asked_about(tmp_path, names):
    touch(tmp_path, *(f"{name}/{{t1,ct}}.nii.gz" for name in _spread(names)))
    found = find_cohort(tmp_path)
    assert not found.questions
    assert all(case.patient for case in found.cases)


@every_row(
    ("patients", "expected"),
    [
        (r"^(.*\d)[a-z]$", "patient3 patient3 patient4"),
        (r"^.*\d", "patient3 patient3 patient4"),
        ("each", "patient3a patient3b patient4"),
    ],
)
def test_a_regular_expression_or_each_answers_whose_the_cases_are(tmp_path, patients, expected):
    touch(tmp_path, "patient{3a,3b,4}/{t1,ct}.nii.gz")
    cases = find_cohort(tmp_path, patients=patients).cases
    assert " ".join(case.patient for case in cases) == expected


@every_row(
    ("words", "pattern"),
    [
        (
            "MR/scan_1.nii.gz CT/image_1.nii.gz MR/scan_2.nii.gz CT/image_2.nii.gz",
            "{modality}/*_{case}",
        ),
        ("mr/x{1,2}.nii.gz ct/y{1,2}.nii.gz", ""),
    ],
)
def test_modalities_in_cases_of_their_own_are_a_doubt_with_the_pattern_that_joins_them(
    tmp_path, words, pattern
):
    found = find_cohort(lay_out(tmp_path, words))
    assert found.unpaired
    assert not found.questions
    if pattern:
        assert f"--pattern '{pattern}'" in found.unpaired
        assert len(find_cohort(tmp_path, pattern=pattern).cases) * 2 == len(found.cases)


def _spread(names):
    head, brace, rest = names.partition("{")
    if not brace:
        return [names]
    choices, _, tail = rest.partition("}")
    return [one for choice in choices.split(",") for one in _spread(head + choice + tail)]
