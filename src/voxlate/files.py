"""Files that appear whole or not at all, below the folder that they are meant for, by one process at a time."""

import contextlib
import errno
import hashlib
import itertools
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from voxlate.errors import BadInput, CannotWrite

LONGEST_NAME = 100
# before the name of an image that completes a case, so that no scan has that name (BIDS)
SYNTHETIC = "desc-synthetic_"
# after the name of an image: maps of it
STD = "_std"
UNCALIBRATED = "_std_uncalibrated"
LOW = "_low"
HIGH = "_high"
UNFAMILIAR = "_unfamiliar"
MAPS = (UNCALIBRATED, STD, LOW, HIGH, UNFAMILIAR)
CHECKSUM = "checksum"  # a key of tables that voxlate writes
# in a folder while voxlate writes there; it stays after a crash, and then holds nobody off
LOCK = ".lock"
WRITING = ".writing-"  # before the name of a file that is not whole yet
# Windows keeps these for devices, with any ending (Microsoft, "Naming Files, Paths, and Namespaces")
DEVICES = {
    "con",
    "prn",
    "aux",
    "nul",
    *(f"{port}{digit}" for port in ("com", "lpt") for digit in "0123456789¹²³"),
}


def safe_name(name: str, where: object) -> str:
    """The name, where it may become a file's or folder's; raises BadInput for any other.

    Letters, digits, '-', '_' and '.', no '.' at either end, at most 100 characters, and no name that Windows forbids:
    the one rule for the names of cases, patients, modalities, label maps and stages, wherever they come from, so that
    what one machine writes another can read.
    """
    if name.partition(".")[0].lower() in DEVICES:
        raise BadInput(
            f"{where}: expected a name that may be a file's on any system, found '{name}', which Windows keeps for a device. Rename it."
        )
    short = len(name) <= LONGEST_NAME and len(name.encode()) <= 2 * LONGEST_NAME
    if short and re.fullmatch(r"[\w-]([\w.-]*[\w-])?", name):
        return name
    shown = name if len(name) <= LONGEST_NAME else name[:20] + "…"
    raise BadInput(
        f"{where}: expected a name of letters, digits, '-', '_' and '.', with no '.' first or last and at most {LONGEST_NAME} characters, found {shown!r}. Rename it."
    )


def inside(root: Path, path: Path) -> bool:
    """Whether a path lies below a folder once '..' and symbolic links are followed."""
    return path.resolve().is_relative_to(root.resolve())


@contextlib.contextmanager
def whole_file(path: Path | str) -> Iterator[Path]:
    """Give a temporary path next to `path`, and rename it to `path` once the block has written it.

    The temporary name ends with the name of `path`, so writers that look at the suffix still work.
    Raises BadInput where the disk is full or the folder cannot be written; nothing is left behind then.
    """
    path = Path(path)
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_name(f"{WRITING}{secrets.token_hex(4)}-{path.name[-LONGEST_NAME:]}")
        new.touch(exist_ok=False)
        temporary = new
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        _replace(temporary, path)
    except (PermissionError, FileExistsError, NotADirectoryError) as error:
        raise CannotWrite(
            f"{path}: expected a folder to write in, found {error.strerror or 'none'}. Choose another folder."
        ) from error
    except Exception as error:
        if _disk_is_full(error, path.parent):
            raise CannotWrite(
                f"{path}: expected room to write it, found a full disk. Free some and run again."
            ) from error
        if isinstance(error, OSError) and error.errno in (
            errno.EROFS,
            errno.ENAMETOOLONG,
            errno.EIO,
        ):
            raise CannotWrite(f"{path}: expected a place to write, found: {error.strerror}. Choose another.") from error
        raise
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def _replace(new: Path, old: Path) -> None:
    """Rename a file over another; Windows refuses that while the other is open."""
    try:
        os.replace(new, old)
    except PermissionError as error:
        if not old.is_file():
            raise
        raise CannotWrite(
            f"{old}: expected a file that can be replaced, found {error.strerror or 'one that cannot'}. Close what has it open, or choose another folder."
        ) from error


@contextlib.contextmanager
def locked(folder: Path | str, wait_seconds: float = 0) -> Iterator[None]:
    """Hold a folder (made where there is none) against other voxlate processes, and clear what dead ones left in it.

    Raises BadInput where another process still holds it after the wait. The lock goes with the process, however that
    ends.
    """
    # here, because commands that write nothing need none of it
    from filelock import FileLock, Timeout

    folder = Path(folder)
    lock = FileLock(folder / LOCK, timeout=wait_seconds)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout as error:
        raise BadInput(
            f"{folder}: expected no other voxlate to write here, found one that does. Wait for it, or choose another folder."
        ) from error
    except OSError as error:
        found = "a file" if isinstance(error, FileExistsError | NotADirectoryError) else f"'{error.strerror}'"
        raise BadInput(f"{folder}: expected a folder to write in, found {found}. Choose another name.") from error
    try:
        for stray in folder.rglob(f"{WRITING}*"):  # who held the lock before has left them
            if not _held_inside(stray, folder):
                stray.unlink(missing_ok=True)
        yield
    finally:
        with contextlib.suppress(OSError):  # while it is held: filelock sees that a lock's file is gone
            (folder / LOCK).unlink()
        lock.release()


def _held_inside(path: Path, folder: Path) -> bool:
    """Whether a folder between a file and a locked one has a lock of its own: its process may be writing the file."""
    between = itertools.takewhile(lambda one: one != folder, path.parents)
    return any((one / LOCK).exists() for one in between)


def is_scaffold(path: Path) -> bool:
    """Whether a file is a lock or one that is not whole yet, and so nothing that its folder is for."""
    return path.name == LOCK or path.name.startswith(WRITING)


def seen_from(folder: Path, path: Path) -> str:
    """A path relative to a folder, with '/': what is written holds no absolute path, and moves with both.

    On another drive of Windows it stays absolute, because no relative path leads there.
    """
    try:
        return Path(os.path.relpath(path, folder.resolve())).as_posix()
    except ValueError:
        return path.absolute().as_posix()


def write_text(path: Path | str, text: str) -> None:
    with whole_file(path) as temporary:
        # the same bytes on every system; names of files need not be text
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace", newline="\n")


def write_json(path: Path | str, value: Mapping[str, Any]) -> None:
    """Write a table with a checksum of what it says, which `read_json` compares."""
    plain = json.loads(json.dumps(value, ensure_ascii=False, allow_nan=False))
    text = json.dumps({**plain, CHECKSUM: _checksum(plain)}, indent=2, ensure_ascii=False)
    write_text(path, text + "\n")


def _checksum(value: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def read_json(path: Path | str) -> Any:
    """The content of a file; raises BadInput where it is absent, is not JSON, or was changed since voxlate wrote it."""
    path = Path(path)
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(value, dict) and CHECKSUM in value and value.pop(CHECKSUM) != _checksum(value):
            raise BadInput(
                f"{path}: expected what voxlate wrote, found a changed file (its checksum differs). Make it again."
            )
        return value
    except RecursionError as error:
        raise BadInput(f"{path}: expected JSON of some levels, found too many. Check the file.") from error
    except FileNotFoundError as error:
        raise BadInput(f"{path}: expected this file, found none. Check the path.") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: expected JSON, found something else ({error}).") from error


def _disk_is_full(error: Exception, folder: Path) -> bool:
    """Writers in C++ and Rust wrap the system's error, so their words and the room left are looked at as well."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    if isinstance(error, BadInput):
        return False
    return "os error 28" in str(error) or "No space left" in str(error) or shutil.disk_usage(folder).free < 2**16
