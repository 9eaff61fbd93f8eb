"""DICOM: the images of a file with their headers, the values of tags, and what they say of a series."""

import re
from collections.abc import Iterator, MutableSequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from voxlate.base.errors import BadInput
from voxlate.base.optional import pydicom
from voxlate.scans.formats.format import errors_as

SHARED = "SharedFunctionalGroupsSequence"
PER_FRAME = "PerFrameFunctionalGroupsSequence"
# the attributes of functional groups that are read, with their names in a file of one image
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
        "FrameReferenceDateTime": "AcquisitionDateTime",
        "FrameAcquisitionDateTime": "AcquisitionDateTime",
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
    "AcquisitionDateTime",
)


# What a series is that is no ordinary scan, by its ImageType (values behind backslashes) or its description; the first counts.
KINDS = {
    "localiser": r"locali[sz]|scout|topogram|surview|survey|3-?plane|three plane|\bloc\b",
    "screenshot": r"screen.?(save|shot)|posdisp",
    "map": r"\\(e?adc|fa|tracew|(t1|t2|t2.star|r2|r2.star|b0|b1|field).map|(rel)?cb[fv]|mtt|ttp|tmax)(?![^\\\n])",
    "phase image": r"\\(p|phase|phase.map)(?![^\\\n])",
    "subtraction": r"subtract",
    "projection": r"\bm(ax|in|n)?[ -]?ip\b|projection image",
}


@dataclass(frozen=True)
class Image:
    """One image of a DICOM file. frame: its number, from 1, in a file of several; 0 in a file of one."""

    file: Path
    frame: int = 0

    @property
    def name(self) -> str:
        """The name of the file, with the number of the frame."""
        return self.file.name + self._frame

    def __str__(self) -> str:
        return f"{self.file}{self._frame}"

    @property
    def _frame(self) -> str:
        return f" (frame {self.frame})" if self.frame else ""


Headers = dict[Image, Any]  # of a series


def images_in(header: Any, file: Path) -> Iterator[tuple[Image, Any]]:
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
            yield Image(file, number), _header_of_frame(header, [*shared[:1], group])


def _header_of_frame(header: Any, groups: list[Any]) -> Any:
    """The header of a frame: that of its object, and the attributes of its functional groups."""
    frame = pydicom.Dataset()
    for element in header:
        if element.keyword not in OF_THE_OBJECT:
            frame.add(element)
    for group in groups:
        for sequence, names in GROUPS.items():
            for item in list(group.get(sequence) or [])[:1]:
                for name, own in names.items():
                    if item.get(name) is not None:
                        setattr(frame, own, item.get(name))
    return frame


def kind_of(image_type: str, description: str) -> str:
    """The kind of a series that is no ordinary scan (KINDS); '' for one that may be."""
    text = f"{image_type}\n{description}"
    return next((kind for kind, words in KINDS.items() if re.search(words, text, re.I)), "")


def tag_errors(name: str, file: object) -> AbstractContextManager[None]:
    """The errors of reading a tag as a sentence; pydicom converts values when they are asked for."""
    return errors_as(
        f"{file}: expected a sound DICOM header, found a bad {name}", "Get the file again."
    )


def text_of(header: Any, name: str, file: object) -> str:
    """The value of a tag as text in one line, several values with a backslash between; '' where there is none."""
    with tag_errors(name, file):
        value = header.get(name)
        if isinstance(value, MutableSequence):
            value = "\\".join(map(str, value))
        return "" if value is None else " ".join(str(value).split())


def texts_of(headers: Headers, name: str) -> set[str]:
    """The values of a tag in a series, as by `text_of`."""
    return {text_of(header, name, image) for image, header in headers.items()}


def number_of(header: Any, name: str) -> float | None:
    """The value of a tag as a number; None where it is absent or no number."""
    try:
        value = float(header.get(name))
    except Exception:
        return None
    return value if np.isfinite(value) else None
