"""Synthesised images as DICOM series or as a BIDS dataset, where the options of `synth` ask for these."""

from collections.abc import Sequence
from pathlib import Path

from voxlate.base.errors import plural
from voxlate.base.messages import Say, message
from voxlate.clinic.bids import check_bids, write_bids
from voxlate.clinic.dicom_out import check_dicom, export_dicom
from voxlate.synthesis.scans import CaseScans
from voxlate.synthesis.synth_options import SynthOptions


def check_layouts(scans: Sequence[CaseScans], out: Path, options: SynthOptions) -> None:
    """Raise BadInput where images of these scans cannot have the layouts of the options."""
    if options.dicom is not None:
        check_dicom(_named_files(scans))
    if options.bids:
        check_bids(out, _named_files(scans), f".{options.format}")


def write_layouts(
    folders: list[Path], scans: Sequence[CaseScans], out: Path, options: SynthOptions, say: Say
) -> None:
    """Write the images of synthesised cases in the layouts of the options. say: is called with each message."""
    if options.dicom is not None:
        exported = export_dicom(out, options.dicom, accept_untrusted=options.accept_untrusted)
        written = f"{plural(len(exported.files), 'DICOM file')} ({exported.summary}) in {options.dicom}: derived, synthetic, not for diagnosis."
        for told in (*exported.messages, message("exported", written)):
            say(told)
    if options.bids and (others := write_bids(folders, out, _named_files(scans))):
        text = f"BIDS has no suffix for {', '.join(others)}: these images are named in .bidsignore, so that the dataset is valid."
        say(message("outside-bids", text))


def _named_files(scans: Sequence[CaseScans]) -> dict[str, list[Path]]:
    """The files of each case."""
    return {scan.case: [*scan.files.values()] for scan in scans}
