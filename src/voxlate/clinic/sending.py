"""Sending files to an archive: each once, with retries after a lost connection, and a record on disk."""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from voxlate.base.errors import BadInput
from voxlate.base.messages import Say, message
from voxlate.base.optional import optional_package
from voxlate.scans.formats.format import errors_as, first_line

ATTEMPTS = 5  # to send one file
FIRST_WAIT_SECONDS = 1.0  # before the second attempt; doubled before each further one
Sleep = Callable[[float], None]
# What goes beside images, by its SOP class.
COMPANIONS = {
    "1.2.840.10008.5.1.4.1.1.30": "Parametric Map",
    "1.2.840.10008.5.1.4.1.1.66.4": "Segmentation",
    "1.2.840.10008.5.1.4.1.1.88.11": "report",
}


class Lost(Exception):
    """The connection to the archive was lost, or it is too busy: another attempt may succeed."""


class Refused(Exception):
    """The archive refused a file for good, with a reason."""


class Archive(Protocol):
    """An archive that stores images. Methods raise Lost and Refused."""

    def store(self, dataset: Any) -> None:
        """Store one image."""

    def has(self, dataset: Any) -> bool:
        """Whether the archive has this image; False where it cannot tell."""


@dataclass(frozen=True)
class Ledger:
    """A record on disk of the SOP instances that an archive has acknowledged. It survives a killed process."""

    path: Path

    def instances(self) -> set[str]:
        """The acknowledged instances; a line that was cut short counts as none."""
        if not self.path.is_file():
            return set()
        text = self.path.read_text(encoding="ascii")
        return {line for line in text.split("\n")[:-1] if line}

    def add_all(self, other: "Ledger") -> None:
        """Record the instances of another record, too."""
        for instance in sorted(other.instances() - self.instances()):
            self.add(instance)

    def add(self, instance: str) -> None:
        """Record an instance; returns when the disk has it."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        is_cut = self.path.is_file() and not self.path.read_bytes().endswith(b"\n")
        with self.path.open("a", encoding="ascii", newline="\n") as file:
            file.write("\n" * is_cut + f"{instance}\n")
            file.flush()
            os.fsync(file.fileno())


def send(
    files: Sequence[Path],
    archive: Archive,
    ledger: Ledger,
    where: object,
    sleep: Sleep = time.sleep,
    say: Say | None = None,
) -> int:
    """Send the files that the ledger does not have, in their order; returns their number. where: names the archive in errors.

    say: is called with a message on each map, mask or report that the archive refuses, as many do; it is left out.
    Raises BadInput where the archive refuses an image (without `say`, any file), or cannot be reached in several
    attempts. The same call then goes on where it stopped.
    """
    pydicom = optional_package("pydicom", "pacs", where, "pydicom to send DICOM files")
    sent = ledger.instances()
    count = 0
    for number, file in enumerate(files):
        with errors_as(
            f"{file}: expected a DICOM file, found another", "Take it out of the folder."
        ):
            dataset = pydicom.dcmread(file)
        instance = str(dataset.SOPInstanceUID)
        if instance in sent:
            continue
        kind = COMPANIONS.get(str(dataset.get("SOPClassUID", "")))
        try:
            _send_image(dataset, archive, sleep, ask=not count)
        except Lost as error:
            raise BadInput(
                f"{where}: expected an archive that takes {len(files)} images, found the connection lost after {number} of them ({first_line(error)}). Run the same command again: it sends the rest."
            ) from error
        except Refused as error:
            if say is None or kind is None:
                raise BadInput(
                    f"{where}: expected an archive that takes {len(files)} images, found image {number + 1} refused ({first_line(error)}). Check the archive's rights and its log; the same command sends the rest."
                ) from error
            text = f"{where}: a {kind} was refused and is left out ({first_line(error)})."
            say(message("refused", text))
            continue
        ledger.add(instance)
        sent.add(instance)
        count += 1
    return count


def _send_image(dataset: Any, archive: Archive, sleep: Sleep, ask: bool) -> None:
    """Send one image, unless the archive has it.

    ask: ask the archive before the first attempt, too, as for the first image of a call: a process that was killed may
    have sent it without recording it.
    """
    for attempt in range(ATTEMPTS):
        try:
            if not (ask or attempt) or not archive.has(dataset):
                archive.store(dataset)
            return
        except Lost:
            if attempt + 1 == ATTEMPTS:
                raise
            sleep(FIRST_WAIT_SECONDS * 2**attempt)
