"""Derived DICOM series: every voxel and every place as in the source, and headers that the standard accepts."""

import itertools

import numpy as np
import pytest
import SimpleITK

from dciodvfy import TOOL, errors_in, needs_dciodvfy
from voxlate.formats.dicom_images import write_derived, write_enhanced
from voxlate.formats.dicom_objects import Quantity, write_map
from voxlate.formats.dicom_series import Origin
from voxlate.formats.io import read_volume
from voxlate.images.grid import LPS_TO_RAS, Volume
from voxlate.system.errors import BadInput

pydicom = pytest.importorskip("pydicom")
from dicom_slices import change, image, save  # noqa: E402 - needs pydicom

ORIGIN = Origin("MR to CT", "0.7.0", (("weights", "0123456789abcdef"), ("seed", "0")))
SHAPE = (4, 6, 5)  # z, y, x
SPACING = (0.7, 0.9, 3.0)  # of columns, rows and slices
ORDERS = [
    (order, flips)
    for order in itertools.permutations(range(3))
    for flips in itertools.product((1, -1), repeat=3)
]


def turned(angle: float) -> np.ndarray:
    """Directions (LPS) of columns, rows and slices, turned around two axes."""
    cosine, sine = np.cos(angle), np.sin(angle)
    about_x = np.array([[1, 0, 0], [0, cosine, -sine], [0, sine, cosine]])
    about_z = np.array([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1]])
    return about_x @ about_z


def write_source(folder, angle=0.0, modality="MR", shape=SHAPE, tilt=0.0):
    """An oblique series with pixels that are not square; files in another order than slices. Returns its affine (RAS)."""
    folder.mkdir()
    directions = turned(angle)
    lps = np.eye(4)
    lps[:3, :3] = directions * SPACING
    lps[:3, 2] += np.tan(tilt) * SPACING[2] * directions[:, 1]
    lps[:3, 3] = (-31.25, 12.5, 40.0)
    study, series, frame = (pydicom.uid.generate_uid() for _ in range(3))
    for level in range(shape[0]):
        place = lps[:3, 3] + level * lps[:3, 2]
        slice_ = image(
            np.zeros(shape[1:], np.int16),
            StudyInstanceUID=study,
            SeriesInstanceUID=series,
            FrameOfReferenceUID=frame,
            Modality=modality,
            SeriesNumber=3,
            InstanceNumber=level + 1,
            PatientName="Nobody^Test",
            PatientID="ID7",
            StudyID="1",
            PatientPosition="HFS",
            AccessionNumber="A1",
            EchoTime=90,
            ImageOrientationPatient=[f"{v:.12g}"[:16] for v in directions[:, :2].T.ravel()],
            ImagePositionPatient=[f"{v:.10g}" for v in place],
            PixelSpacing=[str(SPACING[1]), str(SPACING[0])],
            SliceThickness=str(SPACING[2]),
            RescaleSlope=1,
            RescaleIntercept=0,
        )
        save(slice_, folder / f"{(level * 3 + 1) % 7}.dcm")
    return LPS_TO_RAS @ lps


def numbered(affine, shape=SHAPE, unit="HU") -> Volume:
    data = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    return Volume((data - (40 if unit == "HU" else 0))[None], affine, unit, "ct")


def reordered(volume: Volume, order, flips) -> Volume:
    """The same image with its array in another order of axes."""
    data, affine = np.transpose(volume.data[0]), volume.affine.copy()
    for axis, flip in enumerate(flips):
        if flip < 0:
            affine[:3, 3] += affine[:3, axis] * (data.shape[axis] - 1)
            affine[:3, axis] *= -1
            data = np.flip(data, axis)
    data, affine = np.transpose(data, order), affine[:, [*order, 3]]
    return Volume(np.ascontiguousarray(np.transpose(data))[None], affine, volume.unit, "ct")


def headers(files):
    return [pydicom.dcmread(file) for file in files]


