"""DICOM out: maps in physical units as Parametric Map objects, with the codes of their quantity and unit.

Source: DICOM PS3.3 (2024), A.75 (parametric map), C.7.6.16.2.11 (real world values); codes: PS3.16, CID 7180 and 7181.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from voxlate.formats.dicom_headers import (
    Origin,
    code,
    new_series,
    write_objects,
)
from voxlate.formats.dicom_multiframe import (
    anatomy,
    check_size,
    complete,
    highdicom_for,
    shared_arguments,
    synthesis,
)
from voxlate.formats.dicom_placement import Placement, placed
from voxlate.images.grid import Volume
from voxlate.images.optional import optional_package
from voxlate.system.errors import BadInput
from voxlate.system.files import HIGH, LOW, STD, UNCALIBRATED, UNFAMILIAR

Code = tuple[str, str, str]  # value, scheme and meaning
PRIVATE = "99VOXLATE"
CONTENT_LABEL = "SYNTHETIC_MAP"
# The units of voxlate, as DICOM codes them.
UNIT_CODES: dict[str, Code] = {
    "HU": ("[hnsf'U]", "UCUM", "Hounsfield unit"),
    "a.u.": ("[arb'U]", "UCUM", "arbitrary unit"),
    "s": ("s", "UCUM", "second"),
    "ms": ("ms", "UCUM", "millisecond"),
    "1/s": ("/s", "UCUM", "/s"),
    "cm/s": ("cm/s", "UCUM", "centimeter/second"),
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
# What a map shows of another image, by the end of its name; the meaning is that of its header, too.
STATISTICS: dict[str, Code] = {
    UNCALIBRATED: ("386136009", "SCT", "Standard Deviation"),
    STD: ("386136009", "SCT", "Standard Deviation"),
    LOW: ("LOWER", PRIVATE, "Lower end of the prediction interval"),
    HIGH: ("UPPER", PRIVATE, "Upper end of the prediction interval"),
    UNFAMILIAR: ("UNFAMILIAR", PRIVATE, "Distance to the scans of the calibration"),
}


@dataclass(frozen=True)
class Quantity:
    """What a map shows: a modality, and a statistic of it where the map is no image itself."""

    modality: str
    unit: str
    statistic: str = ""  # a key of STATISTICS

    @property
    def name(self) -> str:
        """The name of the map's file, without ending."""
        return self.modality + self.statistic

    @property
    def code(self) -> Code:
        """The code of the quantity."""
        private = (self.modality.upper()[:16], PRIVATE, f"Synthesised {self.modality}"[:64])
        return QUANTITIES.get(self.modality.lower(), private)


def quantity_of(name: str, unit: str) -> Quantity:
    """The quantity of an image or map by the name of its file without ending; unit: that of the image."""
    for end in STATISTICS:
        if name.endswith(end):
            return Quantity(name.removesuffix(end), "1" if end == UNFAMILIAR else unit, end)
    return Quantity(name, unit)


def write_map(
    volume: Volume, quantity: Quantity, like: Path, out: Path, origin: Origin
) -> list[Path]:
    """Write a volume as one Parametric Map of float32 values into the new folder `out`; returns the file.

    like: the series from which it was made. Values are stored as they are; a code states their unit and quantity.
    Raises BadInput for a unit without a code, values that are not finite, a source that is no series, a missing
    highdicom, and a folder that holds anything but this map.
    """
    pydicom = optional_package("pydicom", "dicom", like, "pydicom to write DICOM files")
    if quantity.unit not in UNIT_CODES:
        raise BadInput(
            f"{out}: expected a unit that DICOM has a code for ({', '.join(UNIT_CODES)}), found {quantity.modality} in {quantity.unit!r}. Leave it out; it stays in its own file."
        )
    data, placement = placed(volume, like)
    values = np.ascontiguousarray(data, np.float32)
    check_size(values, out)
    least, most = float(values.min()), float(values.max())
    if not np.isfinite([least, most]).all():
        raise BadInput(
            f"{out}: expected finite values for DICOM, found NaN or infinity. Synthesise it again."
        )
    template = placement.template(pydicom)
    series = new_series(
        pydicom, template, quantity.name, origin, hashlib.sha256(values.data).hexdigest(), "map"
    )
    made = _object(pydicom, values, quantity, placement, series, out)
    complete(pydicom, made, series, placement, len(values), synthesis(origin))
    made.SharedFunctionalGroupsSequence[0].FrameAnatomySequence = [anatomy(pydicom, template)]
    made.pop("Laterality", None)  # the frames state it
    return write_objects(pydicom, out, series, 1, [made])


def _object(
    pydicom: Any,
    values: np.ndarray,
    quantity: Quantity,
    placement: Placement,
    series: Any,
    out: Path,
) -> Any:
    """The values as a Parametric Map of highdicom, in the study of the source."""
    highdicom = highdicom_for(out)
    low, high = (float(value) for value in np.percentile(values, (0.5, 99.5)))
    width = max(high - low, 1e-6)
    return highdicom.pm.ParametricMap(
        contains_recognizable_visual_features=False,
        real_world_value_mappings=[_mapping(pydicom, highdicom, values, quantity)],
        voi_lut_transformations=[
            highdicom.VOILUTTransformation(float(f"{low + width / 2:.6g}"), float(f"{width:.6g}"))
        ],
        content_label=CONTENT_LABEL,
        content_description=_text(quantity),
        **shared_arguments(pydicom, highdicom, placement, series, values),
    )


def _text(quantity: Quantity) -> str:
    """What a map shows, in at most 64 characters."""
    parts = [quantity.code[2]]
    if quantity.statistic:
        parts.append(STATISTICS[quantity.statistic][2].lower())
    return f"{', '.join(parts)} in {quantity.unit}"[:64]


def _mapping(pydicom: Any, highdicom: Any, values: np.ndarray, quantity: Quantity) -> Any:
    """Stored values are values in the unit; codes state the unit, the quantity and a statistic."""
    coding = pydicom.sr.coding.Code
    value, scheme, meaning = quantity.code
    unit, units_scheme, unit_meaning = UNIT_CODES[quantity.unit]
    mapping = highdicom.pm.RealWorldValueMapping(
        lut_label=quantity.modality.upper()[:16],
        lut_explanation=_text(quantity),
        unit=coding(unit, units_scheme, unit_meaning),
        value_range=(float(values.min()), float(values.max())),
        slope=1.0,
        intercept=0.0,
        quantity_definition=coding(value, scheme, meaning),
    )
    if quantity.statistic:
        item = pydicom.Dataset()
        item.ValueType = "CODE"
        item.ConceptNameCodeSequence = [code(pydicom, *DERIVATION)]
        item.ConceptCodeSequence = [code(pydicom, *STATISTICS[quantity.statistic])]
        mapping.QuantityDefinitionSequence.append(item)
    return mapping
