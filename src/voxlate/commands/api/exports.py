"""The commands that hand images on: export, export_for, listen."""

from pathlib import Path
from typing import Any

from voxlate.base.options.check import check_options
from voxlate.clinic.archive import serve as answer_studies
from voxlate.clinic.dicom_images import write_derived, write_enhanced
from voxlate.clinic.dicom_out import Exported, export_dicom
from voxlate.clinic.export_for import Converted
from voxlate.clinic.export_for import export_for as write_for
from voxlate.clinic.options.consumers import ConsumerOptions
from voxlate.clinic.options.share import ExportOptions, ListenOptions
from voxlate.commands.api.entry import command
from voxlate.commands.api.progress import Feedback, report_to


@command
def export(
    out: Path | str,
    dicom: Path | str,
    options: ExportOptions | None = None,
    *,
    progress: Feedback = True,
    **changes: Any,
) -> Exported:
    """Write synthesised images as derived DICOM series in the study of their source (research use only).

    out: folder that synthesise wrote, or one case's folder in it.
    dicom: new folder for the DICOM series.
    """
    asked = check_options(ExportOptions, options, changes)
    like = None if asked.like is None else Path(asked.like)
    with report_to(progress) as report:
        write = write_enhanced if asked.enhanced else write_derived
        progress_of = report.count("images")
        return export_dicom(
            Path(out), Path(dicom), like, progress_of, write, asked.accept_untrusted
        )


@command
def export_for(
    out: Path | str,
    to: Path | str,
    options: ConsumerOptions | None = None,
    *,
    progress: Feedback = True,
    **changes: Any,
) -> Converted:
    """Write CTs in HU for planning, protons, ultrasound or PET, in the unit of each, with the ends of their intervals.

    out: folder that synthesise wrote, one case's folder in it, or a CT in HU.
    to: folder with a folder for each case.
    """
    asked = check_options(ConsumerOptions, options, changes)
    with report_to(progress) as report:
        return write_for(Path(out), Path(to), asked, report.count("export"))


@command
def listen(
    run: Path | str,
    out: Path | str,
    options: ListenOptions | None = None,
    *,
    progress: Feedback = True,
    **changes: Any,
) -> None:
    """Receive studies by C-STORE, synthesise one at a time, and send the images by C-STORE, until interrupted.

    run: run folder, weights file, starter:NAME or hf://NAME/REPO.
    out: folder of the queue, on a disk of its own.
    """
    asked = check_options(ListenOptions, options, changes)
    with report_to(progress) as report:
        answer_studies(run, Path(out), asked, report.say)
