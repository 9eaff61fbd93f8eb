"""The synthesis of selected cases, and the further layouts of their images that the options of `synth` ask for."""

from pathlib import Path

from voxlate.cohorts.pseudonyms import check_outside
from voxlate.delivery.bids import check_bids, write_bids
from voxlate.delivery.dicom_out import Exported, check_dicom, export_dicom
from voxlate.executors.job import Executor
from voxlate.options.synthesise import SynthOptions
from voxlate.synthesis.cohort import NamedProgress, synthesise_cases
from voxlate.synthesis.progress import Warn, no_report, warn_unless_note
from voxlate.synthesis.selection import Selection
from voxlate.system.errors import BadInput


def deliver(
    selected: Selection,
    out: Path,
    options: SynthOptions,
    *,
    progress: NamedProgress = no_report,
    warn: Warn = warn_unless_note,
    say: Warn = no_report,
    executor: Executor | None = None,
) -> tuple[list[Path], dict[str, str]]:
    """Synthesise the selected cases into OUT; returns as `synthesise_cases`, which states the parameters."""
    ending = f".{options.format}"
    files = {
        one.case: [] if one.known_as else [*one.files.values()]  # whose names tell the subject
        for one in selected.scans
    }
    if options.pseudonymise is not None:
        check_outside(options.pseudonymise, out)
    if options.dicom is not None:
        if options.pseudonymise is not None:
            raise BadInput(
                "--dicom: expected it without --pseudonymise, found both: a derived series keeps the patient and study of its source. Run voxlate pseudonymise on the series first."
            )
        check_dicom({one.case: [*one.files.values()] for one in selected.scans})
    if options.bids:
        check_bids(out, files, ending)
    folders, failed = synthesise_cases(
        selected.model,
        selected.scans,
        out,
        seed=options.seed,
        lacking=selected.lacking,
        others=selected.others,
        parts=selected.parts,
        ending=ending,
        hidden=selected.hidden,
        progress=progress,
        warn=warn,
        say=say,
        executor=executor,
        device=options.device,
    )
    if options.dicom is not None and folders:
        _say_left_out(export_dicom(out, options.dicom), say)
    if options.bids and folders:
        _say_outside(write_bids(folders, out, files), say)
    return folders, failed


def _say_left_out(exported: Exported, say: Warn) -> None:
    for image, reason in exported.left_out.items():
        say(f"{image} has no DICOM series: {reason}.")


def _say_outside(suffixes: list[str], say: Warn) -> None:
    if suffixes:
        say(
            f"BIDS has no suffix for {', '.join(suffixes)}: these images are named in .bidsignore, so that the dataset is valid."
        )
