"""DICOM cohorts whose series lie mixed in a patient's folder and are chosen by their tags."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from test_layouts import table

from preparing import prepare
from refusals import refuses
from rows import every_row, slow
from voxlate.base.files import read_json
from voxlate.scans.cases.prepared import open_cohort
from voxlate.scans.cohorts.find import find_cohort
from voxlate.scans.formats.dicom import list_series
from voxlate.scans.formats.io import content_hash, is_there, read_volume
from voxlate.training.recipe import read
from voxlate.training.train import train

pytest.importorskip("pydicom")
from dicom_slices import DESCRIPTIONS, image, item, save

FIRST = (-20.0, 30.0, -7.5)  # of the lowest slice, LPS
PATIENT = "Gustavsson^Bertil"
RECORD = "19470812-1234"


DISC = np.hypot(*np.mgrid[-7.5:8, -9.5:10]) < 7  # rows, columns
LEVELS = np.arange(1, 4)[:, None, None]


def t2_values():
    """[D, H, W] as stored, from the feet to the head; each slice has its own level, so that a wrong order shows."""
    return (DISC * (100 * LEVELS + np.arange(20))).astype(np.int16)


def ct_values():
    """HU, even: stored with a slope of 2."""
    return np.where(DISC, 20 * LEVELS + 2 * np.arange(20), -1000).astype(np.int16)


def write_series(
    folder, stem, values, modality, description, *, uid, step = 2.5,
    first = FIRST, slope = 1, intercept = 0, downward = False,
):  # fmt: skip
    """An axial series; downward: file and instance numbers run from the head to the feet."""
    for k, plane in enumerate(values):
        number = len(values) - k if downward else k + 1
        header = image(
            ((plane - intercept) // slope).astype(np.int16),
            SOPClassUID="1.2.840.10008.5.1.4.1.1.2",
            SOPInstanceUID=f"{uid}.{number}",
            SeriesInstanceUID=uid,
            SeriesNumber=3,
            InstanceNumber=number,
            PatientName=PATIENT,
            PatientID=f"{RECORD} {uid.rpartition('.')[0]}",
            Modality=modality,
            SeriesDescription=description,
            ProtocolName=f"pelvis {stem}",
            ImageType=["ORIGINAL", "PRIMARY", "AXIAL" if modality == "CT" else "M"],
            PixelSpacing=[0.875, 0.875],
            SliceThickness=step,
            ImagePositionPatient=[*first[:2], first[2] + step * k],
            RescaleSlope=slope,
            RescaleIntercept=intercept,
        )
        save(header, folder / f"{stem}.{number}.dcm")


def write_contours(folder):
    header = item(
        SOPClassUID="1.2.840.10008.5.1.4.1.1.481.3",
        SOPInstanceUID="1.2.9.9",
        Modality="RTSTRUCT",
        SeriesDescription="T2 CTtoMR contours",
        SeriesInstanceUID="1.2.9",
        PatientName=PATIENT,
    )
    save(header, folder / "RS.1.dcm")


def write_patient(folder, number, downward):
    """One flat folder as in the Gold Atlas; every series has the same number, as those of several studies may have."""
    uid = f"1.2.{number}"
    elsewhere = {"step": 3.0, "first": (0, 0, 90.0)}
    deformed = {"slope": 2, "intercept": -1024, "downward": downward}
    for stem, values, modality, description, key, how in (
        ("MRT2", t2_values(), "MR", DESCRIPTIONS["t2"], 2, {}),
        ("MRT1", t2_values()[:2], "MR", DESCRIPTIONS["t1"], 1, elsewhere),
        ("CT", ct_values() + 8, "CT", "RT p+ Buk 3.0 B30f", 3, elsewhere),
        ("CTdef", ct_values(), "CT", DESCRIPTIONS["ct"], 4, deformed),
    ):
        write_series(folder, stem, values, modality, description, uid=f"{uid}.{key}", **how)
    write_contours(folder)


@pytest.fixture(scope="module")
def written_once(tmp_path_factory):
    root = tmp_path_factory.mktemp("written") / "GOLD"
    for number, name in enumerate(("1_01_P", "2_03_P", "3_04_P"), start=1):
        write_patient(root / name, number, downward=name.startswith("2"))
    return root


@pytest.fixture
def gold(written_once, tmp_path):
    """Three patients, one of each site; the deformed CT of the second runs the other way than its T2."""
    return Path(shutil.copytree(written_once, tmp_path / "GOLD"))


def write_preset(path, text):
    path.write_text(f'title = "ours"\nsource = "us"\n{text}')
    return path


def everything_in(folder):
    return b"".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


def test_the_preset_takes_t2_and_the_ct_deformed_onto_it(voxlate, gold):
    cases = find_cohort(gold, preset="gold_atlas").cases
    names = ["1_01_P", "2_03_P", "3_04_P"]
    assert [one.case for one in cases] == [one.patient for one in cases] == names
    assert {one.split for one in cases} == {None}
    (alone,) = find_cohort(gold / names[1], preset="gold_atlas").cases
    assert (alone.case, alone.files) == (names[1], cases[1].files)
    voxlate(
        "manifest",
        gold / names[1],
        "--preset",
        "gold_atlas",
        "--out",
        gold / names[1] / "cases.csv",
    ).done()
    assert find_cohort(gold / names[1]).cases[0].files.keys() == alone.files.keys()
    for case in cases[:2]:
        described = {one.path: one.description for one in list_series(gold / case.case)}
        assert len(described) == 4  # contours are no images
        for name in ("t2", "ct"):
            assert described[case.files[name]] == DESCRIPTIONS[name]


def traces_of_patients(content):
    """What of a patient's name, number or record is in a text."""
    text = content if isinstance(content, bytes) else content.encode()
    words = (PATIENT, "Bertil", RECORD, "1.2.1.2", "1.2.2.4")
    return [word for word in words if word.encode() in text]


