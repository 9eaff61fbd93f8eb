"""Derived objects of a source with gaps in its headers: one study, one frame of reference, and numbers that fit."""

import numpy as np
import pytest

pydicom = pytest.importorskip("pydicom")

from test_dicom_derived import ORIGIN, numbered, write_source  # noqa: E402 - needs pydicom

from dicom_slices import change  # noqa: E402 - needs pydicom
from voxlate.formats.dicom_images import write_derived, write_enhanced  # noqa: E402
from voxlate.formats.dicom_objects import Quantity, write_map, write_mask  # noqa: E402
from voxlate.formats.dicom_report import write_report  # noqa: E402
from voxlate.images.grid import LPS_TO_RAS, Volume  # noqa: E402
from voxlate.system.errors import BadInput  # noqa: E402

HEADING = ("ERROR", "99VOXLATE", "Expected error")


def source_without(folder, *keywords, **changed):
    """A series whose headers lack attributes, or have others; returns its affine."""
    affine = write_source(folder)
    change(folder, *keywords, **changed)
    return affine


def objects(like, affine, to):
    """The first file of each kind of object, by kind."""
    image = numbered(affine)
    mask = Volume((image.data > image.data.mean()).astype(np.float32), affine, "", "mask")
    found = {"series": write_derived(image, like, to / "ct", ORIGIN)}
    found["enhanced"] = write_enhanced(image, like, to / "enhanced", ORIGIN)
    if pytest.importorskip("highdicom"):
        time = Volume(image.data, affine, "s", "tmax")
        found["map"] = write_map(time, Quantity("tmax", "s"), like, to / "map", ORIGIN)
        found["mask"] = write_mask(mask, "mask", like, to / "mask", ORIGIN)
    images = [file for files in found.values() for file in files]
    found["report"] = write_report([(HEADING, "40 HU.")], images, like, to / "report", ORIGIN)
    return {kind: pydicom.dcmread(files[0]) for kind, files in found.items()}


def test_the_same_images_and_source_give_the_same_uids_and_their_files_are_kept(tmp_path):
    affine = write_source(tmp_path / "mr")
    first, second = (objects(tmp_path / "mr", affine, tmp_path / name) for name in ("a", "b"))
    for kind, one in first.items():
        uids, again = (
            [str(element.value) for element in read.iterall() if element.VR == "UI"]
            for read in (one, second[kind])
        )
        assert uids == again
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "a").rglob("*.dcm")}
    objects(tmp_path / "mr", affine, tmp_path / "a")
    assert written == {path: path.stat().st_mtime_ns for path in (tmp_path / "a").rglob("*.dcm")}


@pytest.mark.parametrize(
    "lacking", [("StudyInstanceUID",), ("StudyInstanceUID", "FrameOfReferenceUID")]
)
def test_a_source_without_a_study_gives_all_objects_one_study_and_one_frame(tmp_path, lacking):
    found = objects(tmp_path / "mr", source_without(tmp_path / "mr", *lacking), tmp_path)
    assert len({one.StudyInstanceUID for one in found.values()}) == 1
    placed = [one for kind, one in found.items() if kind != "report"]
    assert len({one.FrameOfReferenceUID for one in placed}) == 1
    (evidence,) = found["enhanced"].SourceImageEvidenceSequence
    assert evidence.StudyInstanceUID == found["series"].StudyInstanceUID


def test_two_sources_without_a_study_do_not_share_one(tmp_path):
    studies = set()
    for name in ("first", "second"):
        affine = source_without(tmp_path / name, "StudyInstanceUID")
        (first, *_) = write_derived(
            numbered(affine), tmp_path / name, tmp_path / f"{name}_ct", ORIGIN
        )
        studies.add(pydicom.dcmread(first).StudyInstanceUID)
    assert len(studies) == 2


def test_an_object_of_frames_needs_the_series_of_its_source(tmp_path):
    affine = source_without(tmp_path / "mr", "SeriesInstanceUID")
    with pytest.raises(
        BadInput, match="expected a SeriesInstanceUID, to which an object of frames"
    ):
        write_enhanced(numbered(affine), tmp_path / "mr", tmp_path / "out", ORIGIN)


@pytest.mark.parametrize(
    ("of_source", "numbers"),
    [
        (3, {"series": 9003, "map": 9103, "mask": 9203, "report": 9303}),
        (2**31 - 1, {"series": 9000, "map": 9100, "mask": 9200, "report": 9300}),
    ],
)
def test_kinds_of_objects_have_numbers_of_their_own_that_fit(tmp_path, of_source, numbers):
    affine = source_without(tmp_path / "mr", SeriesNumber=of_source)
    found = objects(tmp_path / "mr", affine, tmp_path)
    assert {kind: found[kind].SeriesNumber for kind in numbers} == numbers


def test_an_image_elsewhere_in_space_is_refused(tmp_path):
    affine = write_source(tmp_path / "mr")
    away = affine.copy()
    away[:3, 3] += 500
    with pytest.raises(BadInput, match="expected an image that overlaps its source series"):
        write_derived(numbered(away), tmp_path / "mr", tmp_path / "out", ORIGIN)


def test_a_grid_with_sheared_rows_is_refused_and_sheared_slices_are_not(tmp_path):
    pytest.importorskip("highdicom")
    affine = write_source(tmp_path / "mr")
    image = numbered(affine)
    data = (image.data > image.data.mean()).astype(np.float32)
    sheared, tilted = affine.copy(), affine.copy()
    sheared[:3, 1] += 0.2 * affine[:3, 0]
    tilted[:3, 2] += 0.2 * affine[:3, 0]
    with pytest.raises(BadInput, match=r"at right angles for DICOM, found 8\d\.\d degrees"):
        write_mask(
            Volume(data, sheared, "", "mask"), "mask", tmp_path / "mr", tmp_path / "out", ORIGIN
        )
    (file,) = write_mask(
        Volume(data, tilted, "", "mask"), "mask", tmp_path / "mr", tmp_path / "out", ORIGIN
    )
    frames = pydicom.dcmread(file).PerFrameFunctionalGroupsSequence
    found = {tuple(map(float, one.PlanePositionSequence[0].ImagePositionPatient)) for one in frames}
    lps = LPS_TO_RAS @ tilted
    places = [lps[:3, 3] + level * lps[:3, 2] for level in (2, 3)]  # the upper half of the numbers
    assert sorted(found) == pytest.approx(np.array(sorted(map(tuple, places))), abs=1e-4)
