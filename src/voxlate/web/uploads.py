"""Uploads: the files of a form, written to disk while they arrive, and archives, unpacked after a check."""

import os
import re
import shutil
import stat
import threading
import zipfile
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, BinaryIO

from voxlate.system.errors import BadInput
from voxlate.system.files import DEVICES, LONGEST_NAME
from voxlate.web.private import make_folders, open_new
from voxlate.web.settings import MB, Limits

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

CHUNK = 1 << 20
DEEPEST = 12  # folders above a file
FREE_RATIO = (
    16 * MB
)  # bytes to which an archive may expand whatever its size: headers of slices pack well
SPARE = 1 << 28  # bytes of the disk that uploads leave free
# Files that systems add to folders and archives, and that hold no scan.
CLUTTER = ("__macosx", "thumbs.db", "desktop.ini")


@dataclass
class Received:
    """What an upload has brought: the number of files, of bytes, and of files that were left out as clutter."""

    folder: Path
    limits: Limits
    files: int = 0
    bytes: int = 0
    clutter: int = 0

    def place(self, name: str) -> Path | None:
        """The path for a file of this name, with its folders; None for a file that is left out.

        Raises BadInput for too many files, names that lead out of the folder, and a name that is taken.
        """
        parts = safe_parts(name)
        if not parts:
            self.clutter += 1
            return None
        self.files += 1
        if self.files > self.limits.files:
            raise BadInput(
                f"upload: expected at most {self.limits.files} files, found more. Choose one study."
            )
        path = self.folder.joinpath(*parts)
        if path.exists():
            raise BadInput(
                f"upload: expected files of different names, found '{path.name}' twice. Rename one."
            )
        try:
            make_folders(path.parent)
        except (FileExistsError, NotADirectoryError) as error:
            raise BadInput(
                f"upload: expected a folder where '{path.name}' lies, found a file of that name. Rename one."
            ) from error
        return path

    def count(self, size: int) -> None:
        """Count bytes that were written; raises BadInput beyond the limit of an upload."""
        self.bytes += size
        if self.bytes > self.limits.upload_bytes:
            raise BadInput(
                f"upload: expected at most {self.limits.upload_bytes / MB:.4g} MB, found more. Choose fewer files."
            )


@dataclass
class Space:
    """The room on disk that uploads in progress have reserved."""

    limits: Limits
    reserved: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @contextmanager
    def reserve(self, size: int, used: int, folder: Path) -> Iterator[None]:
        """Hold room for an upload; raises BadInput where the data folder or the disk has not enough.

        used: bytes below the data folder.
        """
        with self._lock:
            room = self.limits.disk_bytes - used - self.reserved
            free = shutil.disk_usage(folder).free - self.reserved - SPARE
            if size > min(room, free):
                raise BadInput(
                    f"disk: expected room for {size / MB:.4g} MB, found {max(0, min(room, free)) / MB:.4g} MB. Remove results that are not needed any more."
                )
            self.reserved += size
        try:
            yield
        finally:
            with self._lock:
                self.reserved -= size


def safe_parts(name: str) -> list[str]:
    """The folders and the name of a file as parts that any system takes; [] for hidden files and clutter.

    Raises BadInput for an absolute path, and for one that leads out of its folder or is too deep.
    """
    path = PurePosixPath(name.replace("\\", "/"))
    parts = list(path.parts)
    if path.is_absolute() or ".." in parts or re.match(r"[A-Za-z]:", name) or len(parts) > DEEPEST:
        raise BadInput(
            f"upload: expected the name of a file inside a folder, found {name[:LONGEST_NAME]!r}. Choose the folder itself."
        )
    if not parts or any(part.startswith(".") or part.lower() in CLUTTER for part in parts):
        return []
    safe = [re.sub(r"[^\w.-]+", "_", part).strip(".")[-LONGEST_NAME:].lstrip(".") for part in parts]
    return [_not_a_device(part) for part in safe] if all(safe) else []


def _not_a_device(part: str) -> str:
    """A name that Windows does not keep for a device."""
    return f"_{part}" if part.partition(".")[0].lower() in DEVICES else part


async def receive(
    content_type: str, stream: AsyncIterator[bytes], folder: Path, limits: Limits
) -> Received:
    """Write the files of a multipart form below a folder; raises BadInput for a form that breaks a limit or its format.

    Other fields of the form are ignored.
    """
    from python_multipart.exceptions import FormParserError
    from python_multipart.multipart import MultipartParser, parse_options_header

    kind, options = parse_options_header(content_type)
    boundary = options.get(b"boundary")
    if kind != b"multipart/form-data" or not boundary:
        raise BadInput(
            "upload: expected a form with files (multipart/form-data), found another. Use the page."
        )
    received = Received(folder, limits)
    writer = _Writer(received)
    try:
        parser = MultipartParser(boundary, writer.callbacks)
        async for chunk in stream:
            received.count(len(chunk))
            parser.write(chunk)
        parser.finalize()
    except FormParserError as error:
        raise BadInput(
            "upload: expected a whole form, found a damaged one or a part. Try again."
        ) from error
    except OSError as error:
        raise BadInput(
            f"upload: expected a disk to write on, found '{error.strerror}'. Free some room."
        ) from error
    finally:
        writer.close()
    if not writer.ended:
        raise BadInput("upload: expected a whole form, found a part of one. Try again.")
    return received


