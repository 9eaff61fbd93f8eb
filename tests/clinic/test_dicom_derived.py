"""Derived DICOM series, enhanced objects and maps: every voxel and every place as in the source."""

import itertools

import numpy as np
import pytest
import SimpleITK

from dciodvfy import TOOL, errors_in, needs_dciodvfy
from refusals import refuses
from rows import every_row, slow
from voxlate.scans.formats.io import read_volume
from voxlate.scans.images.grid import LPS_TO_RAS

pydicom = pytest.importorskip("pydicom")
pytest.importorskip("highdicom")
from derived_objects import (  # noqa: E402 - needs pydicom
    ORDERS,
    ORIGIN,
    SHAPE,
    WRITE,
    frames_of,
    headers,
    numbered,
    reordered,
    write_source,
)

from dicom_slices import change  # noqa: E402 - needs pydicom

write_derived, write_enhanced = WRITE["series"], WRITE["enhanced"]


def assert_valid(files):
    assert TOOL is None or errors_in(files[0]) == []


@every_row("kind", WRITE)
@every_row("order, flips, angle", [(*ORDERS[0], 0.0), (*ORDERS[13], 0.31), (*ORDERS[42], -0.7)])
def test_any_order_of_axes_gives_the_voxels_and_places_of_the_source(
    tmp_path, kind, order, flips, angle
):
    volume = numbered(write_source(tmp_path / "mr", angle))
    WRITE[kind](reordered(volume, order, flips), tmp_path / "mr", tmp_path / "out", ORIGIN)
    back = read_volume(tmp_path / "out", "cbf" if kind == "map" else "")
    assert np.array_equal(back.data, volume.data)
    assert np.allclose(back.affine, volume.affine, atol=1e-3)
    assert back.unit == ("ml/100g/min" if kind == "map" else "HU")


@slow
@every_row("tilt", [0.0, 0.2])
@every_row("angle", [0.0, 0.31, -0.7])
@every_row("kind", WRITE)
@pytest.mark.parametrize(("order", "flips"), ORDERS)
def test_all_48_orders_oblique_and_tilted(tmp_path, order, flips, angle, tilt, kind):
    plain = numbered(write_source(tmp_path / "mr", angle, tilt))
    volume = reordered(plain, order, flips)
    files = WRITE[kind](volume, tmp_path / "mr", tmp_path / "out", ORIGIN)
    made = headers(files)
    pixels = [
        one.pixel_array if kind != "map" else np.frombuffer(one.FloatPixelData, "<f4")
        for one in made
    ]
    to_index = np.linalg.inv(LPS_TO_RAS @ plain.affine)
    levels = {}
    arrays = np.concatenate([one.reshape(-1, *SHAPE[1:]) for one in pixels])
    for (place, _), array in zip(frames_of(made), arrays, strict=True):
        x, y, z, _ = to_index @ (*place, 1)
        assert np.abs((x, y, z - round(z))).max() < 1e-3
        levels[round(z)] = array
    assert np.array_equal([levels[level] for level in range(SHAPE[0])], plain.data[0])
    assert_valid(files)


@needs_dciodvfy
@every_row("kind, unit, part", [*itertools.product(["series", "enhanced"], ["HU", "a.u."], ["", "HEAD"]),
                                ("enhanced", "HU", "KNEE")])  # fmt: skip
def test_the_standard_s_checker_finds_no_error(tmp_path, kind, unit, part):
    volume = numbered(write_source(tmp_path / "mr", 0.31), unit=unit)
    change(tmp_path / "mr", BodyPartExamined=part)
    assert_valid(WRITE[kind](volume, tmp_path / "mr", tmp_path / "out", ORIGIN))


