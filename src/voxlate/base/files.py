"""Writing of files: they appear whole or not at all, and one process at a time writes in a folder."""

import errno
import hashlib
import itertools
import json
import os
import re
import secrets
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from shutil import rmtree
from typing import Any

from voxlate.base.errors import NO_PLACE, BadInput, CannotWrite, cannot_write, system_code
from voxlate.base.machine import free_disk

LONGEST_NAME = 100
# Prefix of an image that completes a case, so that no scan has this name (BIDS).
SYNTHETIC = "desc-synthetic_"
# Suffixes of the maps of an image.
STD = "_std"
UNCALIBRATED = "_std_uncalibrated"
LOW = "_low"
HIGH = "_high"
PHANTOMS = "phantom.json"  # beside the cases of a cohort that was drawn
MAPS = (UNCALIBRATED, STD, LOW, HIGH, "_unfamiliar")  # the last one of version 0.7
CHECKSUM = "checksum"  # a key of tables that voxlate writes
ANY = object()  # stands for all values of a retired key
# This file exists while voxlate writes in a folder; after a crash it remains without effect.
LOCK = ".lock"
WRITING = ".writing-"  # prefix of an incomplete file or folder


def safe_name(name: str, where: object) -> str:
    """The name if it is allowed for files and folders; raises BadInput otherwise.

    Allowed are letters, digits, '-', '_' and '.', no '.' at either end, at most 100 characters. This rule holds for all names of cases, patients, modalities, label maps and stages, so that every machine
    can read the files of others.
    """
    short = len(name) <= LONGEST_NAME and len(os.fsencode(name)) <= 2 * LONGEST_NAME
    if short and re.fullmatch(r"[\w-]([\w.-]*[\w-])?", name):
        return name
    shown = name if len(name) <= LONGEST_NAME else name[:20] + "…"
    raise BadInput(
        f"{where}: expected a name of letters, digits, '-', '_' and '.', with no '.' first or last and at most {LONGEST_NAME} characters, found {shown!r}. Rename it."
    )


def inside(root: Path, path: Path) -> bool:
    """Whether a path is below a folder after '..' and symbolic links are resolved."""
    return path.resolve().is_relative_to(root.resolve())


