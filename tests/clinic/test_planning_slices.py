"""`export --dicom --rtstruct`: a CT on transverse slices of square pixels, and its body as contours on them.

Contours are filled by a polygon filler that voxlate does not use.
"""

import numpy as np
import pytest
from scipy import ndimage
from skimage.draw import polygon2mask

import voxlate as package
from dciodvfy import TOOL, errors_in
from made_volumes import made_volume
from refusals import refuses
from rows import every_row
from scans import turn_about_z
from voxlate.scans.formats.io import content_hash, read_volume
from voxlate.scans.images.grid import Volume, canonical
from voxlate.synthesis.provenance import Synthesised

pydicom = pytest.importorskip("pydicom")
from derived_objects import ORIGIN, write_source  # noqa: E402 - needs pydicom

from dicom_slices import write_series  # noqa: E402 - needs pydicom
from voxlate.clinic.dicom_images import write_derived  # noqa: E402
from voxlate.clinic.planning_slices import transverse, write_structure  # noqa: E402

GRID = np.diag([2.0, 2, 2, 1])


def head():
    """Voxels [x, y, z] of a ball of brain in a skull of 8 mm, and skin; 2 mm."""
    axis = (np.arange(64) - 31.5) * 2.0
    radius = np.linalg.norm(np.meshgrid(axis, axis, axis), axis=0)
    return np.select([radius < 40, radius < 48, radius < 54], [35, 1100, 30], -1000)


@pytest.fixture
def synthesised(tmp_path):
    """synthesised(source, **images): OUT of a series of tmp_path; the images of the case, and as CT the source itself."""

    def write(source, images=None, **tags):
        series = write_series(source, tmp_path / "series", Modality="MR", **tags)
        inputs = {"mr": {"path": "../../series", "sha256": content_hash(series)}}
        provenance = {"model": {"title": "any"}, "inputs": inputs}
        ends = {end: {"ct": source} for end in ("low", "high")} if images is None else {}
        Synthesised(images or {"ct": source}, {}, provenance, **ends).write(tmp_path / "OUT/ann")
        return tmp_path / "OUT"

    return write


@pytest.fixture
def export(tmp_path):
    """export(out): the export with contours, into tmp_path/TO."""

    def run(out, **options):
        return package.export(out, tmp_path / "TO", rtstruct=True, progress=False, **options)

    return run


def sagittal():
    """A head of sagittal slices to the left, rows downwards, columns to the back."""
    affine = np.array([[0, 0, -2.0, 0], [-2.0, 0, 0, 0], [0, -2.0, 0, 126], [0, 0, 0, 1]])
    return made_volume(head()[::-1, ::-1, ::-1].transpose(0, 2, 1), affine=affine)


def headers(folder):
    """The DICOM files of a folder."""
    return [pydicom.dcmread(file) for file in sorted(folder.iterdir())]


def test_an_oblique_ct_of_thick_slices_gets_square_pixels_along_the_patient():
    affine = np.eye(4)
    affine[:3, :3] = turn_about_z(20) @ np.diag([1.0, 2.0, 3.0])
    data = np.full((1, 20, 30, 60), 40, np.float32)
    found = transverse(Volume(data, affine, "HU", "ct"))
    assert found.grid.spacing_mm == pytest.approx((3, 1, 1))
    assert (found.data > -500).sum() * 3 == pytest.approx(data.size * 6, rel=0.05)


def test_slices_have_as_many_rows_as_columns_and_air_where_the_scan_ends(
    synthesised, export, tmp_path
):
    export(synthesised(made_volume(head()[20:].transpose(2, 1, 0), affine=GRID)))
    first, *_ = headers(tmp_path / "TO/ann/ct")
    assert (first.Rows, first.Columns, first.PixelSpacing) == (64, 64, [2, 2])
    back = canonical(read_volume(tmp_path / "TO/ann/ct")).data[0]
    np.testing.assert_array_equal(back[..., 20:], head()[20:].transpose(2, 1, 0))
    assert (back[..., :20] == -1000).all()


def test_a_sagittal_series_gives_a_transverse_ct_series_with_the_body_as_contours(
    synthesised, export, tmp_path
):
    pytest.importorskip("highdicom")
    out = synthesised(sagittal(), BodyPartExamined="HEAD")
    done = export(out)
    assert "1 series, 2 maps, 1 structure set, 1 report" in done.summary
    assert done.messages == []
    source = pydicom.dcmread(tmp_path / "series/0000.dcm")
    folder = tmp_path / "TO/ann"
    slices = headers(folder / "ct")
    first = slices[0]
    assert len(slices) == 64
    assert first.ImageOrientationPatient == [1, 0, 0, 0, 1, 0]
    assert list(first.ImageType) == ["DERIVED", "SECONDARY", "AXIAL"]
    assert first.StudyInstanceUID == source.StudyInstanceUID
    back = canonical(read_volume(folder / "ct"))
    np.testing.assert_array_equal(back.data, canonical(read_volume(tmp_path / "series")).data)
    (structure,) = headers(folder / "ct_rtstruct")
    assert structure.StudyInstanceUID == source.StudyInstanceUID
    assert structure.FrameOfReferenceUID == source.FrameOfReferenceUID
    contours = structure.ROIContourSequence[0].ContourSequence
    named = {one.ContourImageSequence[0].ReferencedSOPInstanceUID for one in contours}
    assert named < {one.SOPInstanceUID for one in slices}
    assert len(named) == pytest.approx(54, abs=1)  # slices of 2 mm through a ball of 108 mm
    # the intervals keep the slices of the source, as all images do without the option
    package.export(out, tmp_path / "PLAIN", progress=False)
    for name in ("ct_low", "ct_high"):
        (one,), (plain,) = (headers(tmp_path / to / "ann" / name) for to in ("TO", "PLAIN"))
        assert one.SOPInstanceUID == plain.SOPInstanceUID
    assert export(out).files == done.files  # the same again is kept


