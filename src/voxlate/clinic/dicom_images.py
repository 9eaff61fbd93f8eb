"""DICOM out: a volume as a derived CT or MR series, with an object for each slice, or as a Parametric Map in physical units.

Both are in the study and frame of reference of their source; highdicom writes the maps. Source: DICOM PS3.3 (2024), C.7.6.1 (general
image), C.8.2.1 (CT), C.8.3.1 (MR), C.7.6.2 (image plane), C.7.6.1.1.4 (source image), A.75 (parametric map), C.7.6.16.2.11
(real world values).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from voxlate.base.errors import BadInput
from voxlate.base.files import HIGH, LOW, STD, UNCALIBRATED
from voxlate.base.optional import Package, pydicom
from voxlate.clinic.dicom_series import (
    NEEDED,
    PRIVATE_SCHEME,
    SYNTHESIS,
    Code,
    Origin,
    as_file,
    code,
    decimal_string,
    fill,
    item,
    new_series,
    source_decimal,
    uid_of,
    write_objects,
)
from voxlate.scans.formats.dicom import images_of
from voxlate.scans.formats.dicom_file import Image, no_warnings, read_dicom
from voxlate.scans.formats.dicom_stack import stack_of
from voxlate.scans.images.grid import LPS_TO_RAS, Grid, Volume, flip_onto

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
UNITS = ("HU", "a.u.")  # of CT and MR series
LEAST_INTEGER, MOST_INTEGER = -(2**15), 2**15 - 1  # of the stored integers
MR_STEPS = 4095  # of a volume with fractions, which is scaled to whole numbers
WINDOW_HU = (-160.0, 240.0)  # in which a display shows an image at first
# The attributes of an image; those of the acquisition do not hold for a computed image.
OF_MODALITY: dict[str, dict[str, Any]] = {
    "CT": {
        "SOPClassUID": "1.2.840.10008.5.1.4.1.1.2",
        "ImageType": ["DERIVED", "SECONDARY", "AXIAL"],
        "RescaleType": "HU",
        "KVP": None,
        "AcquisitionNumber": None,
    },
    "MR": {
        "SOPClassUID": "1.2.840.10008.5.1.4.1.1.4",
        "ImageType": ["DERIVED", "SECONDARY", "OTHER"],
        "RescaleType": "US",
        "ScanningSequence": "RM",
        "SequenceVariant": "NONE",
        "ScanOptions": None,
        "MRAcquisitionType": None,
        "EchoTime": None,
        "EchoTrainLength": None,
        "RepetitionTime": None,
    },
}
ON_GRID = 1e-3  # of a voxel
PLACE = ("ImageOrientationPatient", "ImagePositionPatient", "PixelSpacing")
SOURCE_IMAGE: Code = ("121322", "DCM", "Source image for image processing operation")


def write_derived(
    volume: Volume, like: Path, out: Path, origin: Origin, own_slices: bool = False
) -> list[Path]:
    """Write a volume as one DICOM file for each slice into the new folder `out`; returns the files.

    like: the series from which it was made, a folder or 'FOLDER#key'. HU become a CT series, arbitrary units an MR
    series. On the grid of `like`, in whatever order of axes, every slice has exactly the place of its source slice;
    on another grid, and with own_slices, slices have places of their own.
    The same image and source give the same UIDs. Raises BadInput for values beyond 16 bits, a source that is no series, and
    a folder that holds anything but this series.
    """
    placement = place_volume(volume, like, own_slices)
    values, slope = _store(placement.data, volume.unit, out)
    modality, (low, high) = "CT", WINDOW_HU
    if volume.unit != "HU":
        modality, low, high = "MR", 0.0, max(float(np.percentile(placement.data, 99.5)), slope)
    _, rows, columns = values.shape
    series = fill(
        new_series(placement.template, volume.modality, origin, values.data),
        Modality=modality,
        ImageComments=origin.comments,
        DerivationDescription=origin.description,
        DerivationCodeSequence=[code(*SYNTHESIS)],
        BurnedInAnnotation="NO",
        LossyImageCompression=placement.template.get("LossyImageCompression") or "00",
        SamplesPerPixel=1,
        PhotometricInterpretation="MONOCHROME2",
        Rows=rows,
        Columns=columns,
        BitsAllocated=16,
        BitsStored=16,
        HighBit=15,
        PixelRepresentation=1,
        RescaleIntercept="0",
        RescaleSlope=decimal_string(slope),
        WindowCenter=decimal_string((low + high) / 2),
        WindowWidth=decimal_string(high - low),
        **OF_MODALITY[modality],
    )
    side = placement.template.get("Laterality") or ""
    if side or "BodyPartExamined" not in series:  # parts such as a head have no side
        series.Laterality = side

    def objects() -> Iterator[Any]:
        """The objects, of which each is the one before with other attributes."""
        for level, plane in enumerate(values):
            series.update(placement.place(level))
            series.InstanceNumber = level + 1
            if placement.exact:
                series.SourceImageSequence = [placement.reference(level)]
            series.add_new("PixelData", "OW", np.ascontiguousarray(plane).tobytes())
            yield as_file(series, level)

    return write_objects(out, series, len(values), objects())


def _store(data: np.ndarray, unit: str, out: Path) -> tuple[np.ndarray, float]:
    """Voxels [D, H, W] as whole numbers of 16 bits, and their slope. Raises BadInput for values that do not fit."""
    least, most = float(data.min()), float(data.max())
    fits = least >= LEAST_INTEGER and most <= MOST_INTEGER
    slope = 1.0
    if unit != "HU" and not (fits and np.array_equal(data, np.rint(data))):
        slope = max(most, -least, 1e-12) / MR_STEPS
    # NaN is the least and the most wherever there is one
    if not (least / slope >= LEAST_INTEGER and most / slope <= MOST_INTEGER):
        raise BadInput(
            f"{out}: expected finite values from {LEAST_INTEGER} to {MOST_INTEGER} for the 16 bits of DICOM, found {least:g} to {most:g}. Check the unit of the image."
        )
    slope = float(f"{slope:.10g}")  # as the header will state it
    return np.rint(data / slope).astype("<i2"), slope


@dataclass(frozen=True)
class Placement:
    """The slices of a new image in space, and those of its source.

    data: [D, H, W], its voxels; sources: the source's images, in the order of their slices; exact: the image has the
    source's own grid, so that each slice has the place of a source slice, digit by digit.
    """

    data: np.ndarray
    sources: Sequence[Image]
    grid: Grid
    exact: bool

    @cached_property
    def headers(self) -> list[Any]:
        """The headers of the source's files, with all their attributes; those that an object needs may be empty."""
        headers = []
        for file in dict.fromkeys(source.file for source in self.sources):
            header = item(**dict.fromkeys(NEEDED, ""))
            header.update(read_dicom(file, stop_before_pixels=True))
            header.filename = file
            headers.append(header)
        return headers

    @property
    def template(self) -> Any:
        """The first of the headers."""
        return self.headers[0]

    def place(self, level: int) -> Any:
        """Orientation, position, pixel spacing and thickness of a slice."""
        lps = LPS_TO_RAS @ self.grid.affine
        spacing = np.linalg.norm(lps[:3, :3], axis=0)
        directions = lps[:3, :2] / spacing[:2]
        thickness = abs(float(np.cross(*directions.T) @ lps[:3, 2]))
        if self.exact:
            header = self.sources[level].header
            values = [getattr(header, name) for name in PLACE]
            thickness = header.get("SliceThickness") or thickness
            write = source_decimal
        else:
            values = [directions.T.ravel(), lps[:3, 3] + level * lps[:3, 2], spacing[1::-1]]
            write = decimal_string
        lists = {name: [*map(write, numbers)] for name, numbers in zip(PLACE, values)}
        return item(SliceThickness=source_decimal(thickness), **lists)

    def reference(self, level: int) -> Any:
        """The reference to the source slice at the place of a slice."""
        source = self.sources[level]
        reference = refer(source.header)
        if source.frame:
            reference.ReferencedFrameNumber = source.frame
        reference.PurposeOfReferenceCodeSequence = [code(*SOURCE_IMAGE)]
        return reference


def refer(header: Any) -> Any:
    """The reference to an object by its header."""
    return item(
        ReferencedSOPClassUID=header.SOPClassUID, ReferencedSOPInstanceUID=header.SOPInstanceUID
    )


def place_volume(volume: Volume, like: Path, own_slices: bool = False) -> Placement:
    """The voxels of a volume, and their placement among the slices of the series `like`.

    Where flips lead from one grid to the other, these are the slices of the source, unless own_slices asks for those of the volume.
    """
    stack = stack_of(images_of(like), like)
    tolerance_mm = ON_GRID * min(stack.grid.spacing_mm)
    flipped = None if own_slices else flip_onto(volume, stack.grid, tolerance_mm)
    if flipped is None:
        return Placement(volume.data[0], stack.images, volume.grid, exact=False)
    return Placement(flipped.data[0], stack.images, stack.grid, exact=True)


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
