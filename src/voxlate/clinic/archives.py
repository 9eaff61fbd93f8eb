"""Archives that studies are fetched from and images are sent to: DICOMweb servers (QIDO, WADO, STOW) and DICOM nodes (C-STORE); their
addresses, and names of studies that lead back to no patient.

A record on disk names what an archive has acknowledged; an image whose acknowledgement was lost is sent again under the same UID.
The images of a fetched study are exported once and stored in it.
"""

import hashlib
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from voxlate.base.errors import BadInput, plural
from voxlate.base.files import whole_file
from voxlate.base.messages import Say, message
from voxlate.base.optional import Package, optional_package, pydicom
from voxlate.clinic.dicom_out import export_dicom
from voxlate.scans.formats.format import first_line
from voxlate.scans.formats.io import location_of
from voxlate.synthesis.provenance import provenance_of, source_paths
from voxlate.synthesis.synth_options import SynthOptions

UID = r"[0-9](?:[0-9.]{0,62}[0-9])?"
AE_TITLE = re.compile(r"[\x21-\x5b\x5d-\x7e]{1,16}")  # printable, without spaces and backslashes
EXAMPLE = "https://HOST/dicom-web/studies/UID"
NAME_DIGITS = 16
TIMEOUT_SECONDS = 60
# What goes beside images, by its SOP class; many archives do not take all of them.
COMPANIONS = {
    "1.2.840.10008.5.1.4.1.1.30": "Parametric Map",
    "1.2.840.10008.5.1.4.1.1.88.11": "report",
}
# CT, MR and companions: what is sent to a node
SENT_CLASSES = ("1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4", *COMPANIONS)
# DICOMweb
SERIES_UID, INSTANCE_UID, DESCRIPTION = "0020000E", "00080018", "0008103E"
SYNTHETIC = "SYNTHETIC"  # with which the description of a synthesised series begins
FETCHED = "dicom"  # the folder of fetched studies in OUT
DERIVED, SENT = "derived", "sent.txt"
# C-STORE
SUCCESS = 0x0000
WARNINGS = range(0xB000, 0xC000)  # the image is stored, with a remark (PS3.4, B.2.3)
pynetdicom = Package("pynetdicom", "pacs", "DICOM", "pynetdicom to talk to a DICOM node")


@dataclass(frozen=True)
class StudyAddress:
    """A study, or one series of it, on a DICOMweb server. url: the root of the server's services; series: "" for all."""

    url: str
    study: str
    series: str = ""


Studies = dict[Path, StudyAddress]  # that were fetched, by their folders


@dataclass(frozen=True)
class Node:
    """A DICOM node that takes images: its title, host and port."""

    title: str
    host: str
    port: int


def study_address(text: str) -> StudyAddress:
    """The study that an address names, such as https://HOST:8042/dicom-web/studies/UID[/series/UID]."""
    address = rf"(https?://[^/@]+[^@]*)/studies/({UID})(?:/series/({UID}))?/?"
    match = re.fullmatch(address, text, re.I)
    if match is None:
        without_password = re.sub(r"//[^/@]*@", "//", text)
        raise BadInput(
            f"{without_password}: expected the address of a study without a password, such as {EXAMPLE}, found another text. Check the address; the server's name and password belong into the file .netrc in your home folder."
        )
    return StudyAddress(match[1], match[2], match[3] or "")


def check_uid(uid: str, where: object) -> str:
    """A UID; raises BadInput for a text that is none, which could be a path."""
    if re.fullmatch(UID, uid):
        return uid
    raise BadInput(
        f"{where}: expected a UID of digits and dots, found {uid[:80]!r}. Check the sender's software."
    )


def node(text: str) -> Node:
    """The DICOM node that TITLE@HOST:PORT names."""
    match = re.fullmatch(r"([^@]+)@([^@:/\s]+):(\d{1,5})", text)
    if match is None or not 0 < int(match[3]) < 65536:
        raise BadInput(
            f"--to: expected a DICOM node as TITLE@HOST:PORT, found {text!r}. Change it."
        )
    return Node(ae_title(match[1], "--to"), match[2], int(match[3]))


