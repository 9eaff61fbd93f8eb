"""A DICOM node that waits for studies: they are received by C-STORE, answered one at a time, and the answers are sent.

The queue is folders on disk, which survive a killed process:

QUEUE/incoming/<study>   images that arrive; a study is complete when its senders have hung up and no image came for some seconds
QUEUE/work/<study>       one complete study at a time: its images in `scans`, the answer in `images`
QUEUE/done/<study>       sent.txt: what was sent of the answers to a study, which the archive may send back
QUEUE/failed/<study>     the scans of a study that gave no answer, and why.txt

A study's folder is named by a hash of its UID, which leads back to no patient.
"""

import os
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from shutil import disk_usage, rmtree
from typing import Any

from voxlate.base.errors import BadInput
from voxlate.base.executors.case_work import no_report
from voxlate.base.files import lock, whole_file, write_text
from voxlate.base.messages import Say, message
from voxlate.clinic.archives import (
    DERIVED,
    SENT,
    SUCCESS,
    Ledger,
    NodeArchive,
    ae_title,
    check_uid,
    export_anew,
    node,
    pynetdicom,
    send,
    study_name,
)
from voxlate.clinic.share_options import ListenOptions
from voxlate.synthesis.cohort import select, synthesise_cases
from voxlate.synthesis.model import Model
from voxlate.synthesis.synth_options import SynthOptions
from voxlate.training.load import load

LOOK_SECONDS = 1.0  # between two looks for a complete study
RETRY_SECONDS = 60.0  # after an answer that could not be sent
CANNOT_UNDERSTAND, NO_ROOM = 0xC000, 0xA700
# after which an association without a message ends: senders pause between series
SILENT_SECONDS = 300.0
ECHO = "1.2.840.10008.1.1"
GB = 2**30
SPARE_BYTES = 2 * GB  # of the queue's disk, which answers need
INCOMING, WORK, DONE, FAILED = "incoming", "work", "done", "failed"
SCANS, IMAGES, WHY = "scans", "images", "why.txt"
Receive = Callable[[Any, Any], None]
Answer = Callable[[Path, Path], list[Path]]
"""Makes an answer, or finishes one: called with the folder of a study's images and a folder to write in; returns DICOM files to send."""
Send = Callable[[list[Path], Ledger], int]
"""Sends files that the ledger does not have, and returns their number; raises BadInput where it cannot."""


def serve(run: Path | str, queue: Path, options: ListenOptions, say: Say = no_report) -> None:
    """Receive and answer studies until the process ends. queue: its folder; say: is called with each message.

    Images are received while another study is answered. An answer that cannot be sent is tried again later.
    """
    target = node(options.to)
    title = ae_title(options.title, "--title")
    allowed = [ae_title(sender, "--allow") for sender in options.allow]
    answer = answer_by(load(run, options.device), options, say)

    def send_files(files: list[Path], ledger: Ledger) -> int:
        """Send the files of an answer; returns the number of those that were sent now."""
        with closing(NodeArchive(target, title)) as archive:
            return send(files, archive, ledger, options.to, say)

    studies = Queue(queue, options.idle)
    at = title, options.port, allowed, options.host
    with lock(queue), receive_images(studies.receive, *at):
        text = f"{title} listens on {options.host}:{options.port} for {', '.join(allowed)}; images go to {options.to}."
        say(message("listening", text))
        while True:
            try:
                sentence = studies.run_next(answer, send_files)
            except BadInput as error:
                say(message("not-sent", f"{error} The next attempt is in {RETRY_SECONDS:.0f} s."))
                time.sleep(RETRY_SECONDS)
                continue
            if sentence is None:
                time.sleep(LOOK_SECONDS)
            else:
                say(message("answered", sentence))


def answer_by(model: Model, asked: ListenOptions, say: Say) -> Answer:
    """The answer of a model to a received study: the DICOM files of its images, written into a folder."""
    options = SynthOptions(device=asked.device, anyway=asked.anyway)

    def answer(scans: Path, images: Path) -> list[Path]:
        """The files of the images of a study."""
        selected = select(model, [str(scans)], options)
        folders, *_ = synthesise_cases(selected, images / "out", options, say=say)
        return export_anew(folders, images / DERIVED, say, asked.accept_untrusted)

    return answer


def _store(event: Any, receive: Receive) -> int:
    """The state that answers an image."""
    try:
        dataset = event.dataset
        dataset.file_meta = event.file_meta
        receive(dataset, event.assoc)
    except OSError:
        return NO_ROOM
    except Exception:
        # whatever is wrong with the image: the sender is told, and the server continues
        return CANNOT_UNDERSTAND
    return SUCCESS