def assert_series_is_of(files, source_folder, volume):
    """Each slice has exactly the place of a source slice, and the voxels of the volume."""
    places = {
        tuple(map(float, one.ImagePositionPatient)) for one in headers(source_folder.glob("*.dcm"))
    }
    made = headers(files)
    assert {tuple(map(float, one.ImagePositionPatient)) for one in made} == places
    truth = {
        tuple(np.round(volume.affine[:3] @ (x, y, z, 1), 2)): volume.data[0, z, y, x]
        for z, y, x in np.ndindex(*volume.data.shape[1:])
    }
    back = read_volume(files[0].parent)
    assert back.unit == volume.unit
    for z, y, x in np.ndindex(*back.data.shape[1:]):
        place = tuple(np.round(back.affine[:3] @ (x, y, z, 1), 2) + 0.0)
        assert truth[place] == back.data[0, z, y, x]


@pytest.mark.parametrize("angle", [0.0, 0.31])
@pytest.mark.parametrize(("order", "flips"), ORDERS[::7])
def test_any_order_of_axes_gives_the_voxels_and_places_of_the_source(tmp_path, order, flips, angle):
    affine = write_source(tmp_path / "mr", angle)
    volume = reordered(numbered(affine), order, flips)
    files = write_derived(volume, tmp_path / "mr", tmp_path / "out", ORIGIN)
    assert_series_is_of(files, tmp_path / "mr", numbered(affine))


@pytest.mark.slow
@pytest.mark.parametrize("tilt", [0.0, 0.2])
@pytest.mark.parametrize("angle", [0.0, 0.31, -0.7])
@pytest.mark.parametrize("kind", ["classic", "enhanced", "map"])
@pytest.mark.parametrize(("order", "flips"), ORDERS)
def test_all_48_orders_oblique_and_tilted(tmp_path, order, flips, angle, tilt, kind):
    plain = numbered(write_source(tmp_path / "mr", angle, tilt=tilt))
    volume = reordered(plain, order, flips)
    if kind == "map":
        pytest.importorskip("highdicom")
        files = write_map(volume, Quantity("ct", "HU"), tmp_path / "mr", tmp_path / "out", ORIGIN)
    else:
        write = write_derived if kind == "classic" else write_enhanced
        files = write(volume, tmp_path / "mr", tmp_path / "out", ORIGIN)
    levels = {}
    for one in headers(files):
        frames = getattr(one, "PerFrameFunctionalGroupsSequence", None)
        pixels = one.pixel_array if kind != "map" else np.frombuffer(one.FloatPixelData, "<f4")
        for number, array in enumerate(pixels.reshape(-1, *SHAPE[1:])):
            place = frames[number].PlanePositionSequence[0] if frames else one
            x, y, z, _ = np.linalg.inv(LPS_TO_RAS @ plain.affine) @ (*place.ImagePositionPatient, 1)
            assert np.abs((x, y, z - round(z))).max() < 1e-3
            levels[round(z)] = array
    assert np.array_equal([levels[level] for level in range(SHAPE[0])], plain.data[0])
    assert_valid(files)


def assert_valid(files):
    assert TOOL is None or errors_in(files[0]) == []


@needs_dciodvfy
@pytest.mark.parametrize("unit", ["HU", "a.u."])
def test_the_standard_s_checker_finds_no_error(tmp_path, unit):
    affine = write_source(tmp_path / "mr", 0.31)
    files = write_derived(numbered(affine, unit=unit), tmp_path / "mr", tmp_path / "out", ORIGIN)
    assert_valid(files)


