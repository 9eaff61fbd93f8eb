"""Scans that come in: the files of a form, and zips that are unpacked, so that nothing leaves its folder."""

import re
import shutil
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from fastapi import Request
from fastapi.concurrency import run_in_threadpool
from starlette.datastructures import FormData, UploadFile

from voxlate.base.errors import BadInput, system_refusal
from voxlate.base.files import LONGEST_NAME
from voxlate.scans.formats.format import errors_as

MOST_FILES = 5000
CHUNK = 2**12  # bytes read at once, because bzip2 can unpack a byte to 20,000


def safe_parts(name: str) -> list[str]:
    """The folders and the name of a file as parts that any system takes; [] for hidden files.

    Raises BadInput for an absolute path, and for one that leads out of its folder.
    """
    path = PurePosixPath(name.replace("\\", "/"))
    parts = list(path.parts)
    if path.is_absolute() or ".." in parts or re.match(r"[A-Za-z]:", name):
        raise BadInput(
            f"scans: expected the name of a file inside a folder, found {name[:LONGEST_NAME]!r}. Choose the folder itself."
        )
    if any(part.startswith(".") for part in parts):
        return []
    safe = [re.sub(r"[^\w.-]+", "_", part).strip(".")[-LONGEST_NAME:].lstrip(".") for part in parts]
    return safe if all(safe) else []


@dataclass
class Received:
    """Writes the files of an upload below a folder, and counts them and their bytes."""

    folder: Path
    most_bytes: int
    files: int = 0
    size: int = 0

    def write(self, name: str, source: IO[bytes], size: int) -> None:
        """Write a file with its folders; hidden files are left out.

        Raises BadInput for too many files or bytes, names that lead out of the folder, and a name that is taken.
        """
        parts = safe_parts(name)
        if not parts:  # a hidden file, or the choice of none
            return
        self.files += 1
        self.size += size
        if self.files > MOST_FILES or self.size > self.most_bytes:
            raise BadInput(
                f"scans: expected at most {MOST_FILES} files of {self.most_bytes} bytes, also unpacked, found more. Choose one study."
            )
        path = self.folder.joinpath(*parts)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("xb") as target:
                shutil.copyfileobj(source, target, CHUNK)
        except (FileExistsError, NotADirectoryError) as error:
            raise BadInput(
                f"scans: expected files of different names, found '{path.name}' twice. Rename one."
            ) from error

    def unpack(self, name: str, source: IO[bytes]) -> None:
        """Write the files of a zip below a folder of its name; zips inside of it are not unpacked, and links become files."""
        fault = f"{name}: expected a zip without a password that can be unpacked, found another"
        with (
            errors_as(fault, "Unpack it, and choose its folder."),
            zipfile.ZipFile(source) as archive,
        ):
            for entry in archive.infolist():
                if not entry.is_dir():
                    with archive.open(entry) as content:  # reads no more than the stated size
                        self.write(f"{name[:-4]}/{entry.filename}", content, entry.file_size)


async def receive(request: Request, folder: Path, most_bytes: int) -> None:
    """Write the files of a form below a folder, and those of its zips; raises BadInput where a limit is broken."""
    try:
        # hidden files do not count later
        async with request.form(max_files=2 * MOST_FILES) as form:
            await run_in_threadpool(_write_files, form, Received(folder, most_bytes))
    except OSError as error:
        raise system_refusal(error) from error


def _write_files(form: FormData, received: Received) -> None:
    """Write the files of a form."""
    for _, file in form.multi_items():
        if isinstance(file, UploadFile):
            name = file.filename or ""
            if name.lower().endswith(".zip"):
                received.unpack(name, file.file)
            else:
                received.write(name, file.file, file.size or 0)