@contextmanager
def whole_file(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path next to `path`, and rename it to `path` after the block has written it.

    The temporary name ends with the name of `path`, so writers that depend on the suffix still work.
    Raises BadInput if the disk is full or the folder cannot be written; no file remains then.
    """
    path = Path(path)
    temporary = _incomplete(path)
    try:
        with _refusals(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary.touch(exist_ok=False)
            mode = stat.S_IMODE(temporary.stat().st_mode)
            yield temporary
            temporary.chmod(mode)  # safetensors writes files that their owner alone may read
            with open(temporary, "rb+") as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
    finally:
        with suppress(OSError):  # where none was made, or it has its name
            temporary.unlink()


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder next to `path`, and rename it to `path` after the block has filled it.

    Unlike whole_file, it does not wait until the disk has every file: a series has hundreds.
    Raises BadInput if the disk is full or the folder cannot be written; no folder remains then.
    """
    temporary = _incomplete(path)
    try:
        with _refusals(path):
            temporary.mkdir(parents=True)
            yield temporary
            temporary.rename(path)
    finally:
        rmtree(temporary, ignore_errors=True)


def _incomplete(path: Path) -> Path:
    """A new name for an incomplete file or folder, which locked() removes after a kill."""
    return path.with_name(f"{WRITING}{secrets.token_hex(4)}-{path.name[-LONGEST_NAME:]}")


@contextmanager
def _refusals(path: Path) -> Iterator[None]:
    """Turn errors of the system, met while `path` is written, into sentences."""
    try:
        yield
    except BadInput:
        raise
    except Exception as error:
        code = system_code(error)
        # some writers in C++ hide the system's error; a disk that is mounted read-only has no free space either
        is_full = "No space left" in str(error) or free_disk(path.parent) < 2**16
        if code is None and is_full:
            code = errno.ENOSPC
        if code not in NO_PLACE:
            raise
        raise cannot_write(path, code) from error


@contextmanager
def lock(folder: Path | str, wait_seconds: float = 0) -> Iterator[None]:
    """Lock a folder (created if necessary) against other voxlate processes, and remove files of killed processes.

    A folder that was created here and is still empty at the end is removed. Raises BadInput if another process still holds
    the lock after the wait. The lock ends with the process in any case.
    """
    # The import is here, because commands that write nothing do not need it.
    from filelock import FileLock, Timeout

    folder = Path(folder)
    lock = FileLock(folder / LOCK, timeout=wait_seconds)
    is_new = not folder.exists()
    try:
        with _refusals(folder):
            folder.mkdir(parents=True, exist_ok=True)
            lock.acquire()
    except Timeout as error:
        raise BadInput(
            f"{folder}: expected no other voxlate to write here, found one that does. Wait for it, or choose another folder."
        ) from error
    except OSError as error:
        raise CannotWrite(
            f"{folder}: expected a folder whose {LOCK} can be locked, found {error.strerror}. Delete that file if no other voxlate writes here, or choose a folder on another disk."
        ) from error
    try:
        for stray in list(folder.rglob(f"{WRITING}*")):  # a killed process has left these
            # a folder between the two may have its own lock, whose process may be writing the file
            between = itertools.takewhile(lambda parent: parent != folder, stray.parents)
            if not any((parent / LOCK).exists() for parent in between):
                _remove(stray)
        yield
    finally:
        # the file is removed before the release, and filelock detects that it is gone
        with suppress(OSError):
            (folder / LOCK).unlink()
        lock.release()
        if is_new:
            with suppress(OSError):  # one with files stays
                folder.rmdir()


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def is_scaffold(path: Path) -> bool:
    """Whether a file is a lock or an incomplete file, which do not belong to the folder's content."""
    return path.name == LOCK or path.name.startswith(WRITING)


def relative_to(folder: Path, path: Path) -> str:
    """A path relative to a folder, with '/', so that written paths stay valid when both are moved.

    A path on another drive of Windows stays absolute, because it has no relative path.
    """
    try:
        return Path(os.path.relpath(path, folder.resolve())).as_posix()
    except ValueError:
        return path.absolute().as_posix()


def write_text(path: Path | str, text: str) -> None:
    """Write a text, which appears whole or not at all."""
    with whole_file(path) as temporary:
        # The bytes are the same on every system; names of files need not be valid text.
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace", newline="\n")


def write_json(path: Path | str, value: Mapping[str, Any]) -> None:
    """Write a table with a checksum of its content, which `read_json` compares."""
    plain = json.loads(json.dumps(value, ensure_ascii=False, allow_nan=False))
    text = json.dumps({**plain, CHECKSUM: _checksum(plain)}, indent=2, ensure_ascii=False)
    write_text(path, text + "\n")


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_hash(path: Path) -> str:
    """First 16 hexadecimal digits of SHA-256."""
    return sha256_of(path)[:16]


def _checksum(value: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def read_json(path: Path | str) -> Any:
    """The content of a file; raises BadInput if it is absent, is not JSON, or was changed after voxlate wrote it."""
    path = Path(path)
    try:
        value = json.loads(path.read_text(encoding="utf-8-sig"))
        if (
            isinstance(value, dict)
            and CHECKSUM in value
            and value.pop(CHECKSUM) != _checksum(value)
        ):
            raise BadInput(
                f"{path}: expected what voxlate wrote, found a changed file (its checksum differs). Make it again."
            )
        return value
    except FileNotFoundError as error:
        raise BadInput(f"{path}: expected this file, found none. Check the path.") from error
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadInput(
            f"{path}: expected JSON, found something else ({error}). Get or make the file again."
        ) from error


def without_retired(stored: Mapping[str, Any], retired: Mapping[str, Any]) -> dict[str, Any]:
    """A stored table without retired keys; one that has another value stays, and is refused as an unknown key is.

    retired: the value with which a key changes nothing, or ANY, by dotted key; "*" stands for all keys of a table.
    """
    kept = dict(stored)
    for key, value in retired.items():
        kept = _without(kept, key.split("."), value)
    return kept


def _without(table: Mapping[str, Any], path: list[str], value: Any) -> dict[str, Any]:
    kept = dict(table)
    first, *rest = path
    for name in list(kept) if first == "*" else [first]:
        if rest and isinstance(kept.get(name), dict):
            kept[name] = _without(kept[name], rest, value)
        elif not rest and name in kept and (value is ANY or kept[name] == value):
            del kept[name]
    return kept
