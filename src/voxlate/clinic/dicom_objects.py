"""DICOM out: maps in physical units as Parametric Maps, written by highdicom.

Source: DICOM PS3.3 (2024), A.75 (parametric map), C.7.6.16.2.11 (real world values).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from voxlate.base.errors import BadInput
from voxlate.base.files import HIGH, LOW, STD, UNCALIBRATED
from voxlate.base.optional import Package, pydicom
from voxlate.clinic.dicom_images import place_volume
from voxlate.clinic.dicom_series import (
    PRIVATE_SCHEME,
    SYNTHESIS,
    Code,
    Origin,
    as_file,
    code,
    item,
    new_series,
    uid_of,
    write_objects,
)
from voxlate.scans.formats.dicom_file import no_warnings
from voxlate.scans.images.grid import Volume

highdicom = Package("highdicom", "dicom", "DICOM", "highdicom to write maps as DICOM objects")
SERIAL_NUMBER = "0"  # of a device, which objects of frames must state; a program has none
# The anatomic region of frames by the source's BodyPartExamined; it must be stated.
REGIONS: dict[str, Code] = {
    "HEAD": ("69536005", "SCT", "Head"),
    "BRAIN": ("12738006", "SCT", "Brain"),
    "SKULL": ("89546000", "SCT", "Skull"),
    "NECK": ("45048000", "SCT", "Neck"),
}
ANY_REGION: Code = ("38266002", "SCT", "Entire body")
# The units of voxlate, as DICOM codes them.
UNIT_CODES: dict[str, Code] = {
    "HU": ("[hnsf'U]", "UCUM", "Hounsfield unit"),
    "a.u.": ("[arb'U]", "UCUM", "arbitrary unit"),
    "s": ("s", "UCUM", "second"),
    "ms": ("ms", "UCUM", "millisecond"),
    "1/s": ("/s", "UCUM", "/s"),
    "cm/s": ("cm/s", "UCUM", "centimeter/second"),
    "mm": ("mm", "UCUM", "millimeter"),
    "ml/100g/min": ("ml/[100]g/min", "UCUM", "milliliter per 100 gram per minute"),
    "ml/100g": ("ml/[100]g", "UCUM", "milliliter per 100 gram"),
    "ppm": ("ppm", "UCUM", "ppm"),
    "mM": ("mmol/L", "UCUM", "millimole per liter"),
    "1": ("1", "UCUM", "no units"),
}
# Quantities by the name of the modality; others have a private code.
QUANTITIES: dict[str, Code] = {
    "tmax": ("113084", "DCM", "Tmax"),
    "cbf": ("126390", "DCM", "Absolute Regional Blood Flow"),
    "cbv": ("126391", "DCM", "Absolute Regional Blood Volume"),
    "mtt": ("113052", "DCM", "Mean Transit Time"),
    "ttp": ("113069", "DCM", "Time To Peak"),
    "ct": ("112031", "DCM", "Attenuation Coefficient"),
}
DERIVATION: Code = ("121401", "DCM", "Derivation")
DEVIATION: Code = ("386136009", "SCT", "Standard Deviation")
# What a map shows of another image, by the end of its name; the meaning is that of its header, too.
STATISTICS: dict[str, Code] = {
    UNCALIBRATED: DEVIATION,
    STD: DEVIATION,
    LOW: ("LOWER", PRIVATE_SCHEME, "Lower end of the prediction interval"),
    HIGH: ("UPPER", PRIVATE_SCHEME, "Upper end of the prediction interval"),
}


@dataclass(frozen=True)
class Quantity:
    """What a map shows: a modality, and a statistic of it where the map is no image itself."""

    modality: str
    unit: str
    statistic: str = ""  # a key of STATISTICS

    @property
    def code(self) -> Code:
        """The code of the quantity."""
        private = (self.modality.upper()[:16], PRIVATE_SCHEME, f"Synthesised {self.modality}"[:64])
        return QUANTITIES.get(self.modality.lower(), private)

    @property
    def description(self) -> str:
        """What a map shows, in at most 64 characters."""
        statistic = f", {STATISTICS[self.statistic][2].lower()}" if self.statistic else ""
        return f"{self.code[2]}{statistic} in {self.unit}"[:64]


def quantity_of(name: str, unit: str) -> Quantity:
    """The quantity of an image or map by the name of its file without ending; unit: that of the image."""
    for end in STATISTICS:
        if name.endswith(end):
            return Quantity(name.removesuffix(end), unit, end)
    return Quantity(name, unit)


def write_map(
    volume: Volume, quantity: Quantity, like: Path, out: Path, origin: Origin
) -> list[Path]:
    """Write a volume as one Parametric Map of float32 values into the new folder `out`; returns the file.

    like: the series from which it was made. Values are stored as they are; a code states their unit and quantity.
    Raises BadInput for values that are not finite, a source that is no series, a missing highdicom, and a folder that
    holds anything but this map.
    """
    placement = place_volume(volume, like)
    values = np.ascontiguousarray(placement.data, np.float32)
    if not np.isfinite([values.min(), values.max()]).all():
        raise BadInput(
            f"{out}: expected finite values for DICOM, found NaN or infinity. Synthesise it again."
        )
    name, kind = quantity.modality + quantity.statistic, f"map{quantity.statistic}"
    series = new_series(placement.template, name, origin, values.data, kind)
    low, high = (float(value) for value in np.percentile(values, (0.5, 99.5)))
    width = max(high - low, 1e-6)
    window = (float(f"{number:.6g}") for number in (low + width / 2, width))
    slices = [placement.place(level) for level in range(len(values))]
    with no_warnings():  # about names of patients without a caret
        parametric = highdicom.pm.ParametricMap(
            source_images=placement.headers,
            pixel_array=values,
            series_instance_uid=series.SeriesInstanceUID,
            series_number=series.SeriesNumber,
            sop_instance_uid=uid_of(series.SeriesInstanceUID, "0"),
            instance_number=1,
            manufacturer=series.Manufacturer,
            manufacturer_model_name=series.ManufacturerModelName,
            software_versions=series.SoftwareVersions,
            device_serial_number=SERIAL_NUMBER,
            contains_recognizable_visual_features=False,
            real_world_value_mappings=[_real_world_values(values, quantity)],
            voi_lut_transformations=[
                # LINEAR may not be narrower than 1
                highdicom.VOILUTTransformation(*window, voi_lut_function="LINEAR_EXACT")
            ],
            content_label="SYNTHETIC_MAP",
            content_description=quantity.description,
            derivation=_concept(SYNTHESIS),
            pixel_measures=highdicom.PixelMeasuresSequence(
                _floats(slices[0].PixelSpacing), float(slices[0].SliceThickness)
            ),
            plane_orientation=highdicom.PlaneOrientationSequence(
                "PATIENT", _floats(slices[0].ImageOrientationPatient)
            ),
            plane_positions=[
                highdicom.PlanePositionSequence("PATIENT", _floats(place.ImagePositionPatient))
                for place in slices
            ],
        )
    parametric.update(series)
    part = str(placement.template.get("BodyPartExamined", "")).upper()
    region = code(*REGIONS.get(part, ANY_REGION))
    parametric.SharedFunctionalGroupsSequence[0].FrameAnatomySequence = [
        item(AnatomicRegionSequence=[region], FrameLaterality="U")
    ]
    return write_objects(out, series, 1, [as_file(parametric)])


def _real_world_values(values: np.ndarray, quantity: Quantity) -> Any:
    """Stored values are values in the unit; codes state the unit, the quantity and a statistic."""
    mapping = highdicom.pm.RealWorldValueMapping(
        lut_label=quantity.modality.upper()[:16],
        lut_explanation=quantity.description,
        unit=_concept(UNIT_CODES[quantity.unit]),
        value_range=(float(values.min()), float(values.max())),
        slope=1.0,
        intercept=0.0,
        quantity_definition=_concept(quantity.code),
    )
    if quantity.statistic:
        statistic = item(
            ValueType="CODE",
            ConceptNameCodeSequence=[code(*DERIVATION)],
            ConceptCodeSequence=[code(*STATISTICS[quantity.statistic])],
        )
        mapping.QuantityDefinitionSequence.append(statistic)
    return mapping


def _concept(triple: Code) -> Any:
    return pydicom.sr.coding.Code(*triple)


def _floats(values: Any) -> list[float]:
    return [float(value) for value in values]
