"""DICOM out: sentences as a Basic Text SR document beside the images that they are about.

Source: DICOM PS3.3 (2024), A.35.1 (basic text SR), C.17.2 and C.17.3 (SR document).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from voxlate.base.groups import grouped
from voxlate.clinic.dicom_placement import refer
from voxlate.scans.formats.dicom import headers_of
from voxlate.scans.formats.dicom_headers import read_dicom
from voxlate.scans.formats.dicom_series import (
    PRIVATE_SCHEME,
    Code,
    Origin,
    as_file,
    code,
    fill,
    item,
    new_series,
    write_objects,
)

TITLE: Code = ("TRUST", PRIVATE_SCHEME, "Summary of trust in synthetic images")
IMAGE: Code = ("IMAGE", PRIVATE_SCHEME, "Middle image of a series that the summary is about")
BASIC_TEXT = "1.2.840.10008.5.1.4.1.1.88.11"
REFERENCED = ["SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID"]
UTF_8 = "ISO_IR 192"
# Attributes of images, which a document does not have.
OF_IMAGES = (
    "FrameOfReferenceUID",
    "PositionReferenceIndicator",
    "PatientPosition",
    "Laterality",
    "BodyPartExamined",
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
    first = next(iter(headers_of(like)))
    template = read_dicom(first.file, stop_before_pixels=True)
    evidence = [read_dicom(file, specific_tags=REFERENCED) for file in images]
    content = [text for _, text in sentences] + [image.SOPInstanceUID for image in evidence]
    report = new_series(template, "summary of trust", origin, "\n".join(content).encode(), "report")
    for keyword in OF_IMAGES:
        report.pop(keyword, None)
    by_series = grouped((image.SeriesInstanceUID, image) for image in evidence)
    middles = [group[len(group) // 2] for group in by_series.values()]
    fill(
        report,
        SpecificCharacterSet=UTF_8,
        SOPClassUID=BASIC_TEXT,
        Modality="SR",
        InstanceNumber=1,
        ReferencedPerformedProcedureStepSequence=[],
        PerformedProcedureCodeSequence=[],
        CompletionFlag="COMPLETE",
        VerificationFlag="UNVERIFIED",
        ValueType="CONTAINER",
        ContinuityOfContent="SEPARATE",
        ConceptNameCodeSequence=[code(*TITLE)],
        ContentSequence=[
            *(_entry("TEXT", heading, TextValue=text) for heading, text in sentences),
            *(_entry("IMAGE", IMAGE, ReferencedSOPSequence=[refer(image)]) for image in middles),
        ],
    )
    if evidence:
        report.StudyInstanceUID = evidence[0].StudyInstanceUID
        series = [
            item(SeriesInstanceUID=uid, ReferencedSOPSequence=[*map(refer, images)])
            for uid, images in by_series.items()
        ]
        study = item(StudyInstanceUID=report.StudyInstanceUID, ReferencedSeriesSequence=series)
        report.CurrentRequestedProcedureEvidenceSequence = [study]
    as_file(report)
    return write_objects(out, report, 1, [report])


def _entry(kind: str, heading: Code, **content: Any) -> Any:
    """An item of the document's content, under the code of its heading."""
    return item(
        RelationshipType="CONTAINS",
        ValueType=kind,
        ConceptNameCodeSequence=[code(*heading)],
        **content,
    )
