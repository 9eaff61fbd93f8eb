"""Every kind of derived object: one study, one frame of reference, and the places and UIDs that the source gives."""

import numpy as np
import pytest

from dciodvfy import TOOL, errors_in
from refusals import refuses
from rows import every_row

pydicom = pytest.importorskip("pydicom")
pytest.importorskip("highdicom")

from derived_objects import (  # noqa: E402 - needs pydicom
    ORIGIN,
    frames_of,
    headers,
    numbered,
    objects,
    write_source,
)

from dicom_slices import change  # noqa: E402 - needs pydicom
from voxlate.clinic.dicom_images import write_derived, write_enhanced  # noqa: E402
from voxlate.clinic.dicom_objects import write_mask  # noqa: E402
from voxlate.scans.images.grid import LPS_TO_RAS, Volume  # noqa: E402

TITLES = {
    "series": "CT",
    "enhanced": "CT",
    "map": "CBF",
    "mask": "MASK",
    "report": "SUMMARY OF TRUST",
}


def test_every_object_stays_with_its_patient_and_study_and_names_the_source_slices_at_its_places(
    tmp_path,
):
    found = objects(tmp_path / "mr", write_source(tmp_path / "mr", 0.31), tmp_path)
    sources = {one.SOPInstanceUID: one for one in headers((tmp_path / "mr").glob("*.dcm"))}
    source = next(iter(sources.values()))
    series = {source.SeriesInstanceUID, *(files[0].SeriesInstanceUID for files in found.values())}
    assert len(series) == 1 + len(found)
    for kind, files in found.items():
        for name in ("PatientID", "PatientName", "StudyInstanceUID", "AccessionNumber"):
            assert {str(one[name].value) for one in files} == {str(source[name].value)}, kind
        assert files[0].SeriesDescription == f"SYNTHETIC {TITLES[kind]} - NOT FOR DIAGNOSIS"
        uids = {one.SOPInstanceUID for one in files}
        assert len(uids) == len(files)
        assert not uids & sources.keys()
        if kind == "report":
            continue
        assert {one.FrameOfReferenceUID for one in files} == {source.FrameOfReferenceUID}
        named = []
        for place, (uid,) in frames_of(files):
            assert np.array_equal(place, np.array(sources[uid].ImagePositionPatient, float)), kind
            named.append(uid)
        assert len(set(named)) == len(named) == (2 if kind == "mask" else 4)
    if TOOL is not None:
        files = [next(iter(sorted((tmp_path / kind).glob("**/*.dcm")))) for kind in found]
        assert [errors_in(file) for file in files] == [[]] * len(found)


@every_row("lacking", [("StudyInstanceUID",), ("StudyInstanceUID", "FrameOfReferenceUID")])
def test_a_source_without_a_study_gives_all_objects_one_study_and_one_frame(tmp_path, lacking):
    affine = write_source(tmp_path / "mr")
    change(tmp_path / "mr", *lacking)
    found = objects(tmp_path / "mr", affine, tmp_path)
    assert len({files[0].StudyInstanceUID for files in found.values()}) == 1
    placed = [files[0] for kind, files in found.items() if kind != "report"]
    assert len({one.FrameOfReferenceUID for one in placed}) == 1
    (evidence,) = found["enhanced"][0].SourceImageEvidenceSequence
    assert evidence.StudyInstanceUID == found["series"][0].StudyInstanceUID


def test_two_sources_without_a_study_do_not_share_one(tmp_path):
    studies = set()
    for name in ("first", "second"):
        affine = write_source(tmp_path / name)
        change(tmp_path / name, "StudyInstanceUID")
        (first, *_) = write_derived(
            numbered(affine), tmp_path / name, tmp_path / f"{name}_ct", ORIGIN
        )
        studies.add(pydicom.dcmread(first).StudyInstanceUID)
    assert len(studies) == 2


def test_an_object_of_frames_needs_the_series_of_its_source(tmp_path):
    affine = write_source(tmp_path / "mr")
    change(tmp_path / "mr", "SeriesInstanceUID")
    with refuses("expected a SeriesInstanceUID, to which an object of frames"):
        write_enhanced(numbered(affine), tmp_path / "mr", tmp_path / "out", ORIGIN)


@every_row("of_source, first", [(3, 9003), (2**31 - 1, 9000)])
def test_kinds_of_objects_have_numbers_of_their_own_that_fit(tmp_path, of_source, first):
    affine = write_source(tmp_path / "mr")
    change(tmp_path / "mr", SeriesNumber=of_source)
    found = objects(tmp_path / "mr", affine, tmp_path)
    numbers = [found[kind][0].SeriesNumber for kind in ("series", "map", "mask", "report")]
    assert numbers == [first, first + 100, first + 200, first + 300]


def test_an_image_elsewhere_in_space_is_refused(tmp_path):
    affine = write_source(tmp_path / "mr")
    away = affine.copy()
    away[:3, 3] += 500
    with refuses("expected an image that overlaps its source series"):
        write_derived(numbered(away), tmp_path / "mr", tmp_path / "out", ORIGIN)


def test_a_grid_with_sheared_rows_is_refused_and_sheared_slices_are_not(tmp_path):
    affine = write_source(tmp_path / "mr")
    data = (np.arange(4) > 1).astype(np.float32)[None, :, None, None] * np.ones((6, 5), np.float32)

    def write_leaning(axis):
        leaning = affine.copy()
        leaning[:3, axis] += 0.2 * affine[:3, 0]
        mask = Volume(data, leaning, "", "mask")
        (file,) = write_mask(mask, "mask", tmp_path / "mr", tmp_path / "out", ORIGIN)
        return file, LPS_TO_RAS @ leaning

    with refuses(r"at right angles for DICOM, found 8\d\.\d degrees"):
        write_leaning(1)
    file, lps = write_leaning(2)
    frames = pydicom.dcmread(file).PerFrameFunctionalGroupsSequence
    found = {tuple(map(float, one.PlanePositionSequence[0].ImagePositionPatient)) for one in frames}
    places = [lps[:3, 3] + level * lps[:3, 2] for level in (2, 3)]
    assert sorted(found) == pytest.approx(np.array(sorted(map(tuple, places))), abs=1e-4)
