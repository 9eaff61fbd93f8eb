"""Synthesis of studies in a picture archive: they are fetched or received, and the images go back as derived series."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from voxlate.base.errors import BadInput
from voxlate.base.executors.case_work import no_report
from voxlate.base.messages import Say
from voxlate.clinic.address import StudyAddress, ae_title, is_dicomweb, node, study_address
from voxlate.clinic.dicom_out import Exported, export_case
from voxlate.clinic.dimse import NodeArchive
from voxlate.clinic.listen import listen
from voxlate.clinic.queue import Answer, Queue, study_name
from voxlate.clinic.sending import Ledger, send
from voxlate.clinic.share_options import ListenOptions
from voxlate.clinic.trust import withheld
from voxlate.clinic.web import WebArchive, fetch_study
from voxlate.scans.formats.io import location_of, read_volume
from voxlate.scans.images.grid import Grid, Volume, same_grid
from voxlate.synthesis.cohort import synthesise_cases
from voxlate.synthesis.model import Model
from voxlate.synthesis.provenance import provenance_of, source_paths
from voxlate.synthesis.selection import select
from voxlate.synthesis.synth_options import SynthOptions
from voxlate.training.load import load

FETCHED = "dicom"  # the folder of fetched studies in OUT
DERIVED, SENT = "derived", "sent.txt"


Studies = dict[Path, StudyAddress]  # that were fetched, by their folders


def fetch_inputs(
    inputs: Sequence[str], out: Path, options: SynthOptions
) -> tuple[list[str], Studies]:
    """Fetch the studies among the inputs to OUT/dicom/<study>/<study>; raises BadInput where --store has none.

    Returns the inputs with folders in place of addresses, and the studies.
    """
    addresses = {text: study_address(text) for text in inputs if is_dicomweb(text)}
    if options.store and not addresses:
        raise BadInput(
            "--store: expected a study of a DICOMweb server as INPUT, such as dicomweb://HOST/studies/UID, found none. Drop --store, or name the study."
        )
    studies = {}
    named = []
    for text in inputs:
        if address := addresses.get(text):
            name = study_name(f"{address.study} {address.series}".strip())
            folder = out / FETCHED / name / name  # synth names the case by the last part
            fetch_study(WebArchive.connect(address.url), address, folder)
            studies[folder] = address
            text = str(folder)
        named.append(text)
    return named, studies


def store_answers(
    studies: Studies,
    folders: Sequence[Path],
    say: Say = no_report,
    accept_untrusted: bool = False,
) -> str:
    """Store images, maps, masks and reports of cases in the studies that they were computed from.

    Returns a sentence on what was stored. say: is called with a message on each that was left out or refused.
    """
    count = 0
    stored = Exported()
    for study, address in studies.items():
        place = study.resolve()
        cases = []
        for folder in folders:
            inputs = source_paths(provenance_of(folder)).values()
            if any(location_of(path).resolve().is_relative_to(place) for path in inputs):
                cases.append(folder)
        written = write_objects_of(cases, study.parent / DERIVED, say, accept_untrusted)
        archive = WebArchive.connect(address.url)
        count += send(written.files, archive, Ledger(study.parent / SENT), address.url, say=say)
        stored.add(written)
    return f"{count} of {len(stored.files)} files stored in the study now: {stored.summary}."


def write_objects_of(
    folders: Sequence[Path], to: Path, say: Say, accept_untrusted: bool = False
) -> Exported:
    """Write what `export` writes of cases as DICOM files below a new folder; say: as that of `store_answers`."""
    shutil.rmtree(to, ignore_errors=True)
    written = Exported()
    for folder in folders:
        stated = provenance_of(folder)
        if left := withheld(folder.name, stated, accept_untrusted, len(folders) == 1):
            say(left)
            continue
        grids = {path: read_volume(path).grid for path in source_paths(stated).values()}
        written.add(export_case(folder, to, partial(_source_on_grid, grids)))
    for said in written.messages:
        say(said)
    if folders and not written.folders:
        raise BadInput(
            f"{folders[0].name}: expected an image that a DICOM object can carry, found none. Keep the images in their own files."
        )
    return written


def _source_on_grid(grids: Mapping[Path, Grid], volume: Volume) -> Path:
    for path, grid in grids.items():
        if same_grid(grid, volume.grid):
            return path
    raise BadInput(
        f"{volume.origin}: expected an image on the slices of one of its source series, found another grid ({volume.grid}). Keep it as NIfTI."
    )


def serve(run: Path | str, queue: Path, options: ListenOptions, say: Say = no_report) -> None:
    """Answer studies until the process ends. queue: the folder of the queue; say: is called with each message."""
    target = node(options.to)
    title = ae_title(options.title, "--title")
    options = replace(
        options, title=title, allow=[ae_title(sender, "--allow") for sender in options.allow]
    )
    model = load(run, options.device)

    def send_files(files: list[Path], ledger: Ledger) -> int:
        """Send the files of an answer; returns the number of those that were sent now."""
        archive = NodeArchive(target, title)
        try:
            return send(files, archive, ledger, target, say=say)
        finally:
            archive.close()

    listen(
        Queue(queue, options.idle),
        _answer_by(model, options, say),
        send_files,
        options,
        say=say,
    )


def _answer_by(model: Model, asked: ListenOptions, say: Say) -> Answer:
    """The answer of a model to a received study: the DICOM files of its images, written into a folder."""
    options = SynthOptions(device=asked.device, anyway=asked.anyway)

    def answer(scans: Path, images: Path) -> list[Path]:
        """The files of the images of a study."""
        selected = select(model, [str(scans)], options)
        folders, *_ = synthesise_cases(selected, images / "out", options, say=say)
        return write_objects_of(folders, images / DERIVED, say, asked.accept_untrusted).files

    return answer