def test_the_image_type_names_the_plane_of_slices_that_are_not_axial(tmp_path):
    own = write_source(tmp_path / "axial")
    coronal = write_source(tmp_path / "coronal", angle=1.5)
    sagittal = np.array([[0, 0, 3, 25], [-0.7, 0, 0, -12], [0, -0.9, 0, 46], [0, 0, 0, 1.0]])
    for name, source, affine, unit, wanted in (
        ("own", "axial", own, "HU", ["AXIAL"]),
        ("sagittal", "axial", sagittal, "HU", ["AXIAL", "SAGITTAL"]),
        ("mr", "axial", sagittal, "a.u.", ["OTHER", "SAGITTAL"]),
        ("made", "coronal", coronal, "HU", ["AXIAL", "CORONAL"]),
    ):
        volume = numbered(affine, unit=unit)
        files = write_derived(volume, tmp_path / source, tmp_path / name, ORIGIN)
        assert {tuple(one.ImageType) for one in headers(files)} == {
            ("DERIVED", "SECONDARY", *wanted)
        }
        assert_valid(files)


@pytest.mark.parametrize("kind", ["series", "enhanced"])
def test_simpleitk_reads_the_voxels_where_the_volume_is(tmp_path, kind):
    affine = write_source(tmp_path / "mr", -0.7)
    volume = numbered(affine)
    files = WRITE[kind](volume, tmp_path / "mr", tmp_path / "out", ORIGIN)
    found = SimpleITK.ImageSeriesReader.GetGDCMSeriesFileNames(str(tmp_path / "out"))
    assert len(found) == len(files)
    image = SimpleITK.ReadImage(found if len(found) > 1 else found[0])
    to_index = np.linalg.inv(LPS_TO_RAS @ affine)
    for index in ((0, 0, 0), (4, 5, 3), (2, 1, 2)):
        x_y_z = (to_index @ (*image.TransformIndexToPhysicalPoint(index), 1))[:3]
        nearest = np.rint(x_y_z).astype(int)
        assert np.allclose(x_y_z, nearest, atol=1e-3)
        assert image[index] == volume.data[0][tuple(nearest[::-1])]


def test_a_derived_series_states_its_origin_alone_and_is_kept_where_it_is_written_again(tmp_path):
    affine = write_source(tmp_path / "mr")
    files = write_derived(numbered(affine), tmp_path / "mr", tmp_path / "out", ORIGIN)
    one = headers(files)[0]
    assert "EchoTime" not in one
    assert one.BurnedInAnnotation == "NO"
    assert "weights=0123456789abcdef" in one.private_block(0x0091, "VOXLATE")[0x03].value
    (reference,) = one.SourceImageSequence
    assert reference.PurposeOfReferenceCodeSequence[0].CodeValue == "121322"
    times = [file.stat().st_mtime_ns for file in files]
    assert write_derived(numbered(affine), tmp_path / "mr", tmp_path / "out", ORIGIN) == files
    assert times == [file.stat().st_mtime_ns for file in files]
    with refuses("this very series, found another"):
        write_derived(numbered(affine, unit="a.u."), tmp_path / "mr", tmp_path / "out", ORIGIN)


@pytest.mark.parametrize("kind", WRITE)
def test_an_image_on_another_grid_has_its_own_places_and_names_the_slices_that_it_crosses(
    tmp_path, kind
):
    affine = write_source(tmp_path / "mr", 0.31, tilt=0.2)
    fine = affine.copy()
    fine[:3, 2] /= 2
    volume = numbered(fine, (7, 6, 5))
    made = headers(WRITE[kind](volume, tmp_path / "mr", tmp_path / "out", ORIGIN))
    expected = [(LPS_TO_RAS @ fine @ (0, 0, level, 1))[:3] for level in range(7)]
    places, references = zip(*frames_of(made))
    assert np.allclose(sorted(map(tuple, places)), sorted(map(tuple, expected)), atol=1e-3)
    assert {len(uids) for uids in references} == {1, 2}
    if kind == "series":
        assert float(made[0].SliceThickness) == pytest.approx(1.5)


@every_row("write", [write_derived, write_enhanced])
@every_row(
    "value, unit, message",
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
    with refuses(message):
        write(volume, tmp_path / "mr", tmp_path / "out", ORIGIN)
    assert not (tmp_path / "out").exists()


def test_values_of_a_source_that_the_standard_forbids_are_rounded_or_left_out(tmp_path):
    affine = write_source(tmp_path / "mr")
    change(tmp_path / "mr", "PatientPosition", PatientAge="42")
    files = write_derived(numbered(affine), tmp_path / "mr", tmp_path / "out", ORIGIN)
    assert "PatientAge" not in headers(files)[0]
    assert_valid(files)
