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
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from voxlate.api.images import export
from voxlate.api.images import synthesise as synthesise_images
from voxlate.api.progress import Reporter
from voxlate.cases.case import MASK
from voxlate.formats.dicom import is_dicom_folder
from voxlate.formats.io import location_of, without_ending
from voxlate.options.synthesise import SynthOptions
from voxlate.reports.page import report
from voxlate.scoring.provenance import provenance_of, source_paths
from voxlate.synthesis.model import load
from voxlate.system.errors import BadInput, Stopped, first_of, plural
from voxlate.system.files import lock, read_json, write_json
from voxlate.system.messages import Message, message, read_messages
from voxlate.trust.usability import usability
from voxlate.web import training_jobs
from voxlate.web.fitting import (
    absolute,
    accepted_scans,
    entries_of,
    fits_of,
    limits_of,
    other_files,
)
from voxlate.web.hiding import cleaned
from voxlate.web.jobs import JOB, OUTCOME, PROGRESS, SCANS, Progress
from voxlate.web.places import ROOT
from voxlate.web.private import for_owner
from voxlate.web.shown import CHECKED, DICOM, OUT, REPORT, RESULT, Checked, Result
from voxlate.web.viewing import write_views

NO_INTERVALS = "No intervals: the run is calibrated for other settings. Leave the number of samples and of steps empty for those of the calibration."
EVERY_SECONDS = 0.5  # between two writings of the progress
STDIN = 0  # file descriptor
WAIT_SECONDS = 60.0  # for the process of a killed server to end


@dataclass
class ProgressFile:
    """Writes how far the work of a job is, at most twice a second."""

    folder: Path
    stage: str = ""
    since: float = 0.0
    written: float = 0.0
    begun: int = 0

    def __call__(self, stage: str, done: int, total: int, *_: object) -> None:
        """Write the progress of a stage."""
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


def check(folder: Path, request: dict[str, Any], progress: ProgressFile) -> None:
    """Write which files an upload has, and which models fit them."""
    scans = scans_of(folder, request)
    entries = entries_of(scans)
    fits = fits_of(
        request["runs"],
        scans,
        entries,
        request.get("names", {}),
        request["device"],
        lambda done, total: progress("models", done, total),
    )
    names = list(dict.fromkeys([*(name for fit in fits for name in fit.names), MASK]))
    stems = {entry.place: without_ending(entry.title).lower() for entry in entries}
    found = Checked(
        tuple(entries),
        tuple(fits),
        tuple(_others(scans, request)),
        tuple(names),
        {place: stem for place, stem in stems.items() if stem in names},
    )
    write_json(folder / CHECKED, cleaned(asdict(found), places_of(folder, request)))


def _others(scans: Path, request: dict[str, Any]) -> Iterator[str]:
    """Sentences on the files of an upload that are not used."""
    others = other_files(scans)
    if others:
        are = "is no scan and is" if len(others) == 1 else "are no scans and are"
        yield f"{plural(len(others), 'file')} {are} not used: {first_of(others)}."
    if hidden := request.get("hidden", 0):
        yield f"{plural(hidden, 'hidden file')} {'was' if hidden == 1 else 'were'} left out."


def synthesise(folder: Path, request: dict[str, Any], progress: ProgressFile) -> None:
    """Synthesise the images of a case, then write the DICOM series, the report and what the page shows."""
    options = SynthOptions(**request["options"])
    said = list[Message]()
    model = load(request["run"], options.device, answer=options.answer)
    try:
        model.with_options(**options.keys).calibration()
    except BadInput as error:  # intervals hold for the settings of their calibration alone
        chosen = options.samples is not None or options.steps is not None
        text = NO_INTERVALS if chosen else f"No intervals: {error}"
        said.append(message("no-intervals", text))
        options = replace(options, intervals=False)
    reporter = Reporter(progress, said.append)
    inputs = absolute(request["inputs"], scans_of(folder, request))
    done = synthesise_images(model, inputs, folder / OUT, options, progress=reporter)
    for sentence in done.left_out.values():
        raise BadInput(sentence)
    (case,) = done.folders
    stated = provenance_of(case)
    warnings = read_messages(stated.get("warnings", ()))
    files = source_paths(stated)
    progress("views", 0, 3)
    views = write_views(case, files, folder)
    progress("views", 1, 3)
    missing = _write_dicom(folder, files)
    progress("views", 2, 3)
    origins = dict.fromkeys(map(str, model.origins), request["label"])
    places = places_of(folder, request) | origins
    report(folder / OUT, folder / REPORT, places=places)
    result = Result(
        case.name,
        tuple(stated["images"]),
        views,
        tuple((one.grade, str(one)) for one in warnings),
        tuple(line.strip() for line in done.bound_lines),
        (*(str(one) for one in said if not one.case), *missing),
        tuple(_settings(request, stated)),
        accepted_scans(model),
        limits_of(model.origin),
        usability({case.name: warnings}),
    )
    write_json(folder / RESULT, cleaned(asdict(result), places))


