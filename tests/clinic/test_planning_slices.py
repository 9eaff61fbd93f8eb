"""`export --dicom --rtstruct`: a CT on transverse slices of square pixels, and its body as contours on them."""

import nibabel as nib
import numpy as np
import pytest

import voxlate as package
from made_volumes import made_volume
from refusals import refuses
from rows import slow
from scans import turn_about_z
from voxlate.clinic.planning_slices import squared, transverse
from voxlate.scans.formats.io import content_hash, read_volume
from voxlate.scans.images.grid import Volume, canonical, orient, return_to
from voxlate.scans.images.mask import foreground
from voxlate.synthesis.result import Synthesised
from voxlate.training.starters import names

pydicom = pytest.importorskip("pydicom")
from dicom_slices import change, write_series  # noqa: E402 - needs pydicom

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


def test_transverse_slices_of_a_sagittal_ct_are_its_own_voxels():
    found = transverse(sagittal())
    assert nib.aff2axcodes(found.affine) == ("L", "P", "S")
    np.testing.assert_array_equal(canonical(found).data, canonical(sagittal()).data)


def test_an_oblique_ct_of_thick_slices_gets_square_pixels_along_the_patient():
    affine = np.eye(4)
    affine[:3, :3] = turn_about_z(20) @ np.diag([1.0, 2.0, 3.0])
    data = np.full((1, 20, 30, 60), 40, np.float32)
    found = transverse(Volume(data, affine, "HU", "ct"))
    assert found.grid.spacing_mm == pytest.approx((3, 1, 1))
    assert (found.data > -500).sum() * 3 == pytest.approx(data.size * 6, rel=0.05)


def test_slices_get_air_until_they_have_as_many_rows_as_columns():
    ct = transverse(made_volume(head()[20:].transpose(2, 1, 0), affine=GRID))
    found = squared(ct)
    assert found.data.shape == (1, 64, 64, 64)
    np.testing.assert_array_equal(found.data[..., :44], ct.data)
    assert (found.data[..., 44:] == -1000).all()


def test_slices_where_the_scan_cuts_the_body_off_are_counted(synthesised, export, tmp_path):
    # of a ball from voxel 5 to 58
    source = made_volume(head()[20:].transpose(2, 1, 0), affine=GRID)
    done = export(synthesised(source, PatientPosition="HFS"))
    (caution,) = (said for said in done.messages if said.code == "cut-outline")
    assert caution.grade == "caution"
    # slices whose circle reaches the cut, over 20 mm or more: half chords of 10 mm at 23 mm from the centre
    cut = int(caution.text.partition(" of ")[0].rpartition(" ")[2])
    assert cut == pytest.approx(2 * np.sqrt(54**2 - 23**2 - 10**2) / 2, abs=2)
    assert not any(said.code == "no-position" for said in done.messages)
    first, *_ = headers(tmp_path / "TO/ann/ct")
    assert (first.Rows, first.Columns, first.PixelSpacing) == (64, 64, [2, 2])
    back = canonical(read_volume(tmp_path / "TO/ann/ct")).data[0]
    np.testing.assert_array_equal(back[..., 20:], head()[20:].transpose(2, 1, 0))
    assert (back[..., :20] == -1000).all()


@slow
def test_a_sagittal_series_gives_a_transverse_ct_series_with_the_body_as_contours(
    synthesised, export, tmp_path
):
    pytest.importorskip("highdicom")
    out = synthesised(sagittal(), BodyPartExamined="HEAD")
    done = export(out)
    assert done.summary == "1 series, 2 maps, 1 structure set, 1 report"
    assert [said.code for said in done.messages] == ["no-position"]
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
    shown = foreground(back).any(axis=(1, 2))
    assert (
        len(named) == shown.sum() == pytest.approx(54, abs=1)
    )  # slices of 2 mm through a ball of 108 mm
    # the report is on images, which contours are not
    (report,) = headers(folder / "report")
    (evidence,) = report.CurrentRequestedProcedureEvidenceSequence
    series = {one.SeriesInstanceUID for one in evidence.ReferencedSeriesSequence}
    assert first.SeriesInstanceUID in series
    assert structure.SeriesInstanceUID not in series
    # the intervals keep the slices of the source, as without the option
    package.export(out, tmp_path / "PLAIN", progress=False)
    for name in ("ct_low", "ct_high"):
        (one,), (plain,) = (headers(tmp_path / to / "ann" / name) for to in ("TO", "PLAIN"))
        assert one.SOPInstanceUID == plain.SOPInstanceUID
    plain = pydicom.dcmread(tmp_path / "PLAIN/ann/ct/0001.dcm")
    assert list(plain.ImageType) == ["DERIVED", "SECONDARY", "AXIAL", "SAGITTAL"]
    # the same again is kept, and a patient position is that of the source
    assert export(out).files == done.files
    change(tmp_path / "series", PatientPosition="HFS")
    other = package.export(
        out, tmp_path / "OTHER", like=tmp_path / "series", rtstruct=True, progress=False
    )
    assert [said.code for said in other.messages] == ["other-source"]


@slow
def test_a_starter_s_ct_of_a_sagittal_mr_series_has_the_body_of_the_true_ct(
    tmp_path, shipped_starters, monkeypatch, voxlate
):
    monkeypatch.setattr(names, "FOLDER", shipped_starters)
    monkeypatch.chdir(tmp_path)
    phantom = ("--cases", 1, "--size", 80, 96, 64, "--lesion", "none", "--seed", 48)
    voxlate(
        "phantom", *phantom, "--modalities", "t1", "--modalities", "ct", "--out", "COHORT"
    ).done()
    (case,) = (tmp_path / "COHORT").glob("phantom_*")
    scan = orient(read_volume(case / "t1.nii.gz", "t1"), "PIR")
    scan.data[:] = np.rint(scan.data * 8)
    tags = {"Modality": "MR", "ImageType": ["ORIGINAL", "PRIMARY"], "BodyPartExamined": "HEAD"}
    write_series(scan, tmp_path / "SCANS" / case.name / "t1", **tags)
    voxlate("synth", "starter:head-mr-to-ct", "SCANS", "--out", "OUT").done()
    voxlate("export", "OUT", "--dicom", "TO", "--rtstruct").done()
    series = canonical(read_volume(tmp_path / "TO" / case.name / "ct"))
    image = read_volume(tmp_path / "OUT" / case.name / "ct.nii.gz", "ct")
    assert np.abs(return_to(image, series.grid).data - series.data)[0, :, :, 8:-8].max() <= 0.5
    body = foreground(series)
    head = foreground(return_to(read_volume(case / "ct.nii.gz", "ct"), series.grid))
    assert 2 * (body & head).sum() / (body.sum() + head.sum()) > 0.95


def test_images_of_another_unit_and_enhanced_objects_have_no_contours(
    synthesised, export, tmp_path
):
    mr = made_volume(head().clip(0, None).transpose(2, 1, 0), "t2", "a.u.", GRID)
    out = synthesised(mr, images={"t2": mr})
    with refuses("rtstruct"):
        export(out)
    with refuses("enhanced"):
        export(out, enhanced=True)
    assert not (tmp_path / "TO").exists()
