"""Every DICOM object that is derived from a series: its voxels, places, study, codes and refusals."""

import numpy as np
import pytest

from dciodvfy import TOOL, errors_in
from refusals import refuses
from rows import every_row
from voxlate.scans.images.grid import LPS_TO_RAS
from voxlate.scans.images.units import TISSUE_MAPS, UNITS

pydicom = pytest.importorskip("pydicom")
highdicom = pytest.importorskip("highdicom")
from derived_objects import (  # noqa: E402 - needs pydicom
    ORDERS,
    ORIGIN,
    SENTENCES,
    SHAPE,
    WRITE,
    frames_of,
    headers,
    numbered,
    objects,
    reordered,
    write_source,
)

from dicom_slices import change  # noqa: E402 - needs pydicom
from voxlate.clinic.dicom_images import (  # noqa: E402
    UNIT_CODES,
    quantity_of,
    write_derived,
    write_map,
)
from voxlate.clinic.dicom_out import write_report  # noqa: E402

TITLES = {"series": "CT", "map": "CBF", "report": "SUMMARY OF TRUST"}


def assert_valid(files):
    assert TOOL is None or errors_in(files[0]) == []


ALWAYS = {(0, 0.0), (13, 0.31), (42, -0.7)}  # orders and angles; the others are slow
TURNED = [
    pytest.param(*order, angle, marks=[] if (number, angle) in ALWAYS else pytest.mark.slow)
    for number, order in enumerate(ORDERS)
    for angle in (0.0, 0.31, -0.7)
]


@every_row("tilt", [0.0, 0.2])
@every_row("kind", WRITE)
@pytest.mark.parametrize(("order", "flips", "angle"), TURNED)
def test_any_order_of_axes_gives_the_voxels_and_places_of_the_source(
    tmp_path, order, flips, angle, tilt, kind
):
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


def test_every_object_stays_with_its_patient_and_study_and_names_the_source_slices_at_its_places(
    tmp_path,
):
    found = objects(tmp_path / "mr", write_source(tmp_path / "mr", 0.31), tmp_path)
    sources = {one.SOPInstanceUID: one for one in headers((tmp_path / "mr").glob("*.dcm"))}
    source = next(iter(sources.values()))
    series = {source.SeriesInstanceUID, *(files[0].SeriesInstanceUID for files in found.values())}
    assert len(series) == 1 + len(found)
    numbers = [files[0].SeriesNumber for files in found.values()]
    assert numbers == [9003, 9103, 9303]
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
        assert len(set(named)) == len(named) == 4
    assert "EchoTime" not in found["series"][0]
    text = found["series"][0].private_block(0x0091, "VOXLATE")[0x03].value
    assert "weights=0123456789abcdef" in text
    if TOOL is not None:
        files = [next(iter(sorted((tmp_path / kind).glob("**/*.dcm")))) for kind in found]
        assert [errors_in(file) for file in files] == [[]] * len(found)


def test_a_source_without_uids_to_refer_to_is_refused(tmp_path):
    affine = write_source(tmp_path / "mr")
    for kind, keyword in (("series", "StudyInstanceUID"), ("map", "FrameOfReferenceUID")):
        change(tmp_path / "mr", keyword)
        with refuses(keyword):
            WRITE[kind](numbered(affine), tmp_path / "mr", tmp_path / "out", ORIGIN)
        change(tmp_path / "mr", StudyInstanceUID="1.2.3")


def test_a_series_is_never_mixed_with_another(tmp_path):
    affine = write_source(tmp_path / "mr")
    write_derived(numbered(affine), tmp_path / "mr", tmp_path / "out", ORIGIN)
    with refuses("this very series, found another"):
        write_derived(numbered(affine, unit="a.u."), tmp_path / "mr", tmp_path / "out", ORIGIN)


@pytest.mark.parametrize("kind", WRITE)
def test_an_image_on_another_grid_has_its_own_places(tmp_path, kind):
    affine = write_source(tmp_path / "mr", 0.31, tilt=0.2)
    fine = affine.copy()
    fine[:3, 2] /= 2
    volume = numbered(fine, (7, 6, 5))
    made = headers(WRITE[kind](volume, tmp_path / "mr", tmp_path / "out", ORIGIN))
    expected = [(LPS_TO_RAS @ fine @ (0, 0, level, 1))[:3] for level in range(7)]
    places, references = zip(*frames_of(made))
    assert np.allclose(sorted(map(tuple, places)), sorted(map(tuple, expected)), atol=1e-3)
    assert not any(references)


def _map(volume, *given):
    return write_map(volume, quantity_of("tmax", "s"), *given)


@every_row(
    "write, fill, value, unit, words",
    [
        (write_derived, 1, 40_000, "HU", "from -32768 to 32767"),
        (write_derived, 1, np.nan, "HU", "expected finite values"),
        (_map, 1, np.nan, "s", "expected finite values"),
    ],
)
def test_values_that_no_object_can_hold_are_refused_and_nothing_is_written(
    tmp_path, write, fill, value, unit, words
):
    volume = numbered(write_source(tmp_path / "mr"), unit=unit)
    volume.data[:] *= fill
    volume.data[0, 1, 2, 3] = value
    with refuses(words):
        write(volume, tmp_path / "mr", tmp_path / "out", ORIGIN)
    assert not (tmp_path / "out").exists()


def test_codes_state_unit_quantity_and_statistic(tmp_path):
    affine = write_source(tmp_path / "mr")
    quantity = quantity_of("tmax_high", "s")
    (file,) = write_map(numbered(affine), quantity, tmp_path / "mr", tmp_path / "out", ORIGIN)
    one = pydicom.dcmread(file)
    assert one.SeriesNumber == 9603  # maps of images have 9103
    assert one.Manufacturer == "voxlate"
    for equipment in one.ContributingEquipmentSequence:  # which did not acquire the source
        assert equipment.Manufacturer != "voxlate"
    (mapping,) = one.SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence
    (unit,) = mapping.MeasurementUnitsCodeSequence
    assert (unit.CodeValue, unit.CodingSchemeDesignator) == ("s", "UCUM")
    assert (mapping.RealWorldValueSlope, mapping.RealWorldValueIntercept) == (1, 0)
    codes = [item.ConceptCodeSequence[0].CodeValue for item in mapping.QuantityDefinitionSequence]
    assert codes == ["113084", "UPPER"]
    assert {*UNITS.values(), *TISSUE_MAPS.values()} <= set(UNIT_CODES)


def test_a_report_holds_its_sentences_in_any_alphabet_and_refers_to_the_images(tmp_path):
    affine = write_source(tmp_path / "mr")
    change(tmp_path / "mr", SpecificCharacterSet="ISO_IR 100", PatientName="Müller^Jörg")
    images = write_derived(numbered(affine), tmp_path / "mr", tmp_path / "ct", ORIGIN)
    (file,) = write_report(SENTENCES, images[:1], tmp_path / "mr", tmp_path / "report", ORIGIN)
    one = pydicom.dcmread(file)
    texts = [item.TextValue for item in one.ContentSequence if item.ValueType == "TEXT"]
    assert texts == [text for _, text in SENTENCES]
    assert str(one.PatientName) == "Müller^Jörg"
    (evidence,) = one.CurrentRequestedProcedureEvidenceSequence
    (series,) = evidence.ReferencedSeriesSequence
    uids = [item.ReferencedSOPInstanceUID for item in series.ReferencedSOPSequence]
    assert uids == [image.SOPInstanceUID for image in headers(images)[:1]]
    assert (one.Modality, one.VerificationFlag) == ("SR", "UNVERIFIED")
