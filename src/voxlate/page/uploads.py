"""Scans that come in: the files of a form, and archives, unpacked after a check, so that nothing leaves its folder."""

import re
import shutil
import stat
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from fastapi import Request
from fastapi.concurrency import run_in_threadpool
from starlette.datastructures import FormData, Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from voxlate.base.errors import BadInput, system_refusal
from voxlate.base.files import LONGEST_NAME
from voxlate.page.page_settings import Limits

SPARE = 1 << 28  # bytes of the disk that uploads leave free
MB = 2**20
DEEPEST = 12  # folders above a file
# Bytes to which an archive may expand whatever its size, because headers of slices pack well.
FREE_BYTES = 16 * MB
# Files that systems add to folders and archives, and that hold no scan.
CLUTTER = ("__macosx", "thumbs.db", "desktop.ini")


@dataclass
class Received:
    """The number of files that were written, and of their bytes; and what may be at most."""

    limits: Limits
    files: int = 0
    size: int = 0

    def write(self, source: IO[bytes], name: str, folder: Path) -> None:
        """Write a file of this name, with its folders, below a folder; clutter is left out.

        Raises BadInput for too many files or bytes, names that lead out of the folder, and a name that is taken.
        """
        parts = safe_parts(name)
        if not parts:
            return
        self.files += 1
        if self.files > self.limits.files:
            raise BadInput(
                f"scans: expected at most {self.limits.files} files, found more. Choose one study."
            )
        path = folder.joinpath(*parts)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            target = path.open("xb")
        except (FileExistsError, NotADirectoryError) as error:
            raise BadInput(
                f"scans: expected files and folders of different names, found '{path.name}' twice. Rename one."
            ) from error
        with target:
            while chunk := source.read(MB):
                self.size += len(chunk)
                if self.size > self.limits.upload_bytes:
                    raise BadInput(
                        f"scans: expected files of at most {self.limits.upload_bytes / MB:.4g} MB, found more. Choose fewer files."
                    )
                target.write(chunk)

    def unpack(self, path: Path, folder: Path) -> None:
        """Write the files of a zip below a folder; archives inside of it are not unpacked.

        Raises BadInput for a damaged zip, links and devices, and for one that expands too far.
        """
        try:
            with zipfile.ZipFile(path) as archive:
                entries = [entry for entry in archive.infolist() if not entry.is_dir()]
                self._check(entries, path)
                for entry in entries:
                    with archive.open(entry) as source:
                        self.write(source, entry.filename, folder)
        except BadInput:
            raise
        except (
            Exception
        ) as error:  # each kind of compression raises errors of its own for damaged data
            if isinstance(error, OSError) and error.errno is not None:
                raise
            raise BadInput(
                f"{path.name}: expected a zip archive without a password, found a damaged or another one. Make it again."
            ) from error

    def _check(self, entries: list[zipfile.ZipInfo], path: Path) -> None:
        kinds = {stat.S_IFMT(entry.external_attr >> 16) for entry in entries}
        if kinds - {0, stat.S_IFREG}:
            raise BadInput(
                f"{path.name}: expected plain files in an archive, found a link or a device. Make it again without."
            )
        size = sum(entry.file_size for entry in entries)
        ratio = size / path.stat().st_size
        if size > FREE_BYTES and ratio > self.limits.ratio:
            raise BadInput(
                f"{path.name}: expected files at most {self.limits.ratio:g} times as large as the archive, found {ratio:.0f} times. Give the files without the archive."
            )


def safe_parts(name: str) -> list[str]:
    """The folders and the name of a file as parts that any system takes; [] for hidden files and clutter.

    Raises BadInput for an absolute path, and for one that leads out of its folder or is too deep.
    """
    path = PurePosixPath(name.replace("\\", "/"))
    parts = list(path.parts)
    if path.is_absolute() or ".." in parts or re.match(r"[A-Za-z]:", name) or len(parts) > DEEPEST:
        raise BadInput(
            f"scans: expected the name of a file inside a folder, found {name[:LONGEST_NAME]!r}. Choose the folder itself."
        )
    if any(part.startswith(".") or part.lower() in CLUTTER for part in parts):
        return []
    safe = [re.sub(r"[^\w.-]+", "_", part).strip(".")[-LONGEST_NAME:].lstrip(".") for part in parts]
    return safe if all(safe) else []


@dataclass
class Space:
    """The room on disk that uploads in progress have reserved; the event loop alone counts it."""

    limits: Limits
    reserved: int = 0

    @contextmanager
    def reserve(self, size: int, used: int, folder: Path) -> Iterator[None]:
        """Hold room for an upload; raises BadInput where the data folder or the disk has not enough.

        used: bytes below the data folder.
        """
        free = min(self.limits.disk_bytes - used, shutil.disk_usage(folder).free - SPARE)
        room = max(0, free - self.reserved)
        if size > room:
            raise BadInput(
                f"disk: expected room for {size / MB:.4g} MB, found {room / MB:.4g} MB. Remove results that are not needed any more."
            )
        self.reserved += size
        try:
            yield
        finally:
            self.reserved -= size


class _WholeForm(MultiPartParser):
    """Refuses a form without its closing boundary, of which Starlette drops the last file."""

    is_whole = False

    def on_end(self) -> None:
        """Note the closing boundary."""
        self.is_whole = True

    async def parse(self) -> FormData:
        """The fields and files of the form; raises MultiPartException where it is cut."""
        form = await super().parse()
        if not self.is_whole:
            await form.close()
            raise MultiPartException("it is cut.")
        return form


async def receive(request: Request, folder: Path, limits: Limits) -> None:
    """Write the files of a form below a folder, and unpack its archives; raises BadInput where a limit is broken."""
    headers = {"content-type": "", **request.headers}
    # files that are clutter do not count later
    parser = _WholeForm(Headers(headers), request.stream(), max_files=2 * limits.files)
    try:
        form = await parser.parse()
        try:
            await run_in_threadpool(_write_files, form, folder, limits)
        finally:
            await form.close()
    except MultiPartException as error:
        raise BadInput(
            f"upload: expected a whole form with at most {limits.files} files, found another ({error.message}). Try again."
        ) from error
    except OSError as error:
        raise system_refusal(error) from error


def _write_files(form: FormData, folder: Path, limits: Limits) -> None:
    """Write the files of a form, each archive unpacked into a folder of its name."""
    received = Received(limits)
    for _, file in form.multi_items():
        if isinstance(file, UploadFile) and file.filename:  # not the choice of no file
            received.write(file.file, file.filename, folder)
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() == ".zip" and path.is_file():
            received.unpack(path, path.with_suffix(""))
            path.unlink()
