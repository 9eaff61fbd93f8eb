"""DICOM out: a volume as a derived CT or MR series in the study and frame of reference of its source.

The series has one classic object for each slice, or one enhanced object of many frames.
Source: DICOM PS3.3 (2024), C.7.6.1 (general image), C.8.2.1 (CT), C.8.3.1 (MR), A.36 (enhanced MR), A.38 (enhanced CT),
C.8.13.1, C.8.15.2, C.7.6.16 (functional groups).
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from voxlate.base.errors import BadInput
from voxlate.clinic.dicom_placement import Placement, Slices, place_volume
from voxlate.scans.formats.dicom_series import (
    SYNTHESIS,
    Code,
    Origin,
    as_file,
    code,
    decimal_string,
    encode,
    fill,
    item,
    new_series,
    uid_of,
    write_objects,
)
from voxlate.scans.images.grid import Volume

UNITS = ("HU", "a.u.")  # of CT and MR series
LEAST_INTEGER, MOST_INTEGER = -(2**15), 2**15 - 1  # of the stored integers
MR_STEPS = 4095  # of a volume with fractions, which is scaled to whole numbers
WINDOW_HU = (-160.0, 240.0)  # in which a display shows an image at first
SOP_CLASSES = {"CT": "1.2.840.10008.5.1.4.1.1.2", "MR": "1.2.840.10008.5.1.4.1.1.4"}
ENHANCED = ".1"  # the end of the SOP class of an enhanced object
SERIAL_NUMBER = "0"  # of a device, which enhanced objects must state; a program has none
MOST_BYTES = 2**32 - 2  # of the pixels of one object, whose length is a number of 32 bits
FRAME_TYPE = {
    "PixelPresentation": "MONOCHROME",
    "VolumetricProperties": "VOLUME",
    "VolumeBasedCalculationTechnique": "NONE",
}
FRAME_TYPE_OF_MR = {"ComplexImageComponent": "MAGNITUDE", "AcquisitionContrast": "UNKNOWN"}
IMAGE_TYPE = ["DERIVED", "PRIMARY", "VOLUME", "NONE"]
# The attributes of a classic image; those of the acquisition do not hold for a computed image.
CLASSIC: dict[str, dict[str, Any]] = {
    "CT": {"ImageType": ["DERIVED", "SECONDARY", "AXIAL"], "KVP": None, "AcquisitionNumber": None},
    "MR": {
        "ImageType": ["DERIVED", "SECONDARY", "OTHER"],
        "ScanningSequence": "RM",
        "SequenceVariant": "NONE",
        "ScanOptions": None,
        "MRAcquisitionType": None,
        "EchoTime": None,
        "EchoTrainLength": None,
        "RepetitionTime": None,
    },
}
STACK_ID, IN_STACK_POSITION = 0x00209056, 0x00209057
FRAME_CONTENT = 0x00209111
# The anatomic region of frames by the source's BodyPartExamined; it must be stated.
REGIONS: dict[str, Code] = {
    "HEAD": ("69536005", "SCT", "Head"),
    "BRAIN": ("12738006", "SCT", "Brain"),
    "SKULL": ("89546000", "SCT", "Skull"),
    "NECK": ("45048000", "SCT", "Neck"),
}
ANY_REGION: Code = ("38266002", "SCT", "Entire body")


class _Derived(NamedTuple):
    """A volume on its way to DICOM.

    values: whole numbers of 16 bits; rescale and window: the attributes that lead back and that display it; series: the
    attributes that classic and enhanced objects share.
    """

    placement: Placement
    values: np.ndarray
    rescale: dict[str, str]
    window: dict[str, str]
    series: Any


def write_derived(
    volume: Volume, like: Path, out: Path, origin: Origin, slices: Slices = "source"
) -> list[Path]:
    """Write a volume as one classic DICOM file for each slice into the new folder `out`; returns the files.

    like: the series from which it was made, a folder or 'FOLDER#key'. HU become a CT series, arbitrary units an MR
    series. On the grid of `like`, in whatever order of axes, every slice has exactly the place of its source slice;
    on another grid slices have places of their own, and so they have with slices="own" where they are of another plane. The same image and source give the same UIDs. Raises BadInput for
    another unit, values beyond 16 bits, a source that is no series, and a folder that holds anything but this series.
    """
    placement, values, rescale, window, series = _derive(volume, like, out, origin, slices=slices)
    fill(
        series,
        DerivationDescription=origin.description,
        DerivationCodeSequence=[code(*SYNTHESIS)],
        QualityControlImage="NO",
        **rescale,
        **window,
        **CLASSIC[series.Modality],
    )
    if placement.plane != "AXIAL":
        # the third value says AXIAL of all slices of a CT (PS3.3, C.8.2.1.1.1)
        series.ImageType = [*series.ImageType, placement.plane]

    def objects() -> Iterator[Any]:
        """The objects, of which each is the one before with other attributes."""
        single = encode(series)
        for level, plane in enumerate(values):
            as_file(single, level)
            single.update(placement.place(level))
            single.InstanceNumber = level + 1
            single.SourceImageSequence = placement.references(level)
            single.add_new("PixelData", "OW", np.ascontiguousarray(plane).tobytes())
            yield single

    return write_objects(out, series, len(values), objects())


def write_enhanced(volume: Volume, like: Path, out: Path, origin: Origin) -> list[Path]:
    """Write a volume as one enhanced CT (HU) or MR object into the new folder `out`; returns the file.

    like, and what raises BadInput: as those of `write_derived`.
    """
    derived = _derive(volume, like, out, origin, "enhanced")
    placement, values, _, _, series = derived
    check_size(values, out)
    frame_type = FRAME_TYPE
    series.pop("Laterality", None)  # the frames state it
    if series.Modality == "MR":
        frame_type = FRAME_TYPE | FRAME_TYPE_OF_MR
        agency = placement.template.get("ApplicableSafetyStandardAgency", "NONE")
        series.ApplicableSafetyStandardAgency = agency
    evidence = item(
        SeriesInstanceUID=placement.series_uid(), ReferencedSOPSequence=placement.evidence()
    )
    # of the new object, because a source may state no study
    study = item(StudyInstanceUID=series.StudyInstanceUID, ReferencedSeriesSequence=[evidence])
    fill(
        series,
        SOPClassUID=series.SOPClassUID + ENHANCED,
        ImageType=IMAGE_TYPE,
        InstanceNumber=1,
        NumberOfFrames=len(values),
        DeviceSerialNumber=SERIAL_NUMBER,
        PresentationLUTShape="IDENTITY",
        ContentQualification="RESEARCH",
        AcquisitionContextSequence=[],
        SourceImageEvidenceSequence=[study],
        **frame_type,
    )
    _write_dimensions(series)
    series.SharedFunctionalGroupsSequence = [_groups_of_all(derived, frame_type)]
    series.PerFrameFunctionalGroupsSequence = [
        _groups(
            FrameContent=item(
                StackID="1", InStackPositionNumber=level + 1, DimensionIndexValues=[1, level + 1]
            ),
            PlanePosition=item(ImagePositionPatient=placement.place(level).ImagePositionPatient),
            DerivationImage=placement.derivation(level, origin.description, SYNTHESIS),
        )
        for level in range(len(values))
    ]
    series.add_new("PixelData", "OW", values.tobytes())
    as_file(series)
    return write_objects(out, series, 1, [series])


def _write_dimensions(series: Any) -> None:
    """Frames are counted along one stack."""
    uid = uid_of(series.SeriesInstanceUID, "dimensions")
    series.DimensionOrganizationSequence = [item(DimensionOrganizationUID=uid)]
    series.DimensionOrganizationType = "3D"
    series.DimensionIndexSequence = [
        item(
            DimensionIndexPointer=pointer,
            FunctionalGroupPointer=FRAME_CONTENT,
            DimensionOrganizationUID=uid,
        )
        for pointer in (STACK_ID, IN_STACK_POSITION)
    ]


def _groups_of_all(derived: _Derived, frame_type: dict[str, str]) -> Any:
    """The groups of all frames: pixel spacing, orientation, type, anatomy, scale and window."""
    placement, _, rescale, window, series = derived
    first = placement.place(0)
    groups = {
        "PixelMeasures": item(PixelSpacing=first.PixelSpacing, SliceThickness=first.SliceThickness),
        "PlaneOrientation": item(ImageOrientationPatient=first.ImageOrientationPatient),
        f"{series.Modality}ImageFrameType": item(FrameType=IMAGE_TYPE, **frame_type),
        "FrameAnatomy": anatomy(placement.template),
        "PixelValueTransformation": item(**rescale),
        "FrameVOILUT": item(**window),
    }
    if series.Modality == "CT":
        # the irradiation event that every CT must name: that of the source, or else a UID that no exposure has
        uid = uid_of(series.SeriesInstanceUID, "no exposure")
        uid = placement.template.get("IrradiationEventUID") or uid
        groups["IrradiationEventIdentification"] = item(IrradiationEventUID=uid)
    return _groups(**groups)


def check_size(pixels: np.ndarray, out: Path) -> None:
    """Raise BadInput for pixels that one object cannot hold."""
    if pixels.nbytes > MOST_BYTES:
        raise BadInput(
            f"{out}: expected at most {MOST_BYTES} bytes of pixels for one DICOM object, found {pixels.nbytes}. Leave it out; it stays in its own file."
        )


def anatomy(template: Any) -> Any:
    """The part of the body that frames show, by the header of a source image."""
    region = REGIONS.get(str(template.get("BodyPartExamined", "")).upper(), ANY_REGION)
    return item(AnatomicRegionSequence=[code(*region)], FrameLaterality="U")


def _derive(
    volume: Volume,
    like: Path,
    out: Path,
    origin: Origin,
    kind: str = "",
    slices: Slices = "source",
) -> _Derived:
    """The place, stored values and shared attributes of an image; raises BadInput where it is neither in HU nor of MR."""
    if volume.unit not in UNITS:
        raise BadInput(
            f"{out}: expected an image in HU (CT) or arbitrary units (MR) for a DICOM series, found {volume.modality} in {volume.unit}. Leave it out; it stays in its own file."
        )
    placement = place_volume(volume, like, slices)
    in_hu = volume.unit == "HU"
    values, slope = _store(placement.data, volume.unit, out)
    low, high = WINDOW_HU
    if not in_hu:
        low, high = 0.0, max(float(np.percentile(placement.data, 99.5)), slope)
    modality = "CT" if in_hu else "MR"
    _, rows, columns = values.shape
    series = fill(
        new_series(placement.template, volume.modality, origin, values.data, kind),
        SOPClassUID=SOP_CLASSES[modality],
        Modality=modality,
        ImageComments=origin.comments,
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
    )
    return _Derived(
        placement,
        values,
        {
            "RescaleIntercept": "0",
            "RescaleSlope": decimal_string(slope),
            "RescaleType": "HU" if in_hu else "US",
        },
        {
            "WindowCenter": decimal_string((low + high) / 2),
            "WindowWidth": decimal_string(high - low),
        },
        series,
    )


def _store(data: np.ndarray, unit: str, out: Path) -> tuple[np.ndarray, float]:
    """Voxels [D, H, W] as whole numbers of 16 bits, and their slope. Raises BadInput for values that do not fit."""
    least, most = float(data.min()), float(data.max())
    if not np.isfinite([least, most]).all():  # NaN is the least and the most wherever there is one
        raise BadInput(f"{out}: expected finite values for DICOM, found NaN. Synthesise it again.")
    fits = least >= LEAST_INTEGER and most <= MOST_INTEGER
    slope = 1.0
    if unit != "HU" and not (fits and all((plane == np.rint(plane)).all() for plane in data)):
        slope = max(most, -least, 1e-12) / MR_STEPS
    if least / slope < LEAST_INTEGER or most / slope > MOST_INTEGER:
        raise BadInput(
            f"{out}: expected values from {LEAST_INTEGER} to {MOST_INTEGER} for the 16 bits of DICOM, found {least:g} to {most:g}. Check the unit of the image."
        )
    slope = float(f"{slope:.10g}")  # as the header will state it
    stored = np.empty(data.shape, "<i2")
    for level, plane in enumerate(data):  # slices, so that no large temporary array is needed
        stored[level] = np.rint(plane if slope == 1 else plane / slope)
    return stored, slope


def _groups(**groups: Any) -> Any:
    """Functional groups, each of which is a sequence of one item."""
    return item(**{f"{name}Sequence": [group] for name, group in groups.items()})
