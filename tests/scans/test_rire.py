"""Images of the RIRE project, and its cohort by its preset: made-up files in the documented format."""

import numpy as np
import pytest

from rows import every_row
from voxlate.base.errors import BadInput
from voxlate.checks.prepare import prepare
from voxlate.scans.cases.prepared import open_cohort
from voxlate.scans.cohorts.find import find_cohort
from voxlate.scans.formats.io import content_hash, read_volume
from voxlate.scans.images.grid import canonical

SHAPE = (4, 6, 5)  # slices, rows, columns
HEADER = """Group length := 65
Modality := MR
Comments := a reminder

Group length := 40
Slice thickness := 4.000000
Comments := T1

Group length := 30
Patient Orientation := L : P : H

Group length := 100
Image dimensions := 3
Rows := 6
Columns := 5
Slices := 4
Pixel size := 1.250000 : 1.250000
Bits allocated := 16
Pixel representation := 1
"""


def write(folder, values=None, header=HEADER):
    folder.mkdir(parents=True, exist_ok=True)
    values = np.arange(-20, 100).reshape(SHAPE) if values is None else values
    (folder / "header.ascii").write_text(header)
    (folder / "image.bin").write_bytes(values.astype(">i2").tobytes())
    return folder / "header.ascii"


def head(seed=0):
    values = np.random.default_rng(seed).integers(300, 500, SHAPE)
    values[:, 0] = values[:, -1] = 0
    return values


def test_voxels_are_signed_big_endian_numbers_slice_by_slice_and_row_by_row(tmp_path):
    volume = read_volume(write(tmp_path), "t1")
    assert np.array_equal(volume.data[0], np.arange(-20, 100).reshape(SHAPE))
    assert (volume.unit, volume.grid.spacing_mm) == ("a.u.", (4, 1.25, 1.25))
    # columns grow to the left, rows to posterior, slices to the head
    assert np.array_equal(volume.affine @ [1, 2, 3, 1], [-1.25, -2.5, 12, 1])
    assert canonical(volume).data[0, 0, -1, -1] == -20, (
        "the first voxel: lowest, most anterior, at the right"
    )


def test_another_orientation_is_obeyed_and_one_that_is_missing_is_guessed_and_said(tmp_path):
    path = write(tmp_path, header=HEADER.replace("L : P : H", "R:P:F"))
    assert np.array_equal(read_volume(path).affine @ [1, 2, 3, 1], [1.25, -2.5, -12, 1])
    stated, bare = HEADER, HEADER.replace("Patient Orientation := L : P : H\n", "")
    guesses = [read_volume(write(tmp_path, header=text)).guesses for text in (stated, bare)]
    assert [any("no Patient Orientation" in one for one in several) for several in guesses] == [
        False,
        True,
    ]
    assert all("no position" in several[0] for several in guesses)


def test_pixels_that_are_not_square_are_taken_as_rows_first_and_that_is_said(tmp_path):
    volume = read_volume(write(tmp_path, header=HEADER.replace("1.250000 : 1.250000", "2.0 : 1.0")))
    assert volume.grid.spacing_mm == (4, 2, 1)
    assert any("the distance of rows" in one for one in volume.guesses)


@every_row(
    ("old", "new", "said"),
    [
        ("Slices := 4\n", "", "found no Slices"),
        ("Rows := 6", "Rows := six", "found 'six'"),
        ("Columns := 5", "Columns := 0", "Columns := a whole number above 0"),
        ("Pixel size := 1.250000 : 1.250000", "Pixel size := 1.25", "two numbers of mm"),
        (
            "Slices := 4",
            "Slices := 5",
            "expected 300 bytes for 5×6×5 voxels of 16 bit, as header.ascii says, found 240",
        ),
        ("L : P : H", "L : R : H", "found 'L : R : H'"),
        ("Bits allocated := 16", "Bits allocated := 8", "found 8"),
    ],
)
def test_a_header_that_is_wrong_is_refused_in_one_sentence(tmp_path, old, new, said):
    with pytest.raises(BadInput, match="expected") as error:
        read_volume(write(tmp_path, header=HEADER.replace(old, new)))
    assert said in str(error.value)
    assert "header.ascii" in str(error.value)


