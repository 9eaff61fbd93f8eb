"""DICOM: the frames of an enhanced object, each with a header as that of a file of one image."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from voxlate.formats.dicom_pixels import Image
from voxlate.formats.format import errors_as
from voxlate.system.errors import BadInput

SHARED = "SharedFunctionalGroupsSequence"
PER_FRAME = "PerFrameFunctionalGroupsSequence"
# the functional groups that are read, and the name of each of their attributes in a file of one image
GROUPS: dict[str, dict[str, str]] = {
    "PixelMeasuresSequence": {
        "PixelSpacing": "PixelSpacing",
        "SliceThickness": "SliceThickness",
        "SpacingBetweenSlices": "SpacingBetweenSlices",
    },
    "PlanePositionSequence": {"ImagePositionPatient": "ImagePositionPatient"},
    "PlaneOrientationSequence": {"ImageOrientationPatient": "ImageOrientationPatient"},
    "PixelValueTransformationSequence": {
        "RescaleSlope": "RescaleSlope",
        "RescaleIntercept": "RescaleIntercept",
        "RescaleType": "RescaleType",
    },
    "FrameContentSequence": {
        "StackID": "StackID",
        "TemporalPositionIndex": "TemporalPositionIdentifier",
        "FrameAcquisitionNumber": "AcquisitionNumber",
    },
    "MREchoSequence": {"EffectiveEchoTime": "EchoTime"},
    "MRDiffusionSequence": {"DiffusionBValue": "DiffusionBValue"},
    "MRImageFrameTypeSequence": {"FrameType": "ImageType"},
    "CTImageFrameTypeSequence": {"FrameType": "ImageType"},
}
# what counts images of a series, where one object holds all of them
OF_THE_OBJECT = (
    SHARED,
    PER_FRAME,
    "NumberOfFrames",
    "InstanceNumber",
    "ImagesInAcquisition",
    "NumberOfSlices",
    "ContentTime",
    "AcquisitionTime",
)


def frames_of(header: Any, file: Path) -> Iterator[tuple[Image, Any]]:
    """The images of a file, each with its header: one, or the frames of an enhanced object.

    Raises BadInput for an enhanced object without a group of attributes for each frame.
    """
    if SHARED not in header and PER_FRAME not in header:
        yield Image(file), header
        return
    with errors_as(f"{file}: expected sound functional groups, found bad ones", "Get it again."):
        shared = list(header.get(SHARED) or [])
        groups = list(header.get(PER_FRAME) or [])
        count = int(header.get("NumberOfFrames") or 1)
        if len(groups) != count:
            raise BadInput(
                f"{file}: expected a functional group for each of {count} frames, found an enhanced object with {len(groups)}. Convert it with dcm2niix to NIfTI."
            )
        for number, group in enumerate(groups, start=1):
            yield Image(file, number), _header_of_frame(header, [*shared[:1], group], number)


def _header_of_frame(header: Any, groups: list[Any], number: int) -> Any:
    """The header of a frame: that of its object, and the attributes of its functional groups."""
    from pydicom import Dataset

    frame = Dataset()
    for element in header:
        if element.keyword not in OF_THE_OBJECT:
            frame.add(element)
    for group in groups:
        for sequence, names in GROUPS.items():
            for item in list(group.get(sequence) or [])[:1]:
                for name, own in names.items():
                    if item.get(name) is not None:
                        setattr(frame, own, item.get(name))
    pixels = header.pixels
    frame.pixels = None if pixels is None else pixels.of_frame(number)
    return frame