def test_prepare_reads_a_cohort_of_mixed_folders_and_tells_nothing_of_their_patients(
    voxlate, gold, tmp_path
):
    out = tmp_path / "prepared"
    answer = voxlate(
        "prepare", gold, "--preset", "gold_atlas", "--out", out, "--json", "--no-audit"
    )
    assert answer.code == 3, answer.err  # the three patients have the same voxels
    assert json.loads(answer.out)["modalities"] == ["ct", "t2"]
    cohort = open_cohort(out)
    assert cohort.units == {"ct": "HU", "t2": "a.u."}
    for entry in cohort.cases:
        for name, values in (("t2", t2_values()), ("ct", ct_values())):
            # canonical: H to Anterior, W to Right, so both axes of an axial slice turn round
            shown = cohort.case(entry.case).volume(name).data[0, :, ::-1, ::-1]
            np.testing.assert_array_equal(shown, values)
        assert cohort.header(entry.case).origins["t2"].file.startswith(f"{entry.case}#")
    assert len(traces_of_patients((gold / "2_03_P/CTdef.1.dcm").read_bytes())) == 4
    assert traces_of_patients(everything_in(out)) == []
    assert traces_of_patients(answer.out + answer.err) == []


def test_the_hash_of_a_series_goes_by_its_own_files_and_their_pixels(gold):
    folder = gold / "1_01_P"
    (t2,) = [one.path for one in list_series(folder) if one.description == DESCRIPTIONS["t2"]]
    first = content_hash(t2)
    (folder / "MRT1.1.dcm").unlink()
    assert content_hash(t2) == first
    write_series(folder, "MRT2", t2_values() + 1, "MR", DESCRIPTIONS["t2"], uid="1.2.1.2")
    assert content_hash(t2) != first


def second_t2(folder):
    write_series(folder, "again", t2_values(), "MR", "Ax t2 again", uid="1.2.77")


def other_origin(folder):
    first = (FIRST[0] + 0.4, *FIRST[1:])
    write_series(folder, "MRT2", t2_values(), "MR", DESCRIPTIONS["t2"], uid="1.2.1.2", first=first)


def damaged(folder):
    file = folder / "MRT2.3.dcm"
    file.write_bytes(file.read_bytes()[:-20])


@pytest.mark.parametrize(
    ("spoil", "code", "words"),
    [
        (second_t2, 2, "one t2 of case 1_01_P, found also MR"),
        (other_origin, 3, "first voxel 0.40 mm away"),
        (damaged, 3, "MRT2.3.dcm: expected 20×16 whole pixels"),
    ],
)
def test_what_is_wrong_with_a_mixed_folder_is_one_sentence(
    voxlate, gold, tmp_path, spoil, code, words
):
    spoil(gold / "1_01_P")
    out = tmp_path / "out"
    answer = voxlate("prepare", gold, "--preset", "gold_atlas", "--out", out, "--no-audit")
    assert answer.code == code
    assert words in answer.err
    assert traces_of_patients(answer.err) == []
    assert (out / "cohort.json").exists() == (code == 3)


@every_row(
    "text, words",
    [
        ('[series.t2]\nmodality = "US"', "found 3 of another form"),
        ('[series.t2]\ndescription = "T2("', "series.t2.description"),
        ('[series.t2]\ndescripton = "T2"', "'series.t2.description'"),
        ("[series.t2]\nmodality = 3", "expected 'series.t2.modality' to"),
    ],
)
def test_a_preset_that_chooses_no_series_gets_one_sentence(gold, tmp_path, text, words):
    preset = write_preset(tmp_path / "ours.toml", f'patterns = ["{{case}}"]\n{text}\n')
    with refuses(words):
        find_cohort(gold, preset=preset)


