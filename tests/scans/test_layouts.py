"""The layouts in which cohorts come: each row is a tree of files, and the table of cases that it makes, or its refusal."""

import re
from pathlib import Path

import numpy as np

from refusals import refuses
from rows import every_row
from scans import spread, touch
from voxlate.scans.cohorts.find import find_cohort
from voxlate.scans.cohorts.manifest import write_manifest
from voxlate.scans.cohorts.owners import answers, require_patients
from voxlate.scans.formats.io import read_volume
from voxlate.scans.layout_options import PrepareOptions
from voxlate.scans.prepare import read_inputs

HERE = Path(__file__).parent
LAYOUTS, LISTS = (
    [line for line in (HERE / name).read_text("utf-8").splitlines() if line and line[0] != "#"]
    for name in ("layouts.txt", "split_lists.txt")
)
OPTION = re.compile(r"(pattern|preset|modalities)=(\S+)")


def lay_out(root: Path, words: str) -> Path:
    return touch(root, *(word.replace("~", " ") for word in words.split()))


def table(root: Path | str, **options) -> list[str]:
    """A line for each case: patient/case, split, scans."""
    lines = []
    for case in find_cohort(root, **options).cases:
        scans = [*case.files, *sorted(case.labels), *["mask"] * bool(case.mask)]
        owner = "=" if case.patient == case.case else case.patient
        split = f"{case.split} " if case.split else ""
        lines.append(f"{owner}/{case.case} {split}{'+'.join(scans)}")
    return lines


@every_row("line", LAYOUTS)
def test_a_layout_makes_the_table_of_its_cases_and_the_manifest_of_them_reads_as_it(tmp_path, line):
    words, expected = line.split(" -> ")
    options = dict(OPTION.findall(words))
    if "modalities" in options:
        options["modalities"] = options["modalities"].split(",")
    root = lay_out(tmp_path / "cohort", OPTION.sub("", words))
    assert ", ".join(table(root, **options)) == expected
    if "modalities" in options or "/" in {entry[0] for entry in expected.split(", ")}:
        return  # of some scans, or of patients who are asked for
    cases = find_cohort(root, **options).cases
    write_manifest(root / "cases.csv", root, cases)
    assert find_cohort(root).cases == cases


def write_lists(root: Path, lists: str) -> Path:
    """Three cases, and beside them lists, each a file and its content."""
    touch(root, "x_{1,2,3}_{t1,ct}.nii.gz")
    for one in lists.split(" | "):
        name, _, content = one.partition(" ")
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content.encode().decode("unicode_escape"), "utf-8", newline="")
    return root


@every_row("line", LISTS)
def test_the_splits_of_others_fill_the_split_of_each_case(tmp_path, line):
    lists, expected = line.split(" -> ")
    found = find_cohort(write_lists(tmp_path, lists))
    assert " ".join(str(case.split) for case in found.cases) == expected
    assert not found.unread


def test_files_that_speak_of_no_splits_are_no_doubts(tmp_path):
    (tmp_path / "test_0001").write_bytes(bytes(200))
    lists = 'run.json {"train_loss": [0.5], "mode": "train"} | environment.yml name: test | train.py x_1 | clinical.csv id,test_score,training_years,note\\nx_1,3,4,test dose\\n'
    assert not find_cohort(write_lists(tmp_path, lists)).unread


@every_row(
    "lists",
    [
        'splits.json {"train": ["nobody"]}',
        "my_split.yaml train: [x_1]",
        "my_split.toml train = ['x_1']",
        "split.csv id,set\\n01,train\\n02,val",
        "train.txt nobody",
        "split.bin x",
        "val_ids.npy x",
        "who.csv case,set\\na,train\\nb,val",
        "participants.tsv participant_id\\tsplit\\nsub-1\\ttrain\\nsub-2\\ttest",
        "who.csv case,train\\nx_1,0\\nx_2,1",
        'all.jsonl {"case": "x_1", "split": "train"}\\n{"case": "x_2", "split": "test"}',
        'mine.json {"x_1": "train", "x_2": "val", "x_3": "test"}',
        'config.json {"data": {"train_patients": ["x_1"], "valIds": ["x_2"]}}',
        "all.csv id,isTest\\nx_1,0\\nx_2,0\\nx_3,1",
        "all.csv train,val,test\\nx_1,x_2,x_3",
        "fold_1/val.txt x_1",
        'folds.json {"fold_0": ["x_2"], "fold_1": ["x_1", "x_3"]}',
    ],
)
def test_a_list_that_is_not_read_is_a_doubt_that_is_named(tmp_path, lists):
    (doubt,) = find_cohort(write_lists(tmp_path, lists)).unread
    assert lists.split()[0] in doubt
    with refuses(lists.split()[0]):
        read_inputs(tmp_path, PrepareOptions())