@contextmanager
def receive_images(
    receive: Receive, title: str, port: int, allowed: Collection[str], host: str
) -> Iterator[Any]:
    """Receive images (C-STORE) and answer C-ECHO while the block runs; yields the server.

    receive: is called with each dataset, whose file_meta is set, and the association that brings it; the sender is told
    of success when it has returned. A BadInput that it raises refuses the image, an OSError asks the sender to try
    later. allowed: AE titles of senders.
    """
    entity = pynetdicom.AE(ae_title=title)
    entity.require_calling_aet = list(allowed)
    entity.require_called_aet = True
    entity.network_timeout = SILENT_SECONDS
    for kind in pynetdicom.AllStoragePresentationContexts:
        entity.add_supported_context(kind.abstract_syntax, pynetdicom.ALL_TRANSFER_SYNTAXES)
    entity.add_supported_context(ECHO)
    handlers = [(pynetdicom.evt.EVT_C_STORE, _store, [receive])]
    try:
        server = entity.start_server((host, port), block=False, evt_handlers=handlers)
    except OSError as error:
        raise BadInput(
            f"--port {port}: expected a free port, found it refused ({error.strerror}). Choose another one; ports below 1024 need the rights of an administrator."
        ) from error
    try:
        yield server
    finally:
        server.shutdown()


@dataclass(frozen=True)
class Queue:
    """The studies below a folder.

    idle_seconds: after which a study is complete, without a new image or an open association that has sent one;
    spare_bytes: of the disk that stay free; senders: the associations that sent images of the studies in `incoming`.
    """

    path: Path
    idle_seconds: float = 10.0
    spare_bytes: int = SPARE_BYTES
    senders: dict[str, set[Any]] = field(default_factory=dict)

    def receive(self, dataset: Any, sender: Any) -> None:
        """Keep an image; returns when the disk has it. An image that is there already is replaced.

        Raises OSError where the disk has no room; such a study lacks images, and is put aside when no more of them come.
        sender: the association, which states `is_established`.
        """
        study = study_name(str(dataset.StudyInstanceUID))
        instance = check_uid(str(dataset.SOPInstanceUID), "received image")
        folder = self.path / INCOMING / study
        folder.mkdir(parents=True, exist_ok=True)
        self.senders.setdefault(study, set()).add(sender)
        free = disk_usage(folder).free
        if free < self.spare_bytes:
            why = f"{study}: expected {self.spare_bytes / GB:.3g} GB of free disk for the queue, found {free / GB:.3g} GB: images were refused. Remove what is not needed from {self.path / FAILED} and from the disk, and send the study again."
            write_text(folder / WHY, why)
            raise OSError(why)
        with whole_file(folder / f"{instance}.dcm") as temporary:
            dataset.save_as(temporary, enforce_file_format=True)

    def next_study(self) -> str | None:
        """The next study to work on: one that was begun, else the complete one whose last image is the oldest."""
        begun = sorted(self.path.glob(f"{WORK}/[!.]*/{SCANS}"))
        if begun:
            return begun[0].parent.name
        complete = []
        for folder in self.path.glob(f"{INCOMING}/*"):
            senders = tuple(self.senders.get(folder.name, ()))
            arrivals = [file.stat().st_mtime for file in (*folder.glob("*.dcm"), *folder.glob(WHY))]
            is_open = any(sender.is_established for sender in senders)
            if arrivals and not is_open and time.time() - max(arrivals) >= self.idle_seconds:
                complete.append((max(arrivals), folder.name))
        return min(complete)[1] if complete else None

    def take(self, study: str) -> Path:
        """The folder of a study's work, into which its images are moved unless they are there."""
        work = self.path / WORK / study
        self.senders.pop(study, None)
        work.mkdir(parents=True, exist_ok=True)
        if not (work / SCANS).is_dir():
            os.replace(self.path / INCOMING / study, work / SCANS)
        return work

    def run_next(self, answer: Answer, send: Send) -> str | None:
        """Answer the next complete study and send the images; returns a sentence, None where there is no study.

        A study that cannot be answered is put aside. Raises BadInput where the answer cannot be sent: it remains, and
        the next call sends the rest.
        """
        for hidden in (self.path / WORK).glob(".*"):  # whose removal was killed
            rmtree(hidden)
        study = self.next_study()
        if study is None:
            return None
        work = self.take(study)
        try:
            if (work / SCANS / WHY).is_file():  # images were refused
                raise BadInput((work / SCANS / WHY).read_text(encoding="utf-8"))
            files = answer(work / SCANS, work / IMAGES)
        except Exception as error:  # one study must not end the service for all others
            why = f"This should not happen: {type(error).__name__}: {error}"
            if isinstance(error, BadInput):
                why = str(error)
            self._put_aside(study, why)
            return f"{study} is put aside: {why}"
        count = send(files, Ledger(self.path / DONE / study / SENT))
        removed = work.with_name(f".{study}")  # the images of patients do not stay
        os.replace(work, removed)
        rmtree(removed)
        return f"{study}: {count} of {len(files)} files sent."

    def _put_aside(self, study: str, why: str) -> None:
        work = self.path / WORK / study
        write_text(work / WHY, f"{why}\n")
        target = self.path / FAILED / study
        rmtree(target, ignore_errors=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(work, target)