def test_a_folder_whose_own_name_ends_like_a_key_is_itself(tmp_path):
    folder = tmp_path / "p" / "x#00000000"
    write_series(folder.with_name("x"), "a", t2_values(), "MR", "t2", uid="1.2")
    write_series(folder, "a", t2_values()[:2], "MR", "t2", uid="1.3")
    assert read_volume(folder).data.shape[1] == 2


RECIPE = """
title = "tiny"
data = { source = ["t2"], target = ["ct"], patch = [1, 16, 16] }
intensity = { t2 = { kind = "window", low = 0, high = 600 }, ct = { kind = "window", low = -1000, high = 200 } }
method = { kind = "regression" }
net = { kind = "unet", width = 8, multipliers = [1, 2], blocks = 1, groups = 4, middle_attention = false }
train = { steps = 2, batch = 2, precision = "float32", workers = 0, validate_every = 2, log_every = 1 }
"""


@slow
def test_synth_and_evaluate_read_the_same_series(voxlate, gold, tmp_path):
    recipe, prepared, run = (tmp_path / name for name in ("tiny.toml", "prepared", "run"))
    recipe.write_text(RECIPE)
    prepare(gold, prepared, preset="gold_atlas", workers=1, audit=False)
    train(read(str(recipe)), prepared, run, device="cpu")
    out, ours = tmp_path / "out", ("--preset", "gold_atlas")
    assert voxlate("synth", run, gold, *ours, "--out", out).code == 0
    t2 = find_cohort(gold, preset="gold_atlas").cases[1].files["t2"]
    image = read_volume(out / "2_03_P/ct.nii.gz")
    assert image.grid == read_volume(t2).grid
    assert read_json(out / "2_03_P/provenance.json")["inputs"]["t2"] == {
        "path": f"../../GOLD/{t2.name}",
        "sha256": content_hash(t2),
    }

    for name, scans in (("series", t2), ("study", gold / "2_03_P")):
        voxlate("synth", run, scans, "--out", tmp_path / name).done()
        again = read_volume(tmp_path / name / "2_03_P/ct.nii.gz")
        np.testing.assert_array_equal(again.data, image.data)
    voxlate("evaluate", out, "--truth", gold, *ours).done()
    scores = read_json(out / "metrics.json")
    assert scores["source_files"]["2_03_P"] == {"t2": f"../GOLD/{t2.name}"}
    # which reads the source again
    assert "2_03_P,2_03_P,ct,intensity table" in (out / "scores.csv").read_text()
    assert traces_of_patients(everything_in(out) + everything_in(run)) == []


DOCUMENT = (Path(__file__).parents[2] / "docs/guides" / "dicom.md").read_text()


def test_the_documented_file_chooses_series_by_their_tags(tmp_path):
    root, layout = tmp_path / "dicom", tmp_path / "series.toml"
    for number in (1, 2):
        folder = root / f"patient0{number}"
        write_series(folder, "b", t2_values(), "MR", "Ax t2 tse", uid=f"1.2.{number}.1")
        write_series(folder, "c", ct_values(), "CT", "Head", uid=f"1.2.{number}.2")
    documented = DOCUMENT.split("```toml\n")[1].split("```")[0]
    layout.write_text(f'{documented}protocol = "^pelvis c"\n')
    expected = ["=/patient01 ct+t2", "=/patient02 ct+t2"]
    assert table(root, preset=layout) == table(root) == expected


PERSONS = [  # PatientID and name of three folders, and which are of one patient
    (("7", "A^B"), ("7", ""), ("8", "C^D"), "aac"),
    (("", "TEST^CASE"), ("", "Test^Case^^^"), ("", "X^Y"), "aac"),
    (("ANON", "Anonymous"), ("ANON", "Anonymous"), ("8", "X^Y"), "abc"),
    (("7", "A^B"), ("7", "A^B"), ("7", "A^B"), ""),  # all, as anonymised ones: asked
]


@every_row(("first", "second", "third", "expected"), PERSONS)
def test_two_folders_of_one_person_are_one_patient(tmp_path, first, second, third, expected):
    for folder, (number, name) in zip("abc", (first, second, third)):
        tags = {"PatientID": number, "PatientName": name}
        save(image(np.zeros((4, 4), np.int16), **tags), tmp_path / folder / "ct/1.dcm")
    found = find_cohort(tmp_path)
    assert "".join(case.patient for case in found.cases) == expected
    assert bool(found.questions) == (expected == "")
    shown = " ".join(found.guessed).upper()
    assert not any(name and name.upper() in shown for _, name in (first, second, third))


