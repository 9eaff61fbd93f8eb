"""The queue of received studies: folders on disk, which survive a killed process.

QUEUE/incoming/<study>   images that arrive; a study is complete when its senders have hung up and no image came for some seconds
QUEUE/work/<study>       one complete study at a time: its images in `scans`, the answer in `images`, ready.json, sent.txt
QUEUE/done/<study>       sent.txt of studies whose answer was sent
QUEUE/failed/<study>     the scans of a study that gave no answer, and why.txt

A study's folder is named by a hash of its UID, which leads back to no patient.
"""

import hashlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from shutil import rmtree
from typing import Any, Protocol

from voxlate.base.errors import BadInput
from voxlate.base.files import read_json, relative_to, whole_file, write_json, write_text
from voxlate.clinic.address import check_uid
from voxlate.clinic.sending import Ledger

INCOMING, WORK, DONE, FAILED = "incoming", "work", "done", "failed"
SCANS, IMAGES, READY, SENT, WHY = "scans", "images", "ready.json", "sent.txt", "why.txt"
REMOVED = ".removed"  # the end of the hidden name of a study that is being removed
NAME_DIGITS = 16
Answer = Callable[[Path, Path], list[Path]]
"""Makes an answer: called with the folder of a study's images and a folder to write in; returns DICOM files to send."""
Send = Callable[[list[Path], Ledger], int]
"""Sends files that the ledger does not have, and returns their number; raises BadInput where it cannot."""


class Sender(Protocol):
    """An association: whether it is open."""

    @property
    def is_established(self) -> bool:
        """Whether it is open."""


@dataclass(frozen=True)
class Queue:
    """The studies below a folder.

    idle_seconds: after which a study is complete, without a new image or an open association that has sent one;
    senders: the associations that sent images of a study; heard: when one of them was last open.
    """

    path: Path
    idle_seconds: float = 10.0
    senders: dict[str, set[Sender]] = field(default_factory=dict)
    heard: dict[str, float] = field(default_factory=dict)

    def receive(self, dataset: Any, sender: Sender) -> None:
        """Keep an image; returns when the disk has it. An image that is there already is replaced."""
        study = study_name(str(dataset.StudyInstanceUID))
        self.senders.setdefault(study, set()).add(sender)
        instance = check_uid(str(dataset.SOPInstanceUID), "received image")
        with whole_file(self.path / INCOMING / study / f"{instance}.dcm") as temporary:
            dataset.save_as(temporary, enforce_file_format=True)

    def next_study(self) -> str | None:
        """The next study to work on: one that was begun, else the complete one whose last image is the oldest."""
        begun = _folders(self.path / WORK)
        if begun:
            return begun[0].name
        at = time.time()
        complete = []
        for folder in _folders(self.path / INCOMING):
            arrivals = [file.stat().st_mtime for file in folder.glob("*.dcm")]
            if any(sender.is_established for sender in tuple(self.senders.get(folder.name, ()))):
                self.heard[folder.name] = at
            last = max([self.heard.get(folder.name, 0.0), *arrivals])
            if arrivals and at - last >= self.idle_seconds:
                complete.append((last, folder.name))
        return min(complete)[1] if complete else None

    def take(self, study: str) -> Path:
        """The folder of a study's work, into which its images are moved unless they are there."""
        work = self.path / WORK / study
        self.senders.pop(study, None)
        self.heard.pop(study, None)
        if not (work / SCANS).is_dir():
            new = self.path / WORK / f".{study}"  # hidden until its images are in it
            rmtree(new, ignore_errors=True)
            new.mkdir(parents=True)
            os.replace(self.path / INCOMING / study, new / SCANS)
            os.replace(new, work)
        return work

    def run_next(self, answer: Answer, send: Send) -> str | None:
        """Answer the next complete study and send the images; returns a sentence, None where there is no study.

        A study that cannot be answered is put aside. Raises BadInput where the answer cannot be sent: it remains, and
        the next call sends the rest.
        """
        self._mend()
        study = self.next_study()
        if study is None:
            return None
        work = self.take(study)
        try:
            files = _answer(work, answer)
        except Exception as error:  # one study must not end the service for all others
            why = (
                str(error)
                if isinstance(error, BadInput)
                else f"This should not happen: {type(error).__name__}: {error}"
            )
            self._put_aside(study, why)
            return f"{study} is put aside: {why}"
        ledger = Ledger(work / SENT)
        ever_sent = Ledger(self.path / DONE / study / SENT)
        # those of an earlier answer to the study, which the archive may have sent back
        ledger.add_all(ever_sent)
        before = len(ledger.instances())
        count = send(files, ledger)
        ever_sent.add_all(ledger)
        removed = work.with_name(f".{study}{REMOVED}")  # the images of patients do not stay
        os.replace(work, removed)
        rmtree(removed)
        return f"{study}: {count} files sent{f', {before} were sent before' if before else ''}."

    def _mend(self) -> None:
        """Go on with what a killed process has left: hidden folders of studies that were being taken or removed."""
        root = self.path / WORK
        for hidden in root.glob(".*") if root.is_dir() else ():
            if (hidden / SCANS).is_dir() and not hidden.name.endswith(REMOVED):
                os.replace(hidden, root / hidden.name[1:])
            else:
                rmtree(hidden)

    def _put_aside(self, study: str, why: str) -> None:
        work = self.path / WORK / study
        write_text(work / WHY, f"{why}\n")
        target = self.path / FAILED / study
        rmtree(target, ignore_errors=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(work, target)


def study_name(uid: str) -> str:
    """The name of a study's folder, which does not lead back to a patient."""
    return f"study-{hashlib.sha256(uid.encode()).hexdigest()[:NAME_DIGITS]}"


def _answer(work: Path, answer: Answer) -> list[Path]:
    """The files of a study's answer: those of an earlier process if it finished them, so that their UIDs stay."""
    listed = work / READY
    if not listed.is_file():
        files = answer(work / SCANS, work / IMAGES)
        write_json(listed, {"files": [relative_to(work, file) for file in files]})
    return [work / name for name in read_json(listed)["files"]]


def _folders(path: Path) -> list[Path]:
    return sorted(folder for folder in path.glob("[!.]*") if folder.is_dir())
