"""The images of a synthesis as derived DICOM series: OUT as `synth` wrote it, or an image of one case; and how far to trust them.

Images that were changed are not handed on, and those graded "do not trust" only where the user accepts that. The summary of trust
of a case is a Basic Text SR. Source: DICOM PS3.3 (2024), A.35.1 (basic text SR), C.17.2 and C.17.3 (SR document).
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from voxlate.base.errors import BadInput, DoNotTrust, first_of, plural
from voxlate.base.executors.case_work import Progress, no_report
from voxlate.base.files import lock
from voxlate.base.messages import Grade, Message, message, read_messages
from voxlate.clinic.dicom_images import (
    UNIT_CODES,
    UNITS,
    Quantity,
    quantity_of,
    refer,
    write_derived,
    write_map,
)
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
from voxlate.clinic.planning_slices import write_planning
from voxlate.evaluation.intervals.summary import describe_coverage, error_lines, percent
from voxlate.evaluation.scoring.scored_images import is_changed, is_map, modality_of
from voxlate.scans.formats.dicom import folder_and_key, images_of, is_dicom_folder
from voxlate.scans.formats.dicom_file import read_dicom
from voxlate.scans.formats.io import content_hash, is_picture, read_volume
from voxlate.scans.images.grid import Grid, canonical, same_grid
from voxlate.scans.images.units import unit_of
from voxlate.synthesis.provenance import (
    OF_TRAINING,
    SHARED_SECONDS,
    provenance_of,
    source_paths,
)

PROVENANCE = "provenance.json"
REPORT = "report"  # the folder of the summary of trust
STRUCTURE = "rtstruct"  # the end of the folder of a CT's structure set
SAME_PLACE_MM = 0.1  # converters round headers
# What the headers state of a provenance: no path, and no name of a case.
IN_HEADER = ("model", "seed", "synth", "units", "warnings", "notice")
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


@dataclass
class Exported:
    """The folders of written series by their kind, as `voxlate.export` returns them.

    Args:
        series: CT and MR images.
        maps: Parametric Maps.
        structures: RT Structure Sets.
        reports: summaries of trust.
        messages: why images have no object, and what was taken on the user's word.

    Example:
        >>> import voxlate
        >>> _ = voxlate.synthesise("RUN", {"t1": "SERIES"}, "NEW", anyway=True, progress=False)
        >>> exported = voxlate.export("NEW", "DICOM", accept_untrusted=True, progress=False)
        >>> [folder.name for folder in exported.folders], len(exported.reports)
        (['t2'], 1)
    """

    series: list[Path] = field(default_factory=list)
    maps: list[Path] = field(default_factory=list)
    structures: list[Path] = field(default_factory=list)
    reports: list[Path] = field(default_factory=list)
    messages: list[Message] = field(default_factory=list)

    @property
    def folders(self) -> list[Path]:
        """All images."""
        return [*self.series, *self.maps]

    @property
    def files(self) -> list[Path]:
        """All DICOM files, images first."""
        return _dicom_files([*self.folders, *self.structures, *self.reports])

    @property
    def summary(self) -> str:
        """The numbers of files, and of folders of each kind, such as '9 DICOM files (2 series, 1 map, 1 report)'."""
        counts = {
            "map": len(self.maps),
            "structure set": len(self.structures),
            "report": len(self.reports),
        }
        parts = [f"{len(self.series)} series"] if self.series else []
        parts += [plural(count, kind) for kind, count in counts.items() if count]
        return f"{plural(len(self.files), 'DICOM file')} ({', '.join(parts)})"


def export_dicom(
    out: Path | Sequence[Path],
    to: Path,
    like: Path | None = None,
    progress: Progress = no_report,
    accept_untrusted: bool = False,
    rtstruct: bool = False,
) -> Exported:
    """Write TO/<case>/<image>/0001.dcm … for every image in a folder that synth wrote, or in one of its case folders.

    Images in HU and of MR become CT and MR series; other images, spreads and interval bounds become Parametric Maps; the
    summary of trust of each case becomes a document, TO/<case>/report.

    out: the folder, or the folders of its cases. like: the DICOM series of the source, where OUT holds one case; by
    default that from which each case was made, as its provenance states it. progress is called with (images done,
    images). rtstruct: CTs are written on transverse slices of square pixels, with the body as contours,
    TO/<case>/<image>_rtstruct. Images that no object can hold are left out and listed, and so are cases that are graded
    "do not trust", unless they are accepted; DoNotTrust is raised where there are no others. Raises BadInput for a
    folder without images, cases that were not made of DICOM, and a `like` for several cases. A series that is there, of the same image and source, is kept.
    """
    if isinstance(out, Path):
        out = sorted(path.parent for path in out.glob(f"*/{PROVENANCE}")) or [out]
    if like is not None and len(out) > 1:
        raise BadInput(
            f"--like: expected one case, of which {like} is the source, found {len(out)}. Name the folder of one case."
        )
    names = {case: image_files(case) for case in out}
    every = [modality_of(name) for files in names.values() for name in files]
    if not every:
        raise BadInput(f"{out[0]}: expected images that synth wrote, found none. Name its --out.")
    if rtstruct and "HU" not in map(unit_of, every):
        raise BadInput("--rtstruct: expected a CT in HU, found none. Leave --rtstruct out.")
    exported = Exported()
    done = 0
    with lock(to, SHARED_SECONDS):
        for case, files in names.items():
            reason = why_not(provenance_of(case))
            if reason and not accept_untrusted:
                text = f'{case.name}: expected images that may be handed on, found them graded "do not trust": {reason} Synthesise better scans, or add --accept-untrusted.'
                if len(out) == 1:
                    raise DoNotTrust(text)
                exported.messages.append(message("not-handed-on", text, case=case.name))
                continue
            source = check_source(case, like, exported.messages)
            for name in files:
                progress(done, len(every))
                done += 1
                _export_image(case / name, source, to, exported, rtstruct)
            _export_report(case, source, to, exported)
    progress(done, len(every))
    return exported


def _export_image(path: Path, source: Path, to: Path, exported: Exported, rtstruct: bool) -> None:
    """Write an image or map as the object that can carry it, or note why there is none."""
    case = path.parent
    modality = modality_of(path.name)
    name = path.name.split(".")[0]
    folder = to / case.name / name
    provenance = provenance_of(case)
    origin = origin_of(provenance)
    volume = read_volume(path, modality)
    quantity = Quantity(modality, volume.unit)  # a scan may be called ct_low
    if is_map(modality, [*map(modality_of, provenance["images"])]):
        quantity = quantity_of(modality, volume.unit)
    if quantity.statistic or volume.unit not in UNITS:
        if quantity.unit not in UNIT_CODES:
            text = f"{case.name}/{path.name} has no DICOM object: DICOM has no code for the unit {quantity.unit!r}."
            exported.messages.append(message("no-dicom", text))
            return
        write_map(volume, quantity, source, folder, origin)
        exported.maps.append(folder)
        return
    if rtstruct and volume.unit == "HU":
        structure = to / case.name / f"{name}_{STRUCTURE}"
        write_planning(volume, source, folder, structure, origin)
        exported.structures.append(structure)
    else:
        write_derived(volume, source, folder, origin)
    exported.series.append(folder)


def _export_report(case: Path, source: Path, to: Path, exported: Exported) -> None:
    """Write the summary of trust of a case beside its images, if there are any."""
    folders = [folder for folder in exported.folders if folder.is_relative_to(to / case.name)]
    if folders:
        images = [_dicom_files([folder])[0] for folder in folders]
        provenance = provenance_of(case)
        folder = to / case.name / REPORT
        write_report(trust_summary(provenance), images, source, folder, origin_of(provenance))
        exported.reports.append(folder)


def _dicom_files(folders: Sequence[Path]) -> list[Path]:
    """The DICOM files in folders, one folder after the other."""
    return [file for folder in folders for file in sorted(folder.glob("*.dcm"))]


def check_dicom(files: Mapping[str, Sequence[Path]]) -> None:
    """Raise BadInput before a synthesis of cases that have no DICOM series, whose images could not be exported."""
    for case, paths in files.items():
        if not any(is_series(path) for path in paths):
            raise BadInput(
                f"--dicom: expected a DICOM series as the scan of every case, found {first_of(paths) or 'none'} of {case}. Leave --dicom out, and use voxlate export --like SERIES."
            )


def is_series(path: Path) -> bool:
    """Whether a path is that of a DICOM series, a folder or 'FOLDER#key'."""
    folder, _ = folder_and_key(path)
    return folder.is_dir() and is_dicom_folder(folder)


def image_files(case: Path) -> list[str]:
    """The images of a case, as its provenance records them and synth wrote them; pictures are left out."""
    provenance = provenance_of(case)
    images = []
    for name in provenance.get("images", ()):
        image = case / name
        if is_picture(image) or not image.is_file():
            continue
        if is_changed(image, provenance):
            raise BadInput(
                f"{image}: expected the image that synth wrote, found another content (its checksum differs). Synthesise it again."
            )
        images.append(name)
    return images


def check_source(case: Path, like: Path | None, messages: list[Message]) -> Path:
    """The series whose patient and study the images of a case get; raises BadInput where it is not that of the case."""
    source = like or _source_of(case)
    hashes = {scan.get("sha256") for scan in provenance_of(case).get("inputs", {}).values()}
    if content_hash(source) in hashes:
        return source
    if like is None:
        raise BadInput(
            f"{source}: expected the series from which {case.name} was synthesised, found other files in its place (their checksum differs). Put the series back, or name it by --like."
        )
    if not _is_on_grid(case, like):  # of a file that was converted from the series it would be
        raise BadInput(
            f"--like: expected the series from which the source of {case.name} was converted, on whose grid the images are ({_grid_of(case)}), found {like} on another grid ({read_volume(like).grid}), as of another scan or patient. Name the right series, or synthesise from the series itself."
        )
    text = f"{like} is not the scan from which the images were synthesised (its files differ); they get its patient and study on your word."
    messages.append(message("other-source", text, case=case.name))
    return source


def _is_on_grid(case: Path, series: Path) -> bool:
    """Whether the images of a case are on the slices of a series; those of another grid may be of another patient."""
    return same_grid(_grid_of(case), canonical(read_volume(series)).grid, SAME_PLACE_MM)


def _grid_of(case: Path) -> Grid:
    return canonical(read_volume(case / image_files(case)[0])).grid


def _source_of(case: Path) -> Path:
    """The DICOM series from which a case was made: of several, the first on whose slices its images are."""
    scans = source_paths(provenance_of(case)).values()
    series = [path for path in scans if is_series(path)]
    if not series:
        stated = [*scans, "a file of unstated place, such as a NIfTI file that was saved in Python"]
        raise BadInput(
            f"{case}: expected a synthesis of a DICOM series that is still in its place, found one of {stated[0]}. Name the series, from which a file may have been converted, by --like."
        )
    if len(series) == 1:
        return series[0]
    return next((path for path in series if _is_on_grid(case, path)), series[0])


def origin_of(provenance: Mapping[str, Any]) -> Origin:
    """The provenance as headers state it, and the hash of the whole."""
    model = provenance.get("model", {})
    whole = json.dumps({key: provenance.get(key) for key in IN_HEADER}, sort_keys=True, default=str)
    facts = [
        f"weights={model.get('weights', '')}",
        f"seed={provenance.get('seed', '')}",
        f"provenance={hashlib.sha256(whole.encode()).hexdigest()[:16]}",
        *(f"warning={warning}" for warning in read_messages(provenance)),
        f"notice={provenance.get('notice', '')}",
    ]
    return Origin(
        str(model.get("title", "")),
        str(provenance.get("voxlate", "")),
        facts,
        why_not(provenance),
        why_not(provenance, "caution"),
    )


def why_not(provenance: Mapping[str, Any], grade: Grade = "do not trust") -> str:
    """Why the images of a provenance are not to be trusted, or have another grade; "" where nothing says so."""
    return " ".join(said.text for said in read_messages(provenance) if said.grade == grade)


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