# Series: folder, PatientID, number of the study, modality -> patient/case and scans, as in layouts.txt.
TREES = """
DICOM/ST0/S0|A|1|CT DICOM/ST0/S1|A|1|MR DICOM/ST1/S0|B|2|CT DICOM/ST1/S1|B|2|MR -> =/ST0 ct+t1, =/ST1 ct+t1
0/1/1|A|1|CT 0/1/2|A|1|MR 0/1/3|B|2|CT 0/1/4|B|2|MR -> =/1_1 ct+t1, =/1_2 ct+t1
S1|A|1|CT S2|A|1|MR S3|B|2|CT S4|B|2|MR -> =/x_1 ct+t1, =/x_2 ct+t1
IMAGES|A|1|CT IMAGES|A|1|MR IMAGES|B|2|CT IMAGES|B|2|MR -> =/IMAGES_1 ct+t1, =/IMAGES_2 ct+t1
.|A|1|CT .|A|1|MR .|B|2|CT .|B|2|MR -> =/x_1 ct+t1, =/x_2 ct+t1
pat0/1|A|1|CT pat0/2|A|1|MR pat1/3|B|2|CT pat1/4|B|2|MR -> =/pat0 ct+t1, =/pat1 ct+t1
.|A|1|MR .|A|2|MR .|B|3|MR -> =/x_1 t1, x_1/x_2 t1, =/x_3 t1
P-0/1.2/9|A|1|CT P-0/1.2/8|A|1|MR P-1/1.3/9|B|2|CT P-1/1.3/8|B|2|MR -> =/P-0 ct+t1, =/P-1 ct+t1
P-0/1.2/9|A|1|CT P-0/1.3/8|A|2|MR P-1/1.4/9|B|3|CT P-1/1.5/8|B|4|MR -> =/P-0 ct+t1, =/P-1 ct+t1
H1/d1/c|A|1|CT H1/d1/m|A|1|MR H1/d2/c|A|2|CT H1/d2/m|A|2|MR H2/d3/c|B|3|CT H2/d3/m|B|3|MR -> H1/H1_d1 ct+t1, H1/H1_d2 ct+t1, H2/H2_d3 ct+t1
H1/d1/m|A|1|MR H1/d2/m|B|2|MR H2/d3/m|C|3|MR -> /H1_d1 t1, /H1_d2 t1, /H2_d3 t1
"""


@every_row("line", TREES.strip().splitlines())
def test_series_are_of_the_persons_of_their_tags_whatever_tree_holds_them(
    tmp_path, line, monkeypatch
):
    words, expected = line.split(" -> ")
    for number, word in enumerate(words.split()):
        folder, person, study, modality = word.split("|")
        tags = {"PatientID": person, "StudyInstanceUID": f"1.{study}", "Modality": modality}
        tags |= {"SeriesInstanceUID": f"1.9.{number}", "SeriesDescription": "T1"}
        save(image(np.zeros((4, 4), np.int16), **tags), tmp_path / "x" / folder / f"{number}.dcm")
    monkeypatch.chdir(tmp_path)
    assert ", ".join(table("x")) == expected
    assert all(is_there(path) for case in find_cohort("x").cases for path in case.files.values())


@every_row("folders", ["p{}/{}/s", "{1}/{0}/s"])
def test_scans_of_several_persons_in_one_case_are_a_doubt(tmp_path, folders):
    for person, (number, kind) in enumerate((n, kind) for n in (1, 2) for kind in ("MR", "CT")):
        tags = {"PatientID": f"A{person}", "Modality": kind, "SeriesInstanceUID": f"1.{person}"}
        place = tmp_path / folders.format(number, kind) / "1.dcm"
        save(image(np.zeros((4, 4), np.int16), **tags), place)
    for options in ({}, {"patients": "each"}):
        found = find_cohort(tmp_path, **options)
        assert [sorted(case.files) for case in found.cases] == [["ct", "mr"]] * 2
        assert len(found.unread) == 1


def test_two_series_of_one_modality_in_the_folders_of_a_patient_are_asked_about(tmp_path):
    for number, modality in enumerate(("MR", "MR", "CT")):
        series = image(np.zeros((4, 4), np.int16), Modality=modality, SeriesDescription="T1")
        save(series, tmp_path / "p1" / f"s{number}" / "1.dcm")
    with refuses("expected one t1 of case p1"):
        find_cohort(tmp_path)


def test_an_exported_series_is_no_scan_to_learn_from(tmp_path):
    title = "SYNTHETIC CT - NOT FOR DIAGNOSIS"
    save(image(np.zeros((4, 4), np.int16), SeriesDescription=title), tmp_path / "a/ct" / "1.dcm")
    with refuses():
        prepare(tmp_path, tmp_path / "out")
