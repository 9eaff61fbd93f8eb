"""Trust in the images of a case: whether they may be handed on, a summary in sentences, and the summary as a DICOM document.

Images that were changed are not handed on, and those graded "do not trust" only where the user accepts that. The document
is a Basic Text SR. Source: DICOM PS3.3 (2024), A.35.1 (basic text SR), C.17.2 and C.17.3 (SR document).
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from voxlate.base.errors import BadInput, DoNotTrust
from voxlate.base.messages import Grade, Message, message, read_messages
from voxlate.clinic.dicom_images import refer
from voxlate.clinic.dicom_series import (
    COMMENTS,
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
from voxlate.evaluation.intervals.summary import describe_coverage, error_lines, percent
from voxlate.evaluation.scoring.scored_images import is_changed
from voxlate.scans.formats.dicom import images_of
from voxlate.scans.formats.dicom_file import read_dicom
from voxlate.synthesis.provenance import OF_TRAINING, provenance_of

NO_INTERVALS = "No prediction intervals: the model is not calibrated."
HEADINGS = {
    "NOTICE": "Intended use",
    "MODEL": "Recipe and weights of the model",
    "SOURCE": "Source scans",
    "ERROR": "Expected error",
    "COVERAGE": "Coverage of the prediction intervals",
    "WARNING": "Warning",
}
TITLE: Code = ("TRUST", PRIVATE_SCHEME, "Summary of trust in synthetic images")
IMAGE: Code = ("IMAGE", PRIVATE_SCHEME, "First image of a series that the summary is about")
BASIC_TEXT = "1.2.840.10008.5.1.4.1.1.88.11"
UTF_8 = "ISO_IR 192"
# Attributes of images, which a document does not have.
OF_IMAGES = (
    "FrameOfReferenceUID",
    "PositionReferenceIndicator",
    "PatientPosition",
    "BodyPartExamined",
)


def why_not(provenance: Mapping[str, Any], grade: Grade = "do not trust") -> str:
    """Why the images of a provenance are not to be trusted, or have another grade; "" where nothing says so."""
    return " ".join(said.text for said in read_messages(provenance) if said.grade == grade)


def refuse_changed(images: Iterable[Path]) -> None:
    """Raise BadInput for an image that was changed after synth wrote it, by the checksum in the provenance beside it."""
    for image in images:
        if is_changed(image, provenance_of(image.parent)):
            raise BadInput(
                f"{image}: expected the image that synth wrote, found another content (its checksum differs). Synthesise it again."
            )


def withheld(
    case: str, provenance: Mapping[str, Any], accepted: bool, alone: bool
) -> Message | None:
    """A message where one of several cases is not handed on; raises DoNotTrust where it is alone."""
    reason = why_not(provenance)
    if accepted or not reason:
        return None
    text = f'{case}: expected images that may be handed on, found them graded "do not trust": {reason} Synthesise better scans, or add --accept-untrusted.'
    if alone:
        raise DoNotTrust(text)
    return message("not-handed-on", text, case=case)


def trust_summary(provenance: Mapping[str, Any]) -> list[tuple[Code, str]]:
    """Sentences on the images of a case, each under the code of its heading; provenance: that of the case."""
    model = provenance["model"]
    units = provenance.get("units", {})
    calibration = provenance.get("calibration")
    scans = [f"{name} (hash {scan['sha256']})" for name, scan in provenance["inputs"].items()]
    warnings = dict.fromkeys(map(str, read_messages(provenance)))
    if provenance.get("in_training"):
        warnings[OF_TRAINING] = None
    level = percent(1 - calibration["coverage"]) if calibration else ""
    bounds = [
        f"The mean absolute error of {name} inside the body exceeds {bound['mae']:g} {units[name]} with a probability of at most {level}."
        for name, bound in provenance.get("bounds", {}).items()
    ]
    sentences = {
        "NOTICE": [str(provenance.get("notice") or COMMENTS)],
        "MODEL": [
            f"Recipe: {model['title']}. Hash of the weights: {model.get('weights')}. Seed {provenance.get('seed')}, voxlate {provenance.get('voxlate')}."
        ],
        "SOURCE": [f"{', '.join(scans)}."],
        "ERROR": [*error_lines(provenance), *bounds],
        "COVERAGE": [describe_coverage(calibration) if calibration else NO_INTERVALS],
        "WARNING": [*warnings] or ["None."],
    }
    return [
        ((key, PRIVATE_SCHEME, HEADINGS[key]), text)
        for key, texts in sentences.items()
        for text in texts
    ]


def write_report(
    sentences: Sequence[tuple[Code, str]],
    images: Sequence[Path],
    like: Path,
    out: Path,
    origin: Origin,
) -> list[Path]:
    """Write sentences, each under the code of its heading, as one document into the new folder `out`; returns the file.

    images: the first DICOM file of each series that the document is about; like: the series from which they were made.
    Raises BadInput for a source that is no series, and a folder that holds anything but this document.
    """
    template, *evidence = (
        read_dicom(file, stop_before_pixels=True) for file in (images_of(like)[0].file, *images)
    )
    content = [text for _, text in sentences] + [image.SOPInstanceUID for image in evidence]
    report = new_series(template, "summary of trust", origin, "\n".join(content).encode(), "report")
    for keyword in OF_IMAGES:
        report.pop(keyword, None)
    series = [
        item(SeriesInstanceUID=image.SeriesInstanceUID, ReferencedSOPSequence=[refer(image)])
        for image in evidence
    ]
    study = item(StudyInstanceUID=report.StudyInstanceUID, ReferencedSeriesSequence=series)
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
        CurrentRequestedProcedureEvidenceSequence=[study],
        ContentSequence=[
            *(_entry("TEXT", heading, TextValue=text) for heading, text in sentences),
            *(_entry("IMAGE", IMAGE, ReferencedSOPSequence=[refer(image)]) for image in evidence),
        ],
    )
    return write_objects(out, report, 1, [as_file(report)])


def _entry(kind: str, heading: Code, **content: Any) -> Any:
    """An item of the document's content, under the code of its heading."""
    return item(
        RelationshipType="CONTAINS",
        ValueType=kind,
        ConceptNameCodeSequence=[code(*heading)],
        **content,
    )
