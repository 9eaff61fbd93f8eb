"""C-STORE: sending images to a DICOM node, and receiving images from allowed ones."""

import socket
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from voxlate.base.errors import BadInput
from voxlate.base.optional import Package, pydicom
from voxlate.clinic.address import Node
from voxlate.clinic.sending import COMPANIONS, Lost, Refused

SUCCESS = 0x0000
WARNINGS = range(0xB000, 0xC000)  # the image is stored, with a remark (PS3.4, B.2.3)
OUT_OF_RESOURCES = range(0xA700, 0xA800)  # passes
CANNOT_UNDERSTAND, NO_ROOM = 0xC000, 0xA700
PENDING = (0xFF00, 0xFF01)
MOST_CONTEXTS = 128  # presentation contexts of an association
# connections that have not asked for an association yet; the oldest is closed for one more
MOST_WAITING = 20
MOST_ASSOCIATIONS = 1000  # counts closed connections, too, until their threads have ended
ASK_SECONDS = 10.0  # in which a new connection asks for an association
# after which an association without a message ends: senders pause between series
SILENT_SECONDS = 300.0
ECHO = "1.2.840.10008.1.1"
pynetdicom = Package("pynetdicom", "pacs", "DICOM", "pynetdicom to talk to a DICOM node")
queries = Package("pynetdicom.sop_class", "pacs", "C-FIND", "pynetdicom")
Receive = Callable[[Any, Any], None]


@dataclass
class NodeArchive:
    """A DICOM node that stores images. The association is opened for the first image and again after it was lost."""

    node: Node
    own_title: str
    association: Any = field(default=None, repr=False)

    def store(self, dataset: Any) -> None:
        """Store one image; raises Lost and Refused."""
        association = self._open(dataset)
        try:
            status = association.send_c_store(dataset)
        except ValueError as error:  # no presentation context for this kind of image
            raise Refused(f"the node does not take it: {error}") from error
        except RuntimeError as error:
            raise Lost(str(error)) from error
        if "Status" not in status:
            self.close()
            raise Lost("no answer")
        if status.Status in OUT_OF_RESOURCES:
            raise Lost(f"status 0x{status.Status:04X}, out of resources")
        if status.Status != SUCCESS and status.Status not in WARNINGS:
            raise Refused(f"status 0x{status.Status:04X}")

    def has(self, dataset: Any) -> bool:
        """Whether the node answers a query (C-FIND) with this image; False where it takes no queries."""
        query = pydicom.Dataset()
        query.QueryRetrieveLevel = "IMAGE"
        for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"):
            query[keyword] = dataset[keyword]
        association = self._open(dataset)
        try:
            answers = association.send_c_find(
                query, queries.StudyRootQueryRetrieveInformationModelFind
            )
            return any("Status" in status and status.Status in PENDING for status, _ in answers)
        except (ValueError, RuntimeError):
            return False

    def close(self) -> None:
        """Release the association, if there is one."""
        if self.association is not None and self.association.is_established:
            self.association.release()
        self.association = None

    def _open(self, dataset: Any) -> Any:
        if self.association is not None and self.association.is_established:
            return self.association
        entity = pynetdicom.AE(ae_title=self.own_title)
        entity.add_requested_context(dataset.SOPClassUID, dataset.file_meta.TransferSyntaxUID)
        if not dataset.file_meta.TransferSyntaxUID.is_compressed:
            entity.add_requested_context(dataset.SOPClassUID)
        for kind in pynetdicom.StoragePresentationContexts[: MOST_CONTEXTS - 8]:
            entity.add_requested_context(kind.abstract_syntax)
        for companion in COMPANIONS:  # not all of them are among the usual ones
            entity.add_requested_context(companion)
        entity.add_requested_context(queries.StudyRootQueryRetrieveInformationModelFind)
        association = entity.associate(self.node.host, self.node.port, ae_title=self.node.title)
        if association.is_rejected:
            raise Refused(f"the node rejects {self.own_title}, or is not called {self.node.title}")
        if not association.is_established:
            raise Lost("no connection")
        self.association = association
        return association


@dataclass
class _Waiting:
    """Connections that have not asked for an association yet; the oldest are closed for new ones."""

    associations: list[Any] = field(default_factory=list)
    alone: threading.Lock = field(default_factory=threading.Lock)

    def add(self, event: Any) -> None:
        """Add a new connection."""
        with self.alone:
            self.associations = [
                waiting
                for waiting in self.associations
                if waiting.dul.socket.socket is not None and not waiting.is_established
            ]
            for oldest in self.associations[: max(0, len(self.associations) + 1 - MOST_WAITING)]:
                with suppress(OSError, AttributeError):  # it has ended meanwhile
                    oldest.dul.socket.socket.shutdown(socket.SHUT_RDWR)
            self.associations.append(event.assoc)


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
    entity.maximum_associations = MOST_ASSOCIATIONS
    entity.acse_timeout = ASK_SECONDS
    entity.network_timeout = SILENT_SECONDS
    for kind in pynetdicom.AllStoragePresentationContexts:
        entity.add_supported_context(kind.abstract_syntax, pynetdicom.ALL_TRANSFER_SYNTAXES)
    entity.add_supported_context(ECHO)
    handlers = [
        (pynetdicom.evt.EVT_C_STORE, _store, [receive]),
        (pynetdicom.evt.EVT_CONN_OPEN, _Waiting().add),
    ]
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