def test_a_cut_image_and_a_compressed_one_are_refused(tmp_path):
    path = write(tmp_path)
    (tmp_path / "image.bin").write_bytes((tmp_path / "image.bin").read_bytes()[:-3])
    with pytest.raises(BadInput, match=r"expected 240 bytes .*, found 237. Get the file again"):
        read_volume(path)
    (tmp_path / "image.bin").rename(tmp_path / "image.bin.Z")
    with pytest.raises(BadInput, match=r"found only image.bin.Z. Decompress it: gunzip "):
        read_volume(path)


def test_other_voxels_are_another_content(tmp_path):
    path = write(tmp_path)
    before = content_hash(path)
    write(tmp_path, np.zeros(SHAPE))
    assert content_hash(path) != before


def cohort(root):
    for number, patient in enumerate(("patient_001", "patient_002", "patient_103", "training_001")):
        write(root / patient / "mr_T1", head(number))
        write(root / patient / "ct", head(number))
        if patient != "patient_103":
            write(root / patient / "mr_T2", head(number) // 2)
    write(root / "patient_001" / "mr_T1_rectified", head(9))
    write(root / "patient_001" / "mr_T2_rectified", head(9))
    return root


def test_the_preset_pairs_scans_by_patient_and_leaves_out_and_says_who_lacks_one(tmp_path):
    found = find_cohort(cohort(tmp_path), preset="rire", modalities=["t1", "t2"])
    assert [one.case for one in found.cases] == ["patient_001", "patient_002"]
    assert found.cases[0].files["t1"] == tmp_path / "patient_001" / "mr_T1" / "header.ascii"
    assert found.unclaimed == [
        "training_001 (RIRE's example, none of the 17 pairs of paper 004; a manifest takes it)",
        "1 of 3 cases that lack a modality which is asked for (patient_103 has no t2)",
    ]
    assert "patient_103" in [one.case for one in find_cohort(tmp_path, preset="rire").cases], (
        "its T1 can be used"
    )


def test_what_the_preset_leaves_out_is_taken_from_a_manifest_and_where_nothing_else_is_there(
    tmp_path,
):
    cohort(tmp_path)
    (tmp_path / "list.csv").write_text("case,t1\nx,training_001/mr_T1/header.ascii\n")
    named = find_cohort(tmp_path, preset="rire", manifest=tmp_path / "list.csv")
    assert [one.case for one in named.cases] == ["x"]
    write(tmp_path / "alone" / "training_001" / "mr_T1", head(1))
    assert [one.case for one in find_cohort(tmp_path / "alone", preset="rire").cases] == [
        "training_001"
    ]


def test_rectified_scans_are_a_preset_of_their_own(tmp_path):
    (case,) = find_cohort(cohort(tmp_path), preset="rire_rectified", modalities=["t1", "t2"]).cases
    assert case.files["t2"] == tmp_path / "patient_001" / "mr_T2_rectified" / "header.ascii"


def test_copies_in_metaimage_are_found_in_folders_and_next_to_each_other(tmp_path):
    for name in (
        "patient_001/mr_T1/patient_001_mr_T1.mhd",
        "patient_001/mr_T2/x.mha",
        "patient_002_mr_T1.mha",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = {one.case: sorted(one.files) for one in find_cohort(tmp_path, preset="rire").cases}
    assert found == {"patient_001": ["t1", "t2"], "patient_002": ["t1"]}


def test_a_rire_cohort_is_prepared_and_its_guesses_are_said(tmp_path):
    ready = prepare(
        cohort(tmp_path / "RIRE"),
        tmp_path / "out",
        preset="rire",
        modalities=["t1", "t2"],
        workers=1,
    )
    assert len(ready.cases) == 2
    assert any("training_001 (RIRE's example" in one.text for one in ready.warnings)
    assert any("patient_103 has no t2" in one.text for one in ready.warnings)
    assert any("no position" in one.text for one in ready.warnings)
    header = open_cohort(tmp_path / "out").header("patient_001")
    assert header.shape == SHAPE
    assert header.spacing_mm == (4, 1.25, 1.25)
