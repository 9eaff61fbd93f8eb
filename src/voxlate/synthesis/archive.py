"""Synthesis of studies in a picture archive: they are fetched, and the images go back as derived series."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from voxlate.errors import BadInput
from voxlate.images.formats.dicom_derived import UNITS, write_derived
from voxlate.images.grid import Volume, same_grid
from voxlate.images.io import read_volume
from voxlate.pacs.address import StudyAddress, is_dicomweb, study_address
from voxlate.pacs.queue import Answer, study_name
from voxlate.pacs.sending import Ledger, send
from voxlate.pacs.web import WebArchive, fetch_study
from voxlate.scoring.provenance import provenance_of, stated_inputs
from voxlate.scoring.scored_images import images_in, is_map
from voxlate.synthesis.calls import Warn, no_report
from voxlate.synthesis.delivery import deliver
from voxlate.synthesis.dicom_out import origin_of
from voxlate.synthesis.ensemble import Ensemble
from voxlate.synthesis.model import Model
from voxlate.synthesis.options import SynthOptions
from voxlate.synthesis.selection import select

FETCHED = "dicom"  # the folder of fetched studies in OUT
DERIVED, SENT = "derived", "sent.txt"


@dataclass(frozen=True)
class Fetched:
    """The inputs of a command, with folders in place of addresses, and the studies that were fetched into them."""

    inputs: list[str]
    studies: dict[Path, StudyAddress]


def fetch_inputs(inputs: Sequence[str], out: Path, options: SynthOptions) -> Fetched:
    """Fetch the studies among the inputs to OUT/dicom/<study>/<study>; raises BadInput where --store has none."""
    addresses = {text: study_address(text) for text in inputs if is_dicomweb(text)}
    if options.store and not addresses:
        raise BadInput(
            "--store: expected a study of a DICOMweb server as INPUT, such as dicomweb://HOST/studies/UID, found none. Drop --store, or name the study."
        )
    if options.store and options.pseudonymise is not None:
        raise BadInput(
            "--store: expected no --pseudonymise, found it: images in the study of a patient have the patient's ids. Drop one of the two."
        )
    studies = dict[Path, StudyAddress]()
    named = list[str]()
    for text in inputs:
        if text not in addresses:
            named.append(text)
            continue
        address = addresses[text]
        name = study_name(f"{address.study} {address.series}".strip())
        folder = out / FETCHED / name / name  # synth names the case by the last part
        fetch_study(WebArchive.connect(address.url), address, folder)
        studies[folder] = address
        named.append(str(folder))
    return Fetched(named, studies)


def store_answers(fetched: Fetched, folders: Sequence[Path]) -> int:
    """Store the images of cases in the studies that they were computed from; returns the number of images sent now."""
    count = 0
    for study, address in fetched.studies.items():
        own = study.parent
        files = derived_series(folders, own / DERIVED)
        archive = WebArchive.connect(address.url)
        count += send(files, archive, Ledger(own / SENT), address.url)
    return count


def derived_series(folders: Sequence[Path], to: Path) -> list[Path]:
    """Write the images of cases, without their maps, as DICOM series below a new folder; returns the files."""
    shutil.rmtree(to, ignore_errors=True)
    files = []
    for folder in folders:
        stated = provenance_of(folder)
        sources = [*stated_inputs(stated).values()]
        images = images_in(folder)
        for name, path in images.items():
            if is_map(name, images):
                continue
            volume = read_volume(path, name)
            if volume.unit not in UNITS:
                raise BadInput(
                    f"{name}: expected an image in HU or of MR for a CT or MR series, found the unit {volume.unit}. Keep it in its own file."
                )
            like = _source_on_grid(sources, volume, name)
            series = to / f"{folder.name}_{name}"
            files += write_derived(volume, like, series, origin_of(stated))
    return files


def _source_on_grid(sources: Sequence[Path], volume: Volume, name: str) -> Path:
    for path in sources:
        if same_grid(read_volume(path).grid, volume.grid):
            return path
    raise BadInput(
        f"{name}: expected an image on the slices of one of its source series, found another grid ({volume.grid}). Keep it as NIfTI."
    )


def answer_by(model: Model | Ensemble, options: SynthOptions, warn: Warn) -> Answer:
    """The answer of a model to a received study: the DICOM files of its images, written into a folder."""

    def answer(scans: Path, images: Path) -> list[Path]:
        selected = select(model, [str(scans)], options)
        folders, _ = deliver(selected, images / "out", options, warn=warn, say=no_report)
        return derived_series(folders, images / DERIVED)

    return answer
