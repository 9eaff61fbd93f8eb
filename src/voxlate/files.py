"""Files that appear whole or not at all, below the folder that they are meant for, by one process at a time."""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from voxlate.errors import BadInput, CannotWrite

LONGEST_NAME = 100
SYNTHETIC = "desc-synthetic_"  # before the name of an image that completes a case, so that no scan has that name (BIDS)
# after the name of an image: maps of it
STD, UNCALIBRATED, LOW, HIGH, UNFAMILIAR = "_std", "_std_uncalibrated", "_low", "_high", "_unfamiliar"
MAPS = (UNCALIBRATED, STD, LOW, HIGH, UNFAMILIAR)
CHECKSUM = "checksum"  # a key of tables that voxlate writes


def safe_name(name: str, where: object) -> str:
    """The name, where it may become a file's or folder's; raises BadInput for any other.

    Letters, digits, '-', '_' and '.', no leading '.', at most 100 characters: the one rule for the names of cases,
    patients, modalities, label maps and stages, wherever they come from.
    """
    if re.fullmatch(r"[\w-][\w.-]*", name) and len(name) <= LONGEST_NAME and len(name.encode()) <= 2 * LONGEST_NAME:
        return name
    shown = name if len(name) <= LONGEST_NAME else name[:20] + "…"
    raise BadInput(
        f"{where}: expected a name of letters, digits, '-', '_' and '.', with no '.' first and at most {LONGEST_NAME} "
        f"characters, found {shown!r}. Rename it."
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
        handle, name = tempfile.mkstemp(prefix=".writing-", suffix="-" + path.name[-LONGEST_NAME:], dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        mask = os.umask(0)
        os.umask(mask)
        temporary.chmod(0o666 & ~mask)  # mkstemp's 0600 would hide results from the user's group
        os.replace(temporary, path)
    except (PermissionError, FileExistsError, NotADirectoryError) as error:
        raise CannotWrite(
            f"{path}: expected a folder to write in, found {error.strerror or 'none'}. Choose another folder."
        ) from error
    except Exception as error:
        if _disk_is_full(error, path.parent):
            raise CannotWrite(
                f"{path}: expected room to write it, found a full disk. Free some and run again."
            ) from error
        if isinstance(error, OSError) and error.errno in (errno.EROFS, errno.ENAMETOOLONG, errno.EIO):
            raise CannotWrite(f"{path}: expected a place to write, found: {error.strerror}. Choose another.") from error
        raise
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def locked(folder: Path | str) -> Iterator[None]:
    """Hold a folder (made where there is none) against other voxlate processes, and clear what dead ones left in it.

    Raises BadInput where another process holds it. The lock goes with the process, however that ends.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY)
    except OSError as error:
        found = "a file" if isinstance(error, FileExistsError | NotADirectoryError) else f"'{error.strerror}'"
        raise BadInput(f"{folder}: expected a folder to write in, found {found}. Choose another name.") from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        for stray in folder.rglob(".writing-*"):  # who held the lock before has left them
            stray.unlink(missing_ok=True)
        yield
    except BlockingIOError as error:
        raise BadInput(
            f"{folder}: expected no other voxlate to write here, found one that does. Wait for it, or choose another "
            "folder."
        ) from error
    finally:
        os.close(handle)


def write_text(path: Path | str, text: str) -> None:
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")  # names of files need not be text


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
