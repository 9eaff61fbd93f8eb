"""Maps as Parametric Map objects: values to the bit, units and quantities as codes."""

import numpy as np
import pytest

from refusals import refuses
from rows import every_row

pydicom = pytest.importorskip("pydicom")
highdicom = pytest.importorskip("highdicom")

from derived_objects import ORIGIN, SHAPE, write_source  # noqa: E402 - needs pydicom

from voxlate.clinic.dicom_images import write_enhanced  # noqa: E402
from voxlate.clinic.dicom_objects import UNIT_CODES, quantity_of, write_map  # noqa: E402
from voxlate.scans.images.grid import LPS_TO_RAS, Volume  # noqa: E402
from voxlate.scans.images.units import TISSUE_MAPS, UNITS  # noqa: E402

FLOW = quantity_of("cbf", "ml/100g/min")


def flow_on(affine) -> Volume:
    """Values with all bits of float32, negative ones among them."""
    data = np.random.default_rng(1).normal(50, 30, (1, *SHAPE)).astype(np.float32)
    return Volume(data, affine, "ml/100g/min", "cbf")


def test_a_map_of_an_enhanced_source_names_the_frames_of_its_object(tmp_path):
    volume = flow_on(write_source(tmp_path / "mr", 0.31))
    mr = Volume(np.rint(volume.data), volume.affine, "a.u.", "t1")
    (source,) = write_enhanced(mr, tmp_path / "mr", tmp_path / "source", ORIGIN)
    (file,) = write_map(volume, FLOW, tmp_path / "source", tmp_path / "out", ORIGIN)
    one = pydicom.dcmread(file)
    (series,) = one.ReferencedSeriesSequence
    assert len(series.ReferencedInstanceSequence) == 1
    uid = pydicom.dcmread(source).SOPInstanceUID
    for frame in one.PerFrameFunctionalGroupsSequence:
        (reference,) = frame.DerivationImageSequence[0].SourceImageSequence
        place = frame.PlanePositionSequence[0].ImagePositionPatient
        level = np.linalg.inv(LPS_TO_RAS @ volume.affine) @ (*place, 1)
        assert reference.ReferencedSOPInstanceUID == uid
        assert reference.ReferencedFrameNumber == round(level[2]) + 1


def test_highdicom_reads_the_same_voxels_at_places_within_a_thousandth_of_a_millimetre(tmp_path):
    affine = write_source(tmp_path / "mr", -0.7)
    volume = flow_on(affine)
    (file,) = write_map(volume, FLOW, tmp_path / "mr", tmp_path / "out", ORIGIN)
    read = highdicom.imread(file).get_volume()
    for place, value in np.ndenumerate(read.array):
        x, y, z, _ = np.linalg.inv(LPS_TO_RAS @ affine) @ read.affine @ (*place, 1)
        assert np.abs(np.array((x, y, z)) - np.rint((x, y, z))).max() < 1e-3 / 3
        assert value == volume.data[0, round(z), round(y), round(x)]


def test_codes_state_unit_quantity_and_statistic(tmp_path):
    affine = write_source(tmp_path / "mr")
    quantity = quantity_of("tmax_high", "s")
    (file,) = write_map(flow_on(affine), quantity, tmp_path / "mr", tmp_path / "out", ORIGIN)
    one = pydicom.dcmread(file)
    assert one.SeriesNumber == 9603  # maps of images have 9103
    (mapping,) = one.SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence
    (unit,) = mapping.MeasurementUnitsCodeSequence
    assert (unit.CodeValue, unit.CodingSchemeDesignator) == ("s", "UCUM")
    assert (mapping.RealWorldValueSlope, mapping.RealWorldValueIntercept) == (1, 0)
    quantity, statistic = (
        item.ConceptCodeSequence[0] for item in mapping.QuantityDefinitionSequence
    )
    assert (quantity.CodeValue, quantity.CodingSchemeDesignator) == ("113084", "DCM")
    assert statistic.CodeValue == "UPPER"
    assert one.ContentDescription.startswith("Tmax, upper end of the prediction interval in s")


def test_every_unit_of_voxlate_but_that_of_pictures_has_a_code():
    assert {*UNITS.values(), *TISSUE_MAPS.values()} <= set(UNIT_CODES)


@every_row(
    "value, unit, message",
    [
        (np.nan, "s", "expected finite values"),
        (1.0, "grey", "expected a unit that DICOM has a code for .* found tmax in 'grey'"),
    ],
)
def test_maps_that_no_object_can_hold_are_refused_and_nothing_is_written(
    tmp_path, value, unit, message
):
    affine = write_source(tmp_path / "mr")
    volume = flow_on(affine)
    volume.data[0, 0, 0, 0] = value
    with refuses(message):
        write_map(volume, quantity_of("tmax", unit), tmp_path / "mr", tmp_path / "out", ORIGIN)
    assert not (tmp_path / "out").exists()