def _write_dicom(folder: Path, files: Mapping[str, Path]) -> list[str]:
    """Write the derived series of a result, where its source is a series; returns sentences on images without one."""
    places = [location_of(path) for path in files.values()]
    if not any(place.is_dir() and is_dicom_folder(place) for place in places):
        return []
    try:
        exported = export(folder / OUT, folder / DICOM, progress=False)
    except BadInput as error:  # the images are there, and only their DICOM objects are not
        return [f"No DICOM: {error}"]
    shutil.make_archive(str(folder / DICOM), "zip", folder / DICOM)
    shutil.rmtree(folder / DICOM)
    return [f"{name} has no DICOM series: {why}." for name, why in exported.left_out.items()]


def _settings(request: dict[str, Any], stated: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The settings with which images were synthesised, as their provenance states them."""
    synth, model = stated.get("synth", {}), stated.get("model", {})
    samples = synth.get("samples", 1)
    several = f"mean of {samples} samples"
    drawn = {
        "prediction": "sharp (one sample)" if samples == 1 else several,
        "samples": samples,
        "steps": synth.get("steps") if request.get("has_steps", True) else None,
        "seed": stated.get("seed"),
    }
    facts = {
        "model": f"{request['label']}: {model.get('title', '')}",
        **({"prediction": "mean"} if request["answer"] == "mean" else drawn),
        "weights": model.get("weights"),
        "voxlate": stated.get("voxlate"),
        "computed on": stated.get("device"),
    }
    for name, value in facts.items():
        if value is not None:
            yield name, str(value)


def do_job(kind: str, folder: Path, request: dict[str, Any], progress: ProgressFile) -> None:
    """Do the work of a job of a kind."""
    if kind == "check":
        check(folder, request, progress)
    elif kind == "synthesise":
        synthesise(folder, request, progress)
    else:
        training_jobs.work(kind, folder, request, progress)


def work(folder: Path) -> None:
    """Do the work of a job and write its outcome: {"why": ""} where it is done, else one sentence."""
    job = read_json(folder / JOB)
    places = places_of(folder, job["request"])
    try:
        with lock(folder, WAIT_SECONDS), _files_of(job["kind"]):
            do_job(job["kind"], folder, job["request"], ProgressFile(folder))
        outcome = {"why": ""}
    except (BadInput, Stopped) as error:
        outcome = {"why": str(error)}
    except MemoryError:
        outcome = {
            "why": "memory: expected enough for this scan, found too little. Choose a smaller scan, or fewer samples."
        }
    with _files_of(job["kind"]):
        write_json(folder / OUTCOME, cleaned(outcome, places))


def _files_of(kind: str) -> AbstractContextManager[None]:
    """Who may read the files of a job: uploads and results the owner alone; prepared cohorts and runs as the umask says."""
    return nullcontext() if kind in training_jobs.WORKS else for_owner()


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
    """Ask this process to end when its standard input is closed.

    It is read without sys.stdin: a process that is forked during its read would wait for its lock for ever.
    """
    while os.read(STDIN, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def main() -> None:
    threading.Thread(target=_end_with_the_server, daemon=True).start()
    work(Path(sys.argv[1]))


if __name__ == "__main__":
    main()
