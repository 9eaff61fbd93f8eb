"""Scans that come in: the files of a form, and archives, unpacked after a check."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fastapi import Request
from fastapi.concurrency import run_in_threadpool
from starlette.datastructures import FormData, Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from voxlate.base.errors import BadInput, system_refusal
from voxlate.page.archive import MB, Received
from voxlate.page.page_settings import Limits

SPARE = 1 << 28  # bytes of the disk that uploads leave free


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


async def receive(request: Request, folder: Path, limits: Limits) -> Received:
    """Write the files of a form below a folder, and unpack its archives; raises BadInput where a limit is broken."""
    headers = {"content-type": "", **request.headers}
    # files that are clutter do not count later
    parser = _WholeForm(Headers(headers), request.stream(), max_files=2 * limits.files)
    try:
        form = await parser.parse()
        try:
            return await run_in_threadpool(_write_files, form, folder, limits)
        finally:
            await form.close()
    except MultiPartException as error:
        raise BadInput(
            f"upload: expected a whole form with at most {limits.files} files, found another ({error.message}). Try again."
        ) from error
    except OSError as error:
        raise system_refusal(error) from error


def _write_files(form: FormData, folder: Path, limits: Limits) -> Received:
    """Write the files of a form, each archive unpacked into a folder of its name."""
    received = Received(limits.files, limits.upload_bytes, limits.ratio)
    for _, file in form.multi_items():
        if isinstance(file, UploadFile) and file.filename:  # not the choice of no file
            received.write(file.file, file.filename, folder)
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() == ".zip" and path.is_file():
            received.unpack(path, path.with_suffix(""))
            path.unlink()
    return received
