"""Addresses of studies on DICOMweb servers, and of DICOM nodes; names of studies that lead back to no patient."""

import contextlib
import hashlib
import ipaddress
import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from voxlate.base.errors import BadInput

# dicomweb:// is https, except on this machine; dicomweb+http:// is http wherever it is.
SCHEMES = ("dicomweb", "dicomweb+http", "dicomweb+https")
UID = re.compile(r"[0-9]+(\.[0-9]+)*")
AE_TITLE = re.compile(r"[\x21-\x5b\x5d-\x7e]{1,16}")  # printable, without spaces and backslashes
EXAMPLE = "dicomweb://HOST/studies/UID"
NAME_DIGITS = 16


@dataclass(frozen=True)
class StudyAddress:
    """A study, or one series of it, on a DICOMweb server. url: the root of the server's services; series: "" for all."""

    url: str
    study: str
    series: str = ""


@dataclass(frozen=True)
class Node:
    """A DICOM node that takes images: its title, host and port."""

    title: str
    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.title}@{self.host}:{self.port}"


def is_dicomweb(text: str) -> bool:
    """Whether a text names something on a DICOMweb server."""
    return text.partition("://")[0].lower() in SCHEMES


def study_address(text: str) -> StudyAddress:
    """The study that an address names, such as dicomweb://HOST:8042/dicom-web/studies/UID[/series/UID]."""
    parts = urlsplit(text)
    without_password = re.sub(r"//[^/@]*@", "//", text)
    match = re.fullmatch(r"(.*)/studies/([^/]+)(?:/series/([^/]+))?/?", parts.path)
    uids = [uid for uid in (match.groups()[1:] if match else ()) if uid]
    sound = all(UID.fullmatch(uid) and len(uid) <= 64 for uid in uids)
    if not (is_dicomweb(text) and parts.hostname and match and uids and sound):
        raise BadInput(
            f"{without_password}: expected the address of a study, such as {EXAMPLE}, found another text. Check the address."
        )
    if parts.username or parts.password:
        raise BadInput(
            f"{without_password}: expected an address without a password, found one in it. Put the name and password of {parts.hostname} into the file .netrc in your home folder."
        )
    scheme = parts.scheme.partition("+")[2]
    if not scheme:
        host = "127.0.0.1" if parts.hostname == "localhost" else parts.hostname
        is_local = False
        with contextlib.suppress(ValueError):  # a name
            is_local = ipaddress.ip_address(host).is_loopback
        scheme = "http" if is_local else "https"
    return StudyAddress(f"{scheme}://{parts.netloc}{match[1]}", match[2], match[3] or "")


def check_uid(uid: str, where: object) -> str:
    """A UID; raises BadInput for a text that is none, which could be a path."""
    if UID.fullmatch(uid) and len(uid) <= 64:
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
