"""DICOM out: maps in physical units as Parametric Maps, masks and label maps as Segmentations, written by highdicom.

Source: DICOM PS3.3 (2024), A.75 (parametric map), C.7.6.16.2.11 (real world values), A.51 and C.8.20.2 (segmentation);
codes: PS3.16, CID 7150, 7151, 7180 and 7181.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from voxlate.base.errors import BadInput
from voxlate.base.files import HIGH, LOW, STD, UNCALIBRATED
from voxlate.base.optional import Package, pydicom
from voxlate.clinic.dicom_images import SOP_CLASSES, Placement, place_volume
from voxlate.clinic.dicom_series import (
    PRIVATE_SCHEME,
    SYNTHESIS,
    UNKNOWN,
    Code,
    Origin,
    as_file,
    code,
    fill,
    item,
    new_series,
    uid_of,
    write_objects,
)
from voxlate.scans.images.grid import Volume

highdicom = Package(
    "highdicom", "dicom", "DICOM", "highdicom to write maps and masks as DICOM objects"
)
MOST_LABEL = 255
SERIAL_NUMBER = "0"  # of a device, which objects of frames must state; a program has none
# The anatomic region of frames by the source's BodyPartExamined; it must be stated.
REGIONS: dict[str, Code] = {
    "HEAD": ("69536005", "SCT", "Head"),
    "BRAIN": ("12738006", "SCT", "Brain"),
    "SKULL": ("89546000", "SCT", "Skull"),
    "NECK": ("45048000", "SCT", "Neck"),
}
ANY_REGION: Code = ("38266002", "SCT", "Entire body")
CONTENT_LABEL = "SYNTHETIC_MAP"
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
TISSUE: Code = ("85756007", "SCT", "Tissue")
STRUCTURE: Code = ("91723000", "SCT", "Anatomical Structure")
ABNORMAL: Code = ("49755003", "SCT", "Morphologically Abnormal Structure")
# Category and type of the segments of a mask by its name; other label maps are tissue.
PROPERTIES: dict[str, tuple[Code, Code]] = {
    "brainmask": (STRUCTURE, ("12738006", "SCT", "Brain")),
    "lesion": (ABNORMAL, ("52988006", "SCT", "Lesion")),
}
SEGMENTATION: tuple[str, Code] = (
    "Voxels of a mask or label map beside the image",
    ("113076", "DCM", "Segmentation"),
)


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
        private = (self.modality.upper()[:16], PRIVATE_SCHEME, f"Synthesised {self.modality}"[:64])
        return QUANTITIES.get(self.modality.lower(), private)

    @property
    def description(self) -> str:
        """What a map shows, in at most 64 characters."""
        statistic = STATISTICS[self.statistic][2].lower() if self.statistic else ""
        return f"{', '.join(filter(None, (self.code[2], statistic)))} in {self.unit}"[:64]


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
    series = new_series(
        placement.template, quantity.name, origin, values.data, f"map{quantity.statistic}"
    )
    low, high = (float(value) for value in np.percentile(values, (0.5, 99.5)))
    width = max(high - low, 1e-6)
    window = (float(f"{number:.6g}") for number in (low + width / 2, width))
    parametric = highdicom.pm.ParametricMap(
        contains_recognizable_visual_features=False,
        real_world_value_mappings=[_real_world_values(values, quantity)],
        voi_lut_transformations=[
            # LINEAR may not be narrower than 1
            highdicom.VOILUTTransformation(*window, voi_lut_function="LINEAR_EXACT")
        ],
        content_label=CONTENT_LABEL,
        content_description=quantity.description,
        **_common_arguments(placement, series, values),
    )
    _complete(parametric, series, placement, origin.description, SYNTHESIS)
    part = str(placement.template.get("BodyPartExamined", "")).upper()
    region = code(*REGIONS.get(part, ANY_REGION))
    parametric.SharedFunctionalGroupsSequence[0].FrameAnatomySequence = [
        item(AnatomicRegionSequence=[region], FrameLaterality="U")
    ]
    return write_objects(out, series, 1, [parametric])


def write_mask(volume: Volume, name: str, like: Path, out: Path, origin: Origin) -> list[Path]:
    """Write a mask or label map as one Segmentation with a segment for each label into the new folder `out`.

    Returns the file. name: that of the mask, such as "mask" or "seg"; like: the series on whose slices it is. Raises
    BadInput for values that are no labels, a source that is no series, a missing highdicom, and a folder that holds
    anything but this mask.
    """
    placement = place_volume(volume, like)
    values = np.unique(placement.data)
    if not np.array_equal(values, np.rint(values)) or values[0] < 0 or values[-1] > MOST_LABEL:
        raise BadInput(
            f"{out}: expected labels, whole numbers from 0 to {MOST_LABEL}, found values from {values[0]:g} to {values[-1]:g}. Round them, or leave the file out."
        )
    labels = [int(value) for value in values if value]
    numbers = np.zeros(MOST_LABEL + 1, np.uint8)
    numbers[labels] = range(1, len(labels) + 1)
    segments = np.ascontiguousarray(numbers[placement.data.astype(np.uint8)])
    series = new_series(placement.template, name, origin, segments.data, "mask")
    segmentation = highdicom.seg.Segmentation(
        segmentation_type="BINARY",
        segment_descriptions=_segments(name, labels),
        content_label="MASK",
        content_description=f"{name}: who drew it is not known to voxlate"[:64],
        **_common_arguments(placement, series, segments),
    )
    _complete(segmentation, series, placement, *SEGMENTATION)
    return write_objects(out, series, 1, [segmentation])


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


def _segments(name: str, labels: Sequence[int]) -> list[Any]:
    """The descriptions of segments; the origin of a mask beside an image is unknown, so no algorithm is claimed."""
    category, kind = PROPERTIES.get(name, (TISSUE, TISSUE))
    identification = highdicom.AlgorithmIdentificationSequence(
        name=UNKNOWN,
        family=_concept(("UNKNOWN", PRIVATE_SCHEME, "Unknown")),
        version=UNKNOWN,
    )
    return [
        highdicom.seg.SegmentDescription(
            segment_number=number,
            segment_label=name if len(labels) == 1 else f"{name} {label}",
            segmented_property_category=_concept(category),
            segmented_property_type=_concept(kind),
            algorithm_type="SEMIAUTOMATIC",
            algorithm_identification=identification,
        )
        for number, label in enumerate(labels, start=1)
    ]


def _common_arguments(placement: Placement, series: Any, pixels: np.ndarray) -> dict[str, Any]:
    """The arguments of every object of highdicom: its pixels, sources, series, device, and the place of every frame."""
    slices = [placement.place(level) for level in range(len(pixels))]
    first = slices[0]
    return {
        "source_images": [_source_image(placement, series)],
        "pixel_array": pixels,
        "series_instance_uid": series.SeriesInstanceUID,
        "series_number": series.SeriesNumber,
        "sop_instance_uid": uid_of(series.SeriesInstanceUID, "0"),
        "instance_number": 1,
        "manufacturer": series.Manufacturer,
        "manufacturer_model_name": series.ManufacturerModelName,
        "software_versions": series.SoftwareVersions,
        "device_serial_number": SERIAL_NUMBER,
        "pixel_measures": highdicom.PixelMeasuresSequence(
            _floats(first.PixelSpacing), float(first.SliceThickness)
        ),
        "plane_orientation": highdicom.PlaneOrientationSequence(
            "PATIENT", _floats(first.ImageOrientationPatient)
        ),
        "plane_positions": [
            highdicom.PlanePositionSequence("PATIENT", _floats(place.ImagePositionPatient))
            for place in slices
        ],
    }


def _floats(values: Any) -> list[float]:
    return [float(value) for value in values]


def _source_image(placement: Placement, series: Any) -> Any:
    """An image with the patient and study of a series, as highdicom takes them; `_complete` names all sources."""
    image = copy.deepcopy(series)
    image.update(placement.place(0))
    header = placement.sources[0].image.header
    return fill(
        image,
        SOPClassUID=SOP_CLASSES["MR"],  # of an image with one frame, whatever the source is
        SOPInstanceUID=header.SOPInstanceUID,
        SeriesInstanceUID=placement.series_uid(),
        Rows=header.Rows,
        Columns=header.Columns,
        PatientName="",  # highdicom warns of names without a caret; `_complete` writes it
        Manufacturer="",  # else the object would state that voxlate acquired its sources
    )


def _complete(frames: Any, series: Any, placement: Placement, description: str, kind: Code) -> None:
    """Give an object of highdicom the attributes and sources of its series, and its frames their places and sources.

    Each slice may have several frames or none.
    """
    frames.update(series)
    as_file(frames)
    frames.pop("Laterality", None)  # an attribute of series without frames
    frames.ReferencedSeriesSequence = [
        item(
            SeriesInstanceUID=placement.series_uid(),
            ReferencedInstanceSequence=placement.evidence(),
        )
    ]
    # a UID that depends on the content alone
    dimensions = uid_of(series.SeriesInstanceUID, "dimensions")
    for entry in [*frames.DimensionOrganizationSequence, *frames.DimensionIndexSequence]:
        entry.DimensionOrganizationUID = dimensions
    levels = range(len(placement.data))
    places = [placement.place(level).ImagePositionPatient for level in levels]
    derivations = [placement.derivation(level, description, kind) for level in levels]
    known = np.array(places, float)
    for frame in frames.PerFrameFunctionalGroupsSequence:  # highdicom sorts them
        position = np.array(frame.PlanePositionSequence[0].ImagePositionPatient, float)
        level = int(np.abs(known - position).sum(1).argmin())
        frame.PlanePositionSequence[0].ImagePositionPatient = places[level]
        frame.DerivationImageSequence = [derivations[level]]
