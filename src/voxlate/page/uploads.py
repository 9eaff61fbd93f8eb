"""Scans that come in: the files of a form, so that nothing leaves its folder."""

import re
import shutil
from pathlib import Path, PurePosixPath

from fastapi import Request
from fastapi.concurrency import run_in_threadpool
from starlette.datastructures import FormData, UploadFile

from voxlate.base.errors import BadInput, system_refusal
from voxlate.base.files import LONGEST_NAME

MOST_FILES = 5000


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


async def receive(request: Request, folder: Path) -> None:
    """Write the files of a form below a folder; raises BadInput for too many files, names that lead out of the folder, and a name that is taken."""
    try:
        # hidden files do not count later
        async with request.form(max_files=2 * MOST_FILES) as form:
            await run_in_threadpool(_write_files, form, folder)
    except OSError as error:
        raise system_refusal(error) from error


def _write_files(form: FormData, folder: Path) -> None:
    """Write the files of a form with their folders; hidden files are left out."""
    count = 0
    for _, file in form.multi_items():
        if not isinstance(file, UploadFile):
            continue
        parts = safe_parts(file.filename or "")
        if not parts:  # a hidden file, or the choice of none
            continue
        count += 1
        if count > MOST_FILES:
            raise BadInput(
                f"scans: expected at most {MOST_FILES} files, found more. Choose one study."
            )
        path = folder.joinpath(*parts)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("xb") as target:
                shutil.copyfileobj(file.file, target)
        except (FileExistsError, NotADirectoryError) as error:
            raise BadInput(
                f"scans: expected files of different names, found '{path.name}' twice. Rename one."
            ) from error
