"""A derived series has the places, the patient and the study of its source, and states that it is synthetic."""

import numpy as np
import pydicom
import pytest

from rows import every_row
from voxlate.data.derived_series import write_series
from voxlate.errors import BadInput
from voxlate.images.grid import Volume, canonical, same_grid
from voxlate.images.io import read_volume

MADE = {"model": {"title": "tiny", "weights": "0123"}, "warnings": ["Do not trust the image."]}
AXES = [
    [1, 0, 0, 0, 1, 0],
    [-1, 0, 0, 0, 1, 0],
    [0, 1, 0, 0, 0, -1],
    [1, 0, 0, 0, 0, -1],
    [0.8, 0.6, 0, -0.6, 0.8, 0],
]


@pytest.fixture
def turned(datasets, tmp_path_factory):
    """turned(axes): the series on other axes, with pixels that are not square, its files in another order."""

    def turn(axes):
        folder = tmp_path_factory.mktemp("turned")
        normal = np.cross(axes[:3], axes[3:])
        for number, dataset in enumerate(datasets):
            dataset.ImageOrientationPatient = axes
            dataset.PixelSpacing = [2, 1.5]
            dataset.ImagePositionPatient = [*(np.array([5, -7, 11]) + 3 * number * normal).round(6)]
            dataset.save_as(folder / f"{5 - number}.dcm", enforce_file_format=True)
        return folder

    return turn


@every_row("axes", AXES)
@every_row("unit", ["HU", "a.u."])
def test_values_and_places_come_back_on_any_axes(turned, tmp_path_factory, axes, unit):
    like, out = turned(axes), tmp_path_factory.mktemp("out")
    source = read_volume(like)
    data = np.random.default_rng(0).integers(-1000, 3000, source.data.shape).astype(np.float32)
    name = "ct" if unit == "HU" else "t2"
    volume = canonical(Volume(data, source.affine, unit, name))
    files = write_series(volume, name, like, out, MADE)
    assert len(files) == 6
    back = read_volume(out, name)
    assert same_grid(back.grid, source.grid, 1e-3)
    np.testing.assert_allclose(back.data, data, atol=0 if unit == "HU" else 3000 / 32767)
    assert back.unit == unit


def test_a_derived_slice_belongs_to_the_study_and_states_what_it_is(series, datasets, tmp_path):
    source = read_volume(series)
    files = write_series(source, "t2", series, tmp_path / "out", MADE)
    derived = [pydicom.dcmread(file) for file in files]
    for keyword in ("PatientID", "StudyInstanceUID", "FrameOfReferenceUID"):
        assert {one[keyword].value for one in derived} == {datasets[0][keyword].value}
    assert not {one.SOPInstanceUID for one in derived} & {one.SOPInstanceUID for one in datasets}
    (uid,) = {one.SeriesInstanceUID for one in derived}
    assert uid != datasets[0].SeriesInstanceUID
    first = derived[0]
    assert first.ImageType[:2] == ["DERIVED", "SECONDARY"]
    assert first.SeriesDescription == "SYNTHETIC, NOT FOR DIAGNOSIS: t2"
    assert first.ImageComments == "Do not trust the image."
    assert "model tiny, weights 0123" in first.DerivationDescription
    sources = {one.SourceImageSequence[0].ReferencedSOPInstanceUID for one in derived}
    assert sources == {one.SOPInstanceUID for one in datasets}
    again = write_series(source, "t2", series, tmp_path / "again", MADE)
    assert [one.name for one in again] == [one.name for one in files]


def test_long_numbers_of_a_source_become_valid_decimal_strings(datasets, tmp_path):
    (tmp_path / "long").mkdir()
    for number, dataset in enumerate(datasets):
        dataset["PixelSpacing"].value = [pydicom.valuerep.DSfloat("0.66666668653488215")] * 2
        dataset.save_as(tmp_path / "long" / f"{number}.dcm", enforce_file_format=True)
    source = read_volume(tmp_path / "long")
    (file, *_) = write_series(source, "t2", tmp_path / "long", tmp_path / "out", MADE)
    assert [str(one) for one in pydicom.dcmread(file).PixelSpacing] == ["0.66666668653488"] * 2
    assert same_grid(read_volume(tmp_path / "out").grid, source.grid, 1e-3)


def test_what_does_not_fit_the_series_is_refused(series, tmp_path):
    source = read_volume(series)
    moved = source.affine.copy()
    moved[0, 3] += 1.0
    wrong = {
        "whose slices are those of the image": Volume(source.data, moved, "a.u.", "t2"),
        "expected values between": Volume(source.data * 1000, source.affine, "HU", "ct"),
        "found the unit s": Volume(source.data, source.affine, "s", "tmax"),
    }
    for sentence, volume in wrong.items():
        with pytest.raises(BadInput, match=sentence):
            write_series(volume, volume.modality, series, tmp_path / "out", MADE)