def test_the_image_type_names_the_plane_of_slices_that_are_not_axial(tmp_path):
    own = write_source(tmp_path / "axial")
    sagittal = np.array([[0, 0, 3, 25], [-0.7, 0, 0, -12], [0, -0.9, 0, 46], [0, 0, 0, 1.0]])
    for name, affine, unit, wanted in (
        ("own", own, "HU", ["DERIVED", "SECONDARY", "AXIAL"]),
        ("sagittal", sagittal, "HU", ["DERIVED", "SECONDARY", "AXIAL", "SAGITTAL"]),
        ("mr", sagittal, "a.u.", ["DERIVED", "SECONDARY", "OTHER", "SAGITTAL"]),
    ):
        files = write_derived(
            numbered(affine, unit=unit), tmp_path / "axial", tmp_path / name, ORIGIN
        )
        assert {tuple(one.ImageType) for one in headers(files)} == {tuple(wanted)}
        assert_valid(files)
    affine = write_source(tmp_path / "coronal", angle=1.5)
    files = write_derived(numbered(affine), tmp_path / "coronal", tmp_path / "made", ORIGIN)
    assert list(headers(files)[0].ImageType) == ["DERIVED", "SECONDARY", "AXIAL", "CORONAL"]
    assert_valid(files)


def test_simpleitk_reads_the_series_where_the_volume_is(tmp_path):
    affine = write_source(tmp_path / "mr", 0.31)
    files = write_derived(numbered(affine), tmp_path / "mr", tmp_path / "out", ORIGIN)
    found = SimpleITK.ImageSeriesReader.GetGDCMSeriesFileNames(str(tmp_path / "out"))
    image = SimpleITK.ReadImage(found)
    assert len(found) == len(files)
    voxels = SimpleITK.GetArrayFromImage(image)
    for index in ((0, 0, 0), (4, 5, 3), (2, 1, 2)):
        place = LPS_TO_RAS[:3, :3] @ np.array(image.TransformIndexToPhysicalPoint(index))
        x, y, z, _ = np.linalg.inv(affine) @ (*place, 1)
        assert np.allclose((x, y, z), np.rint((x, y, z)), atol=1e-3)
        there = numbered(affine).data[0, round(z), round(y), round(x)]
        assert voxels[index[::-1]] == there


def test_patient_study_and_frame_of_reference_stay_and_series_and_images_are_new(tmp_path):
    affine = write_source(tmp_path / "mr")
    made = headers(write_derived(numbered(affine), tmp_path / "mr", tmp_path / "out", ORIGIN))
    source = headers(sorted((tmp_path / "mr").glob("*.dcm")))
    for name in ("PatientID", "StudyInstanceUID", "FrameOfReferenceUID", "AccessionNumber"):
        assert {str(one[name].value) for one in made} == {str(source[0][name].value)}
    assert len({one.SeriesInstanceUID for one in (*made, source[0])}) == 2
    assert len({one.SOPInstanceUID for one in (*made, *source)}) == 8
    one = made[0]
    assert list(one.ImageType[:2]) == ["DERIVED", "SECONDARY"]
    assert "SYNTHETIC" in one.SeriesDescription
    assert "NOT FOR DIAGNOSIS" in one.SeriesDescription
    assert "EchoTime" not in one  # of an acquisition that it is not
    assert one.BurnedInAnnotation == "NO"
    block = one.private_block(0x0091, "VOXLATE")
    assert "weights=0123456789abcdef" in block[0x03].value
    by_place = {tuple(s.ImagePositionPatient): s.SOPInstanceUID for s in source}
    for slice_ in made:
        (reference,) = slice_.SourceImageSequence
        assert reference.ReferencedSOPInstanceUID == by_place[tuple(slice_.ImagePositionPatient)]
        assert reference.PurposeOfReferenceCodeSequence[0].CodeValue == "121322"


def test_an_image_on_another_grid_has_its_own_places_and_names_the_slices_that_it_crosses(tmp_path):
    affine = write_source(tmp_path / "mr")
    fine = affine.copy()
    fine[:3, 2] /= 2
    volume = numbered(fine, (7, 6, 5))
    made = headers(write_derived(volume, tmp_path / "mr", tmp_path / "out", ORIGIN))
    for level, one in enumerate(made):
        where = LPS_TO_RAS @ fine @ (0, 0, level, 1)
        assert np.allclose(list(map(float, one.ImagePositionPatient)), where[:3], atol=1e-3)
        assert 1 <= len(one.SourceImageSequence) <= 2
    assert float(made[0].SliceThickness) == pytest.approx(1.5)


