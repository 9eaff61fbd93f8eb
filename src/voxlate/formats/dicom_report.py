"""DICOM out: sentences as a Basic Text SR document beside the images that they are about.

Source: DICOM PS3.3 (2024), A.35.1 (basic text SR), C.17.2 and C.17.3 (SR document).
"""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from voxlate.formats.dicom import headers_of
from voxlate.formats.dicom_headers import (
    Origin,
    as_file,
    code,
    instance_uid,
    new_series,
    write_objects,
)
from voxlate.images.optional import optional_package

Code = tuple[str, str, str]  # value, scheme and meaning
TITLE: Code = ("TRUST", "99VOXLATE", "Summary of trust in synthetic images")
IMAGE: Code = ("IMAGE", "99VOXLATE", "Middle image of a series that the summary is about")
_BASIC_TEXT = "1.2.840.10008.5.1.4.1.1.88.11"
_REFERENCED = ["SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID"]
UTF_8 = "ISO_IR 192"
# Attributes of images, which a document does not have.
_OF_IMAGES = (
    *("FrameOfReferenceUID", "PositionReferenceIndicator", "PatientPosition", "Laterality"),
    *("BodyPartExamined",),
)


def write_report(
    sentences: Sequence[tuple[Code, str]],
    images: Sequence[Path],
    like: Path,
    out: Path,
    origin: Origin,
) -> list[Path]:
    """Write sentences, each under the code of its heading, as one document into the new folder `out`; returns the file.

    images: the DICOM files that the document is about; like: the series from which they were made. Raises BadInput for
    a source that is no series, and a folder that holds anything but this document.
    """
    pydicom = optional_package("pydicom", "dicom", like, "pydicom to write DICOM files")
    first = next(iter(headers_of(like)))
    template = pydicom.dcmread(first.file, stop_before_pixels=True)
    evidence = [pydicom.dcmread(file, specific_tags=_REFERENCED) for file in images]
    content = "\n".join(
        [*(text for _, text in sentences), *(str(one.SOPInstanceUID) for one in evidence)]
    )
    digest = hashlib.sha256(content.encode()).hexdigest()
    made = new_series(pydicom, template, "summary of trust", origin, digest, "report")
    for name in _OF_IMAGES:
        if name in made:
            del made[name]
    if evidence:
        made.StudyInstanceUID = evidence[0].StudyInstanceUID
    made.SpecificCharacterSet = UTF_8
    made.SOPClassUID, made.Modality = _BASIC_TEXT, "SR"
    made.InstanceNumber = 1
    by_series = dict[str, list[Any]]()
    for one in evidence:
        by_series.setdefault(str(one.SeriesInstanceUID), []).append(one)
    _write_document(pydicom, made, by_series)
    items = [_text(pydicom, heading, text) for heading, text in sentences]
    made.ContentSequence = [*items, *_illustrations(pydicom, by_series)]
    as_file(pydicom, made, instance_uid(pydicom, made, 0))
    return write_objects(pydicom, out, made, 1, [made])


def _write_document(pydicom: Any, made: Any, by_series: Mapping[str, Sequence[Any]]) -> None:
    """The title of the document, its state, and the images that it refers to."""
    made.ReferencedPerformedProcedureStepSequence = []
    made.PerformedProcedureCodeSequence = []
    made.CompletionFlag, made.VerificationFlag = "COMPLETE", "UNVERIFIED"
    made.ValueType, made.ContinuityOfContent = "CONTAINER", "SEPARATE"
    made.ConceptNameCodeSequence = [code(pydicom, *TITLE)]
    if not by_series:
        return
    study = pydicom.Dataset()
    study.StudyInstanceUID = made.StudyInstanceUID
    study.ReferencedSeriesSequence = []
    for uid, images in by_series.items():
        item = pydicom.Dataset()
        item.SeriesInstanceUID = uid
        item.ReferencedSOPSequence = [_reference(pydicom, one) for one in images]
        study.ReferencedSeriesSequence.append(item)
    made.CurrentRequestedProcedureEvidenceSequence = [study]


def _reference(pydicom: Any, one: Any) -> Any:
    item = pydicom.Dataset()
    item.ReferencedSOPClassUID = one.SOPClassUID
    item.ReferencedSOPInstanceUID = one.SOPInstanceUID
    return item


def _text(pydicom: Any, heading: Code, text: str) -> Any:
    item = pydicom.Dataset()
    item.RelationshipType, item.ValueType = "CONTAINS", "TEXT"
    item.ConceptNameCodeSequence = [code(pydicom, *heading)]
    item.TextValue = text
    return item


def _illustrations(pydicom: Any, by_series: Mapping[str, Sequence[Any]]) -> list[Any]:
    """The middle image of each series, so that the document refers to it."""
    items = []
    for images in by_series.values():
        item = pydicom.Dataset()
        item.RelationshipType, item.ValueType = "CONTAINS", "IMAGE"
        item.ConceptNameCodeSequence = [code(pydicom, *IMAGE)]
        item.ReferencedSOPSequence = [_reference(pydicom, images[len(images) // 2])]
        items.append(item)
    return items