class _Writer:
    """Callbacks of the parser: headers of a part decide into which file its data go."""

    MOST_HEADER = 4096  # bytes of a header's name and value

    def __init__(self, received: Received) -> None:
        self.received = received
        self.file: BinaryIO | None = None
        self.name, self.value = b"", b""
        self.disposition = b""
        self.ended = False

    @property
    def callbacks(self) -> "MultipartCallbacks":
        return {
            "on_part_begin": self.begin,
            "on_header_field": self.header_name,
            "on_header_value": self.header_value,
            "on_header_end": self.header_end,
            "on_headers_finished": self.open,
            "on_part_data": self.data,
            "on_part_end": self.close,
            "on_end": self.end,
        }

    def begin(self) -> None:
        self.disposition = b""

    def header_name(self, data: bytes, start: int, end: int) -> None:
        self.name += data[start:end]
        self._check_header()

    def header_value(self, data: bytes, start: int, end: int) -> None:
        self.value += data[start:end]
        self._check_header()

    def _check_header(self) -> None:
        if len(self.name) + len(self.value) > self.MOST_HEADER:
            raise BadInput("upload: expected short headers, found a long one. Rename the file.")

    def header_end(self) -> None:
        if self.name.lower() == b"content-disposition":
            self.disposition = self.value
        self.name, self.value = b"", b""

    def open(self) -> None:
        from python_multipart.multipart import parse_options_header

        _, options = parse_options_header(self.disposition)
        name = options.get(b"filename", b"").decode("utf-8", "replace")
        if not name:  # a field, or an empty choice of files
            return
        path = self.received.place(name)
        if path is not None:
            self.file = open_new(path)

    def data(self, data: bytes, start: int, end: int) -> None:
        if self.file is not None:
            self.file.write(data[start:end])

    def close(self) -> None:
        if self.file is not None:
            self.file.close()
            self.file = None

    def end(self) -> None:
        self.ended = True


def unpack_archives(received: Received) -> None:
    """Replace each zip of an upload by its files, in a folder of its name; raises BadInput for one that breaks a rule.

    Archives inside of archives are not unpacked.
    """
    for path in sorted(received.folder.rglob("*")):
        if path.suffix.lower() == ".zip" and path.is_file():
            _unpack(path, received)
            path.unlink()


def _unpack(path: Path, received: Received) -> None:
    inner = Received(path.with_suffix(""), received.limits, received.files, received.bytes)
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            _check_entries(entries, path, received)
            for entry in entries:
                if entry.is_dir():
                    continue
                place = inner.place(entry.filename)
                if place is None:
                    continue
                with archive.open(entry) as source, open_new(place) as target:
                    while chunk := source.read(CHUNK):
                        inner.count(len(chunk))
                        target.write(chunk)
    except BadInput:
        raise
    except Exception as error:  # each kind of compression raises errors of its own for damaged data
        if isinstance(error, OSError) and error.errno is not None:
            raise BadInput(
                f"{path.name}: expected room to unpack it, found '{error.strerror}'. Free some room."
            ) from error
        raise BadInput(
            f"{path.name}: expected a zip archive without a password, found a damaged or another one. Make it again."
        ) from error
    received.files, received.bytes = inner.files, inner.bytes
    received.clutter += inner.clutter


def _check_entries(entries: list[zipfile.ZipInfo], path: Path, received: Received) -> None:
    """Raise BadInput for an archive with too many or too large files, links, passwords, or paths that lead out of it."""
    files = [entry for entry in entries if not entry.is_dir()]
    limits = received.limits
    if len(entries) > limits.files:
        raise BadInput(
            f"{path.name}: expected at most {limits.files} files in an archive, found {len(entries)}. Choose one study."
        )
    for entry in files:
        mode = entry.external_attr >> 16
        if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
            raise BadInput(
                f"{path.name}: expected plain files in an archive, found a link or a device. Make it again without."
            )
        safe_parts(entry.filename)
    unpacked = sum(entry.file_size for entry in files)
    room = limits.upload_bytes - received.bytes
    if unpacked > room:
        raise BadInput(
            f"{path.name}: expected files of at most {room / MB:.4g} MB in it, found {unpacked / MB:.4g} MB. Choose one study."
        )
    packed = os.path.getsize(path)
    if unpacked > FREE_RATIO and unpacked > limits.ratio * packed:
        raise BadInput(
            f"{path.name}: expected files at most {limits.ratio:g} times as large as the archive, found {unpacked / packed:.0f} times. Give the files without the archive."
        )
