"""Studies of an archive: they are fetched, and their images are exported once and stored in them."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from voxlate.base.errors import BadInput, plural
from voxlate.base.messages import Say
from voxlate.clinic.archives import (
    EXAMPLE,
    Ledger,
    StudyAddress,
    WebArchive,
    fetch_study,
    is_dicomweb,
    send,
    study_address,
    study_name,
)
from voxlate.clinic.dicom_out import export_dicom
from voxlate.scans.formats.io import location_of
from voxlate.synthesis.provenance import provenance_of, source_paths
from voxlate.synthesis.synth_options import SynthOptions

FETCHED = "dicom"  # the folder of fetched studies in OUT
DERIVED, SENT = "derived", "sent.txt"
Studies = dict[Path, StudyAddress]  # that were fetched, by their folders


def fetch_inputs(
    inputs: Sequence[str], out: Path, options: SynthOptions
) -> tuple[list[str], Studies]:
    """Fetch the studies among the inputs to OUT/dicom/<study>/<study>; raises BadInput where --store has none.

    Returns the inputs with folders in place of addresses, and the studies.
    """
    studies: Studies = {}
    named = []
    for text in inputs:
        if is_dicomweb(text):
            address = study_address(text)
            name = study_name(f"{address.study} {address.series}".strip())
            folder = out / FETCHED / name / name  # synth names the case by the last part
            studies[folder] = address
            text = str(folder)
        named.append(text)
    if options.store and not studies:
        raise BadInput(
            f"--store: expected a study of a DICOMweb server as INPUT, such as {EXAMPLE}, found none. Drop --store, or name the study."
        )
    for folder, address in studies.items():
        fetch_study(WebArchive.connect(address.url), address, folder)
    return named, studies


def store_answers(
    studies: Studies, folders: Sequence[Path], say: Say, accept_untrusted: bool = False
) -> str:
    """Store images, maps, masks and reports of cases in the studies that they were computed from.

    Returns a sentence on what was stored. say: is called with a message on each that was left out or refused.
    """
    count = total = 0
    for study, address in studies.items():
        place = study.resolve()
        cases = []
        for folder in folders:
            inputs = source_paths(provenance_of(folder)).values()
            if any(location_of(path).resolve().is_relative_to(place) for path in inputs):
                cases.append(folder)
        if not cases:
            continue
        files = export_anew(cases, study.parent / DERIVED, say, accept_untrusted)
        archive = WebArchive.connect(address.url)
        count += send(files, archive, Ledger(study.parent / SENT), address.url, say=say)
        total += len(files)
    return f"{count} of {plural(total, 'file')} stored in the study now."


def export_anew(
    cases: Sequence[Path], to: Path, say: Say, accept_untrusted: bool = False
) -> list[Path]:
    """The DICOM files of cases for an archive, which have the UIDs of earlier ones of the same images; say: with each message on them."""
    shutil.rmtree(to, ignore_errors=True)
    written = export_dicom(cases, to, accept_untrusted=accept_untrusted)
    for told in written.messages:
        say(told)
    return written.files