def test_fractions_of_an_mr_image_keep_twelve_bits(tmp_path):
    affine = write_source(tmp_path / "mr")
    volume = numbered(affine, unit="a.u.")
    volume = Volume(volume.data * np.float32(0.0123), affine, "a.u.", "t2")
    write_derived(volume, tmp_path / "mr", tmp_path / "out", ORIGIN)
    back = read_volume(tmp_path / "out")
    assert np.abs(back.data - volume.data).max() <= volume.data.max() / 4095


def test_the_same_image_and_source_give_the_same_series_which_is_kept(tmp_path):
    affine = write_source(tmp_path / "mr")
    first = write_derived(numbered(affine), tmp_path / "mr", tmp_path / "out", ORIGIN)
    again = write_derived(numbered(affine), tmp_path / "mr", tmp_path / "again", ORIGIN)
    assert [one.SOPInstanceUID for one in headers(first)] == [
        one.SOPInstanceUID for one in headers(again)
    ]
    assert write_derived(numbered(affine), tmp_path / "mr", tmp_path / "out", ORIGIN) == first
    changed = Volume(numbered(affine).data + 1, affine, "HU", "ct")
    with pytest.raises(BadInput, match="this very series, found another"):
        write_derived(changed, tmp_path / "mr", tmp_path / "out", ORIGIN)


@pytest.mark.parametrize("write", [write_derived, write_enhanced])
@pytest.mark.parametrize(
    ("value", "unit", "message"),
    [
        (40_000, "HU", "expected values from -32768 to 32767"),
        (np.nan, "HU", "expected finite values"),
        (1, "s", "found ct in s"),
    ],
)
def test_values_that_no_series_can_hold_are_refused_and_nothing_is_written(
    tmp_path, value, unit, message, write
):
    volume = numbered(write_source(tmp_path / "mr"), unit=unit)
    volume.data[0, 1, 2, 3] = value
    with pytest.raises(BadInput, match=message):
        write(volume, tmp_path / "mr", tmp_path / "out", ORIGIN)
    assert not (tmp_path / "out").exists()


def test_a_contour_drawn_on_the_source_lies_at_the_same_voxels_of_the_derived_series(tmp_path):
    affine = write_source(tmp_path / "mr", 0.31)
    files = write_derived(numbered(affine), tmp_path / "mr", tmp_path / "out", ORIGIN)
    source = {str(one.SOPInstanceUID): one for one in headers((tmp_path / "mr").glob("*.dcm"))}
    for one in headers(files):
        drawn_on = source[one.SourceImageSequence[0].ReferencedSOPInstanceUID]
        for row, column in ((0, 0), (5, 4), (2.5, 1.25)):
            assert np.linalg.norm(_point(one, row, column) - _point(drawn_on, row, column)) < 0.01


def _point(header, row, column):
    """The place of a pixel: PS3.3, equation C.7.6.2.1-1."""
    way = np.array(header.ImageOrientationPatient, float).reshape(2, 3)
    down, across = map(float, header.PixelSpacing)
    return (
        np.array(header.ImagePositionPatient, float)
        + way[0] * column * across
        + way[1] * row * down
    )


def test_values_of_a_source_that_the_standard_forbids_are_rounded_or_left_out(tmp_path):
    affine = write_source(tmp_path / "mr")
    change(tmp_path / "mr", "PatientPosition", PatientAge="42")
    files = write_derived(numbered(affine), tmp_path / "mr", tmp_path / "out", ORIGIN)
    assert "PatientAge" not in headers(files)[0]
    assert_valid(files)
