"""The synthesis of selected cases, and the further layouts of their images that the options of `synth` ask for."""

from pathlib import Path

from voxlate.base.errors import BadInput, plural
from voxlate.base.executors.job import NamedProgress
from voxlate.base.messages import Say, message
from voxlate.clinic.bids import check_bids, write_bids
from voxlate.clinic.dicom_out import check_dicom, export_dicom
from voxlate.scans.cohorts.pseudonyms import check_outside
from voxlate.scans.formats.itk import ITK, load_writer
from voxlate.synthesis.cohort import synthesise_cases
from voxlate.synthesis.options import SynthOptions
from voxlate.synthesis.progress import no_report, warn_unless_note
from voxlate.synthesis.selection import Selection


def deliver(
    selected: Selection,
    out: Path,
    options: SynthOptions,
    *,
    progress: NamedProgress = no_report,
    say: Say = warn_unless_note,
) -> tuple[list[Path], dict[str, str]]:
    """Synthesise the selected cases into OUT; returns as `synthesise_cases`, which states the parameters."""
    ending = f".{options.format}"
    files = {
        scan.case: [] if scan.known_as else [*scan.files.values()]  # whose names tell the subject
        for scan in selected.scans
    }
    if options.pseudonymise is not None:
        check_outside(options.pseudonymise, out)
    if options.dicom is not None:
        if options.pseudonymise is not None:
            raise BadInput(
                "--dicom: expected it without --pseudonymise, found both: a derived series keeps the patient and study of its source. Run voxlate pseudonymise on the series first."
            )
        check_dicom({scan.case: [*scan.files.values()] for scan in selected.scans})
    if ending in ITK.written_endings:
        load_writer(f"--format {options.format}")
    if options.bids:
        check_bids(out, files, ending)
    folders, failed = synthesise_cases(selected, out, options, progress=progress, say=say)
    if options.dicom is not None and folders:
        exported = export_dicom(out, options.dicom)
        written = f"{plural(len(exported.files), 'DICOM file')} ({exported.summary}) in {options.dicom}: derived, synthetic, not for diagnosis."
        for told in (*exported.messages, message("exported", written)):
            say(told)
    if options.bids and folders and (others := write_bids(folders, out, files)):
        text = f"BIDS has no suffix for {', '.join(others)}: these images are named in .bidsignore, so that the dataset is valid."
        say(message("outside-bids", text))
    return folders, failed
