"""Scans that come in: the files of a form, and archives that are unpacked, so that nothing leaves its folder."""

import re
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from fastapi import Request
from fastapi.concurrency import run_in_threadpool
from starlette.datastructures import FormData, UploadFile

from voxlate.base.errors import BadInput, system_refusal
from voxlate.base.files import LONGEST_NAME
from voxlate.page.page_settings import Settings

MB = 2**20
DEEPEST = 12  # folders above a file
# Files that systems add to folders and archives, and that hold no scan.
CLUTTER = ("__macosx", "thumbs.db", "desktop.ini")


@dataclass
class Received:
    """The number of files that were written, and of their bytes; and what may be at most."""

    settings: Settings
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
        if self.files > self.settings.files:
            raise BadInput(
                f"scans: expected at most {self.settings.files} files, found more. Choose one study."
            )
        path = folder.joinpath(*parts)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            target = path.open("xb")
        except (FileExistsError, NotADirectoryError) as error:
            raise BadInput(
                f"scans: expected files of different names, found '{path.name}' twice. Rename one."
            ) from error
        with target:
            while chunk := source.read(MB):
                self.size += len(chunk)
                if self.size > self.settings.upload_bytes:
                    raise BadInput(
                        f"scans: expected files of at most {self.settings.upload_bytes / MB:.4g} MB, found more. Choose fewer files."
                    )
                target.write(chunk)

    def unpack(self, path: Path, folder: Path) -> None:
        """Write the files of a zip below a folder; archives inside of it are not unpacked, and links become files.

        Raises BadInput for a damaged zip.
        """
        try:
            with zipfile.ZipFile(path) as archive:
                for entry in archive.infolist():
                    if not entry.is_dir():
                        with archive.open(entry) as source:
                            self.write(source, entry.filename, folder)
        except BadInput:
            raise
        except Exception as error:  # each kind of compression has errors of its own
            if isinstance(error, OSError) and error.errno is not None:
                raise
            raise BadInput(
                f"{path.name}: expected a zip archive without a password, found a damaged or another one. Make it again."
            ) from error


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


async def receive(request: Request, folder: Path, settings: Settings) -> None:
    """Write the files of a form below a folder, and unpack its archives; raises BadInput where a limit is broken."""
    try:
        # files that are clutter do not count later
        async with request.form(max_files=2 * settings.files) as form:
            await run_in_threadpool(_write_files, form, folder, settings)
    except OSError as error:
        raise system_refusal(error) from error


def _write_files(form: FormData, folder: Path, settings: Settings) -> None:
    """Write the files of a form, each archive unpacked into a folder of its name."""
    received = Received(settings)
    for _, file in form.multi_items():
        if isinstance(file, UploadFile) and file.filename:  # not the choice of no file
            received.write(file.file, file.filename, folder)
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() == ".zip" and path.is_file():
            received.unpack(path, path.with_suffix(""))
            path.unlink()