def ae_title(text: str, where: str) -> str:
    """An application entity title; raises BadInput for a text that DICOM does not allow as one."""
    if AE_TITLE.fullmatch(text):
        return text
    raise BadInput(
        f"{where}: expected an AE title of at most 16 characters without spaces, found {text!r}. Change it."
    )


def study_name(uid: str) -> str:
    """The name of a study's folder, which does not lead back to a patient."""
    return f"study-{hashlib.sha256(uid.encode()).hexdigest()[:NAME_DIGITS]}"


class Refused(Exception):
    """The archive refused a file, with a reason. An OSError says that the connection was lost."""


@dataclass(frozen=True)
class WebArchive:
    """The DICOMweb services below a URL."""

    url: str
    client: Any = field(repr=False)

    @classmethod
    def connect(cls, url: str) -> "WebArchive":
        """The archive at a URL; nothing is sent yet. Names and passwords are taken from .netrc."""
        api = optional_package(
            "dicomweb_client.api", "pacs", url, "dicomweb-client to talk to a DICOMweb server"
        )
        return cls(url, api.DICOMwebClient(url, timeout=TIMEOUT_SECONDS, permissive_uid=True))

    def instances(self, address: StudyAddress) -> list[tuple[str, str]]:
        """Series and instance UID of each image of a study or series, without series that voxlate synthesised: they are no input."""
        listed = []
        series = [address.series]
        if not address.series:
            found = self.client.search_for_series(
                address.study, fields=["SeriesDescription"], get_remaining=True
            )
            series = sorted(one[SERIES_UID]["Value"][0] for one in found if _is_scanned(one))
        for uid in series:
            images = self.client.search_for_instances(address.study, uid, get_remaining=True)
            uids = [image[INSTANCE_UID]["Value"][0] for image in images]
            listed += [(uid, check_uid(instance, self.url)) for instance in uids]
        return listed

    def store(self, dataset: Any) -> None:
        """Store one image; raises Refused, and OSError for a lost connection."""
        with _errors():
            answer = self.client.store_instances([dataset])
        if failed := answer.get("FailedSOPSequence"):
            raise Refused(f"FailureReason 0x{failed[0].get('FailureReason', 0):04X}")


@contextmanager
def _errors() -> Iterator[None]:
    """Refused or a short OSError in place of the errors of HTTP, after the client's own attempts."""
    import requests
    import retrying

    try:
        yield
    except requests.HTTPError as error:
        answer: Any = error.response
        raise Refused(f"HTTP {answer.status_code}") from error
    except (OSError, retrying.RetryError) as error:  # as those of requests are, whose text is long
        raise OSError(type(error).__name__) from error


def _is_scanned(series: Any) -> bool:
    """Whether voxlate did not synthesise a series."""
    description = series.get(DESCRIPTION, {}).get("Value") or [""]
    return not str(description[0]).startswith(SYNTHETIC)


@dataclass
class NodeArchive:
    """A DICOM node that stores images, by an association that is opened for the first of them."""

    node: Node
    own_title: str
    association: Any = field(default=None, repr=False)

    def store(self, dataset: Any) -> None:
        """Store one image; raises Refused, and OSError for a lost connection."""
        if self.association is None:
            self.association = self._open()
        try:
            status = self.association.send_c_store(dataset)
        except ValueError as error:  # no presentation context for this kind of image
            raise Refused(f"the node does not take it: {error}") from error
        except RuntimeError as error:
            raise OSError(str(error)) from error
        if "Status" not in status:
            raise OSError("no answer")
        if status.Status != SUCCESS and status.Status not in WARNINGS:
            raise Refused(f"status 0x{status.Status:04X}")

    def close(self) -> None:
        """Release the association, if there is one."""
        if self.association is not None and self.association.is_established:
            self.association.release()
        self.association = None

    def _open(self) -> Any:
        entity = pynetdicom.AE(ae_title=self.own_title)
        for kind in SENT_CLASSES:
            entity.add_requested_context(kind)
        association = entity.associate(self.node.host, self.node.port, ae_title=self.node.title)
        if association.is_rejected:
            raise Refused(f"the node rejects {self.own_title}, or is not called {self.node.title}")
        if not association.is_established:
            raise OSError("no connection")
        return association


