"""The commands on scans and cohorts: phantom, prepare, pseudonym_key, pseudonymise."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from voxlate.anatomy.cohort import write_cohort
from voxlate.anatomy.options import PhantomOptions
from voxlate.base.errors import BadInput
from voxlate.base.options.check import check_options
from voxlate.checks.prepare import prepare as prepare_cohort
from voxlate.checks.survey import Survey, cohort_overview
from voxlate.checks.survey import survey as survey_cohort
from voxlate.clinic.deidentify import Deidentified, deidentify_folder
from voxlate.commands.api.entry import command
from voxlate.commands.api.next_steps import after_prepare
from voxlate.commands.api.progress import Feedback, report_to
from voxlate.evaluation.reports.alignment import misalignment_lines, registration_lines
from voxlate.scans.cases.prepared import Cohort
from voxlate.scans.cohorts.case_files import CohortFiles
from voxlate.scans.cohorts.find import find_cohort
from voxlate.scans.cohorts.manifest import root_and_manifest, write_manifest
from voxlate.scans.cohorts.pseudonyms import check_outside, read_key, write_key
from voxlate.scans.cohorts.split import describe_held_out, list_held_out
from voxlate.scans.options.layout import Layout
from voxlate.scans.options.prepare import PrepareOptions


@command
def phantom(
    out: Path | str,
    options: PhantomOptions | None = None,
    *,
    progress: Feedback = True,
    **changes: Any,
) -> list[Path]:
    """Write a cohort of synthetic heads, and return the folders of its cases.

    out: output folder.
    """
    asked = check_options(PhantomOptions, options, changes)
    with report_to(progress) as report:
        return write_cohort(Path(out), asked, progress=report.count("phantom"), say=report.say)


@command
def prepare(
    root: Path | str,
    out: Path | str,
    options: PrepareOptions | None = None,
    *,
    progress: Feedback = True,
    **changes: Any,
) -> Cohort:
    """Check a cohort, split it by patient, and convert it for training; the same call resumes.

    root: folder with a folder for each case, or a manifest (CSV).
    out: output folder.
    """
    asked = check_options(PrepareOptions, options, changes)
    with report_to(progress) as report:
        return prepare_cohort(root, out, asked, progress=report.count("prepare"), say=report.say)


@command
def survey(
    root: Path | str,
    options: PrepareOptions | None = None,
    *,
    progress: Feedback = True,
    **changes: Any,
) -> Survey:
    """Check units and grids of all scans as `prepare` would, and write nothing; outliers and copies are not looked for.

    root: folder with a folder for each case, or a manifest (CSV).
    """
    asked = check_options(PrepareOptions, options, changes)
    with report_to(progress) as report:
        return survey_cohort(Path(root), asked, report.count("check"))


@command
def manifest(
    root: Path | str, out: Path | str | None = None, options: Layout | None = None, **changes: Any
) -> CohortFiles:
    """Write the table of the cases, patients, splits and scans that are found in a folder, for corrections.

    root: folder of a cohort.
    out: the table, by default cases.csv in root, which prepare reads.
    """
    found = find_cohort(root, check_options(Layout, options, changes))
    write_manifest(Path(out or Path(root) / "cases.csv"), Path(root), found.cases)
    return found


@dataclass(frozen=True)
class PreparedSummary:
    """What `voxlate prepare` shows of a prepared cohort: its table, lines by modality, and the next command.

    manifest: the manifest that was found beside the scans. following: "" where no training can be planned, which `why_not`
    explains.
    """

    table: dict[str, Any]
    held_out: dict[str, list[str]]
    held_out_line: str
    lines: dict[str, str]
    registered: bool
    manifest: Path | None
    following: str
    why_not: str


def summarise(cohort: Cohort, root: Path, options: PrepareOptions) -> PreparedSummary:
    """What the command line shows of a cohort that was prepared from a root folder."""
    splits = {entry.patient: entry.split for entry in cohort.cases}
    registered = registration_lines(cohort.cases)
    lines = {**misalignment_lines(cohort.cases), **registered}
    manifest = None if options.manifest else root_and_manifest(root, None)[1]
    following, why_not = "", ""
    try:
        following = after_prepare(cohort.folder)
    except BadInput as error:
        why_not = str(error)
    return PreparedSummary(
        cohort_overview(cohort),
        list_held_out(splits),
        describe_held_out(splits),
        lines,
        bool(registered),
        manifest,
        following,
        why_not,
    )


@command
def pseudonym_key(file: Path | str, *, of: Sequence[str] | None = None) -> dict[str, str]:
    """Write a new random key for `pseudonymise`, or return the pseudonyms of patients by an existing key.

    file: key file, outside all output folders.
    of: patients whose pseudonyms are returned; the file must exist.
    """
    if of is None:
        write_key(Path(file))
        return {}
    pseudonyms = read_key(Path(file))
    return {name: pseudonyms.case(name) for name in of}


@command
def pseudonymise(folder: Path | str, out: Path | str, *, key: Path | str) -> Deidentified:
    """Copy DICOM images under pseudonyms, by the basic profile of DICOM PS3.15.

    folder: folder with DICOM files.
    out: output folder.
    key: key file of pseudonym_key.
    """
    check_outside(Path(key), Path(out))
    return deidentify_folder(Path(folder), Path(out), read_key(Path(key)))
