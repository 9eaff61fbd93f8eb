"""The work of a job, in a process of its own: `python -m voxlate.web.work FOLDER`.

A crash, a lack of memory or a cancelled job ends this process and not the server. The process is asked to end (SIGTERM)
when its standard input is closed, which the system does when the server is killed; a training saves its state then.
"""

import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from voxlate.errors import BadInput, Stopped, first_of
from voxlate.files import locked, read_json, write_json
from voxlate.images.formats.dicom import is_dicom_folder
from voxlate.images.io import location_of
from voxlate.reports.page import report
from voxlate.scoring.provenance import provenance_of, stated_inputs
from voxlate.synthesis.delivery import deliver
from voxlate.synthesis.dicom_out import export_dicom
from voxlate.synthesis.options import SynthOptions
from voxlate.synthesis.selection import select
from voxlate.web.fitting import absolute, entries_of, fits_of, other_files
from voxlate.web.hiding import cleaned, hide_places
from voxlate.web.jobs import JOB, OUTCOME, PROGRESS, SCANS, Progress
from voxlate.web.places import ROOT
from voxlate.web.training_work import TRAINING
from voxlate.web.viewing import write_views

OUT, DICOM, REPORT, FIT = (
    "out",
    "dicom",
    "report.html",
    "fit.json",
)  # DICOM: of the folder, and of its zip
EVERY_SECONDS = 0.5  # between two writings of the progress
WAIT_SECONDS = 60.0  # for the process of a killed server to end


@dataclass
class Reporter:
    """Writes how far the work of a job is, at most twice a second."""

    folder: Path
    stage: str = ""
    since: float = 0.0
    written: float = 0.0
    begun: int = 0

    def __call__(self, stage: str, done: int, total: int) -> None:
        now = time.time()
        if stage != self.stage or done == 0:
            self.stage, self.since, self.written, self.begun = stage, now, 0.0, done
        if now - self.written < EVERY_SECONDS and done < total:
            return
        self.written = now
        found = Progress(stage, done, total, self.since, now, self.begun)
        write_json(self.folder / PROGRESS, asdict(found))


def scans_of(folder: Path, request: dict[str, Any]) -> Path:
    """The folder of a job's scans: uploaded ones are in the folder of the check, others stay where they are."""
    if request.get("place"):
        return Path(request["place"])
    return folder.parent / request.get("check", folder.name) / SCANS


def check(folder: Path, request: dict[str, Any], progress: Reporter) -> dict[str, Any]:
    """Write which files an upload has, and which models fit them."""
    scans = scans_of(folder, request)
    places = {str(scans): "the upload", **{run: label for label, run in request["runs"].items()}}
    entries = entries_of(scans)
    fits = fits_of(
        request["runs"],
        scans,
        entries,
        request.get("names", {}),
        request["device"],
        lambda done, total: progress("models", done, total),
    )
    found = {
        "entries": [asdict(one) for one in entries],
        "fits": [asdict(fit) for fit in fits],
        "others": _others(scans, request),
    }
    write_json(folder / FIT, cleaned(found, places))
    return {}


def _others(scans: Path, request: dict[str, Any]) -> list[str]:
    """Sentences on the files of an upload that are not used."""
    others = other_files(scans)
    hidden = request.get("hidden", 0)
    return [
        *(
            [f"{len(others)} files are no scans and are not used: {first_of(others)}."]
            if others
            else []
        ),
        *([f"{hidden} hidden files were left out."] if hidden else []),
    ]


def synthesise(folder: Path, request: dict[str, Any], progress: Reporter) -> dict[str, Any]:
    """Synthesise as `voxlate synth` does, then write the DICOM series, the report and the images of the viewer."""
    scans = scans_of(folder, request)
    options = SynthOptions(**request["options"])
    said = list[str]()
    selected = select([request["run"]], absolute(request["inputs"], scans), options)
    folders, failed = deliver(
        selected, folder / OUT, options, progress=progress, warn=said.append, say=said.append
    )
    if failed:
        raise BadInput(next(iter(failed.values())))
    case = folders[0]
    files = stated_inputs(provenance_of(case))
    progress("views", 0, 3)
    write_views(case, files, folder)
    progress("views", 1, 3)
    sources = [location_of(path) for path in files.values()]
    left_out = dict[str, str]()
    if any(place.is_dir() and is_dicom_folder(place) for place in sources):
        left_out = export_dicom(folder / OUT, folder / DICOM).left_out
        shutil.make_archive(str(folder / DICOM), "zip", folder / DICOM)
        shutil.rmtree(folder / DICOM)
    progress("views", 2, 3)
    report(folder / OUT, folder / REPORT)
    labels = dict.fromkeys(map(str, selected.model.origins), request["label"])
    hide_places(folder / REPORT, [case, folder / OUT], labels)
    progress("views", 3, 3)
    lines = [
        f"{name} has no DICOM series, because no CT or MR series holds values in {unit}."
        for name, unit in left_out.items()
    ]
    return {"case": case.name, "said": lines}


WORK: dict[str, Callable[[Path, dict[str, Any], Reporter], dict[str, Any]]] = {
    "check": check,
    "synthesise": synthesise,
    **TRAINING,
}


def work(folder: Path) -> None:
    """Do the work of a job and write its outcome: {"why": ""} where it is done, else one sentence."""
    job = read_json(folder / JOB)
    places = places_of(folder, job["request"])
    try:
        with locked(folder, WAIT_SECONDS):
            facts = WORK[job["kind"]](folder, job["request"], Reporter(folder))
        outcome = {"why": "", **facts}
    except (BadInput, Stopped) as error:
        outcome = {"why": str(error)}
    except MemoryError:
        outcome = {
            "why": "memory: expected enough for this scan, found too little. Choose a smaller scan, or fewer samples."
        }
    write_json(folder / OUTCOME, cleaned(outcome, places))


def places_of(folder: Path, request: dict[str, Any]) -> dict[str, str]:
    """What stands for the absolute places in the sentences of a job."""
    if "root" in request:
        return {request["root"]: ROOT, str(folder): "the job"}
    places = {str(scans_of(folder, request)): "the upload", str(folder): "the job"}
    runs = dict(request.get("runs", {}))
    if "run" in request:
        runs[request["label"]] = request["run"]
    return places | {run: label for label, run in runs.items()}


def _end_with_the_server() -> None:
    """Ask this process to end when its standard input is closed."""
    while sys.stdin.buffer.read(1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def main() -> None:
    threading.Thread(target=_end_with_the_server, daemon=True).start()
    work(Path(sys.argv[1]))


if __name__ == "__main__":
    main()