@every_row(
    ("lists", "words"),
    [
        ("0/train.txt x_1\\nx_2 | 0/val.txt x_3 | 1/train.txt x_2\\nx_3", "x_3"),
        ("train.txt x_1\\nx_2 | val.txt x_2\\nx_3", "val.txt, line 1: .*x_2 .*train.txt, line 2"),
        ("a.csv case,fold\\nx_1,0\\nx_2,1\\nx_3,5", "fold 5"),
        ("a.csv case,split\\nx_1,train\\nx_2,exam", "line 3: .*'exam'"),
        ("folds.csv case,fold\\nx_1,0\\nx_2,1\\nx_3,test", "line 4: .*'test'"),
        ("a_split.csv case,teil\\nx_1,Training\\nx_2,Vali\\nx_3,Test", "line 3: .*'Vali'"),
        ('splits.json {"train": ["x_1", "x_2"], "test": ["x_1", "x_3"]}', "x_1"),
        ("train.txt x_1\\nx_2 | test.txt x_2\\nx_3", "x_2"),
    ],
)
def test_lists_that_contradict_each_other_are_refused(tmp_path, lists, words):
    with refuses(words):
        find_cohort(write_lists(tmp_path, lists))


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
V{1,2}_p0{1,2}/{t1,ct}.nii.gz -> V1_p01 V2_p01
{pre,post}_p01/{t1,ct}.nii.gz pre_p02/{t1,ct}.nii.gz -> pre_p01 post_p01
2019010{1,2}_Pat{1,2}/{t1,ct}.nii.gz -> 20190101_Pat1 20190102_Pat1
20190101_1001_{t1,ct}.nii.gz 20200303_{1001,1002}_{t1,ct}.nii.gz -> 20190101_1001 20200303_1001
{AB,CD}-20{19,20}-01-01/{t1,ct}.nii.gz -> AB-2019-01-01 CD-2020-01-01
site{A,B}_00{1,2}_{t1,ct}.nii.gz -> siteA_001 siteB_001
S_V{1,2}_p0{1,2}_{t1,ct}.nii.gz -> S_V1_p01 S_V2_p02
p0{1,2}_{t1,ct}.nii.gz retest_p01_{t1,ct}.nii.gz -> p01 retest_p01
{Smith,Brown}/MRI~1{1,2}.01.2021/{T1,FLAIR}.nii.gz -> Smith_MRI_11.01.2021
{mr,ct}/anna_00{1,2,3,4,5}.png {mr,ct}/bert_001.png -> anna_001 anna_005
"""


@every_row("line", ASKED.strip().splitlines())
def test_names_that_may_be_of_one_patient_are_asked_about_until_an_option_answers(tmp_path, line):
    paths, names = line.split(" -> ")
    root = lay_out(tmp_path, paths)
    found = find_cohort(root)
    assert {*names.split()} <= {case.case for case in found.cases if not case.patient}
    with refuses("--patients each"):
        require_patients(found)
    for answer in re.findall(r"--patients (each|'.*?')", answers(found)):
        require_patients(find_cohort(root, patients=answer.strip("'")))


JOINED = """
V1_p01 V1_p02 V2_p01 -> p01 p02 p01
post_p01 pre_p01 pre_p02 -> p01 p01 p02
20190101_Pat1 20190101_Pat2 20200303_Pat1 -> Pat1 Pat2 Pat1
2019-01-01-AB 2020-02-02-AB 2020-02-02-CD -> AB AB CD
AB-2019-01-01 AB-2020-02-02 CD-2019-01-01 -> AB AB CD
S_V1_p01 S_V2_p01 S_V2_p02 -> p01 p01 p02
V1_anna_b V1_anna_c V2_anna_b -> anna_b anna_c anna_b
V1p01 V2p01 V2p02 -> p01 p01 p02
20190101Pat1 20200202Pat1 20200202Pat2 -> Pat1 Pat1 Pat2
p01post p01pre p02pre -> p01 p01 p02
sub01ses1 sub01ses2 sub02ses1 -> sub01 sub01 sub02
V1_p01_L V2_p01_L V2_p02_L -> p01 p01 p02
patient3a patient3b patient4a -> patient3 patient3 patient4
"""


@every_row("line", JOINED.strip().splitlines())
def test_an_option_that_is_offered_joins_the_cases_of_a_patient(tmp_path, line):
    names, patients = line.split(" -> ")
    touch(tmp_path, *(f"{name}/{{t1,ct}}.nii.gz" for name in names.split()))
    offered = re.findall(r"--patients '(.*?)'", answers(find_cohort(tmp_path)))
    made = [[case.patient for case in find_cohort(tmp_path, patients=one).cases] for one in offered]
    shapes = [[*map(owners.index, owners)] for owners in made]
    expected = patients.split()
    assert [*map(expected.index, expected)] in shapes


NOT_ASKED = """
p{1,2,3}
case_0{1,2,3}
patient_00{1,2}
head0{1,2,3}
site1_p{1,2}
siteA_00{1,2,3}_x
HN-CHUM-00{1,2}
HN-{CHUM,HGJ}-00{1,2,3}
{anna,bert,carl}
mri_{anna,bert}
BraTS2013-pat000{3,4}
1BA00{1,2}
sub-{01,02}
C3{L,N}-0001{6,7}
BraTS19_CBICA_A{AB,AG}_1
study2_00{1,2,3}
{patient,control}_00{1,2}
{anna,bert}_berlin
00{1,2}_site1
site_00{1,2,3,4,5,6,7,8,9}
1{1,2}_siteA
4{5,6,7}M
site1p{1,2,3}
{6f3a9c,6f3b1d,a09e4c}
"""


@every_row("names", NOT_ASKED.split())
def test_plain_numbers_and_names_of_patients_are_not_asked_about(tmp_path, names):
    touch(tmp_path, *(f"{name}/{{t1,ct}}.nii.gz" for name in spread(names)))
    found = find_cohort(tmp_path)
    assert not found.questions
    assert all(case.patient for case in found.cases)


@every_row(
    "words",
    [
        "MR/scan_{1,2}.nii.gz CT/image_{1,2}.nii.gz",
        "MR/p{1,2}_T1w_n4.nii.gz CT/p{1,2}_bone_reg.nii.gz",
        "T1/m0{0,1,2}.nii.gz CT/c1{0,1,2}.nii.gz",
        "mr/x{1,2}.nii.gz ct/y{1,2}.nii.gz",
    ],
)
def test_modalities_in_cases_of_their_own_are_a_doubt(tmp_path, words):
    found = find_cohort(lay_out(tmp_path, words))
    assert found.unpaired


VOLUME = np.ones((6, 8, 8))
ARRAYS = [  # files and their arrays, and the cases with the paths of their scans
    ("p{1,2}_{mr,ct}.npy", VOLUME, "p1 p1_ct.npy#slices=0+p1_mr.npy#slices=0"),
    ("{mr,ct}/p{1,2}.npy", VOLUME.T, "p1 ct/p1.npy#slices=2+mr/p1.npy#slices=2"),
]  # fmt: skip


@every_row(("words", "content", "expected"), ARRAYS)
def test_array_files_are_read_as_other_scans_where_a_folder_has_no_others(
    tmp_path, words, content, expected
):
    for file in filter(Path.is_file, touch(tmp_path, words).rglob("*")):
        np.save(file, content)
    found = find_cohort(tmp_path)
    case = found.cases[0]
    paths = [path.relative_to(tmp_path).as_posix() for path in case.files.values()]
    assert f"{case.case} {'+'.join(paths)}" == expected
    assert {one.patient for one in found.cases} == {"p1", "p2"}
    for path in case.files.values():
        read_volume(path)