def test_images_of_another_unit_have_no_contours(synthesised, export, tmp_path):
    mr = made_volume(head().clip(0, None).transpose(2, 1, 0), "t2", "a.u.", GRID)
    with refuses("rtstruct"):
        export(synthesised(mr, images={"t2": mr}))
    assert not (tmp_path / "TO").exists()


def filled(structure, series):
    """The voxels [D, H, W] within the contours of a structure, in the order of the slices of a series."""
    slices = {one.SOPInstanceUID: one for one in series}
    masks = {uid: np.zeros((one.Rows, one.Columns), bool) for uid, one in slices.items()}
    for contour in structure.ROIContourSequence[0].ContourSequence:
        (reference,) = contour.ContourImageSequence
        one = slices[reference.ReferencedSOPInstanceUID]
        points = np.array(contour.ContourData, float).reshape(-1, 3)
        assert len(points) == contour.NumberOfContourPoints
        axes = np.array(one.ImageOrientationPatient, float).reshape(2, 3)
        away = points - np.array(one.ImagePositionPatient, float)
        assert np.abs(away @ np.cross(*axes)).max() < 1e-3  # mm from the plane of the slice
        columns, rows = (away @ axes.T / np.array(one.PixelSpacing, float)[::-1]).T
        masks[one.SOPInstanceUID] ^= polygon2mask((one.Rows, one.Columns), np.c_[rows, columns])
    return np.array([masks[uid] for uid in slices])


def shapes():
    """Slices [4, 40, 30]: two parts, a ring with two holes, a part at the border, and nothing."""
    mask = np.zeros((4, 40, 30), np.float32)
    mask[0, 5:15, 5:15] = mask[0, 20:30, 10:25] = 1
    rows, columns = np.mgrid[:40, :30]
    mask[1] = (rows - 20) ** 2 + (columns - 15) ** 2 < 150
    mask[1, 16:20, 10:14] = mask[1, 22:25, 15:20] = 0
    mask[2, :12, :9] = mask[2, 30:, 20:] = 1
    return mask


@every_row("angle", [0.0, 0.31])
def test_contours_hold_the_voxels_of_the_mask_its_parts_and_its_holes(tmp_path, angle):
    mask = shapes()
    affine = write_source(tmp_path / "mr", angle)
    ct = Volume(mask[None] * 1000 - 1000, affine, "HU", "ct")
    files = write_derived(ct, tmp_path / "mr", tmp_path / "ct", ORIGIN)
    body = Volume(mask[None], affine, "", "mask")
    write = (body, tmp_path / "ct", tmp_path / "rt", ORIGIN)
    (structure,) = map(pydicom.dcmread, write_structure(*write))
    series = [*map(pydicom.dcmread, files)]
    whole = [ndimage.binary_fill_holes(plane) for plane in mask]
    np.testing.assert_array_equal(filled(structure, series), whole)
    (roi,) = structure.ROIContourSequence
    assert len(roi.ContourSequence) == 5
    assert structure.RTROIObservationsSequence[0].RTROIInterpretedType == "EXTERNAL"
    referenced = structure.ReferencedFrameOfReferenceSequence[0].RTReferencedStudySequence[0]
    named = referenced.RTReferencedSeriesSequence[0]
    assert named.SeriesInstanceUID == series[0].SeriesInstanceUID
    assert len(named.ContourImageSequence) == 4
    assert write_structure(*write) == [tmp_path / "rt/0001.dcm"]  # the same again is kept
    assert TOOL is None or errors_in(tmp_path / "rt/0001.dcm") == []


def test_a_contour_of_more_points_than_an_attribute_holds_is_refused_and_nothing_is_written(
    tmp_path,
):
    mask = np.ones((1, 3, 1400, 4), np.float32)
    mask[0, 1, 1:-1:2, 1:] = 0  # a comb of 700 teeth
    comb = Volume(mask, np.eye(4), "", "mask")
    write_series(Volume(mask, np.eye(4), "HU", "ct"), tmp_path / "ct")
    with refuses(r"at most 65534 bytes.*found \d{4} points in slice 2"):
        write_structure(comb, tmp_path / "ct", tmp_path / "rt", ORIGIN)
    assert not (tmp_path / "rt").exists()
