"""What folders and names state where no option does: each cohort is a table of paths with what they are read as."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_layouts import lay_out

import voxlate
from refusals import refuses
from rows import every_row
from voxlate.scans.cohorts.find import find_cohort
from voxlate.scans.formats.io import read_volume, write_volume
from voxlate.scans.images.grid import Volume


def test_the_manifest_of_a_folder_may_be_corrected(tmp_path):
    lay_out(tmp_path, "siteA/{a,b}/{t1,mask}.nii.gz siteB/a/ses-1/t1.nii.gz c/t1.nii.gz")
    found = voxlate.manifest(tmp_path)
    with refuses("line [23]"):
        find_cohort(tmp_path)
    table = tmp_path / "cases.csv"
    table.write_text(table.read_text().replace("\n,", "\np,"))
    again = find_cohort(tmp_path)
    assert [one.paths for one in again.cases] == [one.paths for one in found.cases]
    assert {one.patient for one in again.cases} == {"c", "p"}
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


def test_the_halves_of_pictures_side_by_side_are_two_modalities(tmp_path):
    values = np.arange(128, dtype=np.uint8).reshape(8, 16)
    root = lay_out(tmp_path, "train/{1,2}.png val/3.png")
    for path in root.rglob("*.png"):
        Image.fromarray(values).save(path)
    cases = find_cohort(root).cases
    assert [case.split for case in cases] == ["train", "train", "val"]
    for name, half in (("a", values[:, :8]), ("b", values[:, 8:])):
        np.testing.assert_array_equal(read_volume(cases[2].files[name]).data[0, 0], half)
    Image.fromarray(values[:, 1:]).save(root / "train/2.png")
    with refuses():
        read_volume(cases[1].files["a"])
    Image.fromarray(values[:, 1:]).save(root / "train/1.png")
    with refuses():
        find_cohort(root)


def write(path: Path, values: np.ndarray, description: str = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_volume(path, Volume(np.float32(values)[None], np.eye(4), "a.u.", "x"), description)


@every_row(
    "labels, name",
    [(lambda x: x % 3, "seg"), (lambda x: x - 1000.0, "ct"), (lambda x: x / 7, "target")],
)
def test_labels_are_a_label_map_or_an_image_by_their_values(tmp_path, labels, name):
    values = np.arange(64.0).reshape(4, 4, 4)
    for case in ("Tr/a", "Tr/b", "Tr/c", "Ts/d"):
        for channel in (0, 1):
            write(tmp_path / f"images{case}_{channel:04}.nii.gz", values)
        write(tmp_path / f"labels{case}.nii.gz", labels(values))
        write(tmp_path / "others/labels" / f"{case[-1]}.nii.gz", labels(values))
        write(tmp_path / "others/images" / f"{case[-1]}.nii.gz", values)
    for case in find_cohort(tmp_path / "others", pattern="{modality}/{case}").cases:
        assert {*case.files, *case.labels} == {"images", "labels" if name == "seg" else name}
    shutil.rmtree(tmp_path / "others")
    (tmp_path / "dataset.json").write_text('{"channel_names": {"0": "T1w", "1": "FLAIR"}}')
    cases = find_cohort(tmp_path).cases
    assert all({"t1", "flair", name} == {*case.files, *case.labels} for case in cases)
    assert ("seg" in cases[0].labels) == (name == "seg")
    assert [case.split == "test" for case in cases] == [False, False, False, True]


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