@dataclass(frozen=True)
class Ledger:
    """A record on disk of the SOP instances that an archive has acknowledged. It survives a killed process."""

    path: Path

    def instances(self) -> set[str]:
        """The acknowledged instances; a line that was cut short is no instance's."""
        return {*self.path.read_text(encoding="ascii").split()} if self.path.is_file() else set()

    def add(self, instance: str) -> None:
        """Record an instance."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="ascii", newline="\n") as file:
            file.write(f"\n{instance}")  # a line behind one that was cut short


def send(
    files: Sequence[Path],
    archive: WebArchive | NodeArchive,
    ledger: Ledger,
    where: object,
    say: Say,
) -> int:
    """Send the files that the ledger lacks, in their order; returns their number. where: names the archive in errors.

    say: is called with a message on each map or report that the archive refuses, as many do; it is left out.
    Raises BadInput where the archive refuses an image, or cannot be reached. The same call then goes on where it stopped.
    """
    sent = ledger.instances()
    count = 0
    for number, file in enumerate(files):
        dataset = pydicom.dcmread(file)
        instance = str(dataset.SOPInstanceUID)
        if instance in sent:
            continue
        try:
            archive.store(dataset)
        except OSError as error:
            raise BadInput(
                f"{where}: expected an archive that takes {len(files)} images, found the connection lost after {number} of them ({first_line(error)}). Run the same command again: it sends the rest."
            ) from error
        except Refused as error:
            kind = COMPANIONS.get(str(dataset.SOPClassUID))
            if kind is None:
                raise BadInput(
                    f"{where}: expected an archive that takes {len(files)} images, found image {number + 1} refused ({first_line(error)}). Check the archive's log and your rights (of a DICOMweb server, name and password in .netrc); the same command sends the rest."
                ) from error
            text = f"{where}: a {kind} was refused and is left out ({first_line(error)})."
            say(message("refused", text))
            continue
        ledger.add(instance)
        sent.add(instance)
        count += 1
    return count


def fetch_study(archive: WebArchive, address: StudyAddress, folder: Path) -> None:
    """Write the images of a study or series to FOLDER/<instance>.dcm; those that are there already are not fetched.

    Raises BadInput where the study has no image, or the archive does not give all of them; the same call then fetches the rest.
    """
    try:
        with _errors():
            listed = archive.instances(address)
            if not listed:
                raise Refused("it has no image")
            for series, instance in listed:
                place = folder / f"{instance}.dcm"
                if not place.is_file():
                    image = archive.client.retrieve_instance(address.study, series, instance)
                    with whole_file(place) as temporary:
                        image.save_as(temporary, enforce_file_format=True)
    except (Refused, OSError) as error:
        raise BadInput(
            f"{archive.url}: expected a DICOMweb server that gives the study {address.study}, found it failing ({first_line(error)}). Check the address, your rights (name and password in .netrc) and that the server runs; the same command fetches the rest."
        ) from error


def fetch_inputs(
    inputs: Sequence[str], out: Path, options: SynthOptions
) -> tuple[list[str], Studies]:
    """Fetch the studies among the inputs to OUT/dicom/<study>/<study>; raises BadInput where --store has none.

    Returns the inputs with folders in place of addresses, and the studies.
    """
    studies: Studies = {}
    named = []
    for text in inputs:
        if text.lower().startswith(("http://", "https://")):
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
        count += send(files, archive, Ledger(study.parent / SENT), address.url, say)
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
