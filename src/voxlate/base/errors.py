"""Errors that users can correct, suggestions of similar names, and the stop on request."""

import difflib
import errno
import os
import re
from collections.abc import Iterable, Sequence
from typing import Any

MOST_NAMED = 6  # number of names in a sentence
NEAR = 0.7  # similarity from which on names are suggested
# Longer texts (in letters) are no typing errors, and comparing them takes long.
LONGEST = 80
FULL = (errno.ENOSPC, errno.EDQUOT)  # the system's errors of a full disk
# The system's errors of a place that takes no file.
NO_PLACE = (
    *FULL,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.EFBIG,
    errno.EEXIST,
    errno.ENAMETOOLONG,
    errno.ENOTDIR,
    errno.EIO,
)


class BadInput(ValueError):
    """An error that states where it was met, what was expected, what was found, and what to do (exit code 2).

    Example:
        >>> import voxlate
        >>> try:
        ...     voxlate.prepare("NOWHERE", "READY", progress=False)
        ... except voxlate.BadInput as error:
        ...     print(str(error).partition(": ")[0])
        NOWHERE
    """


class DoNotTrust(BadInput):
    """A case is not synthesised, because its image could not be trusted (exit code 3).

    Example:
        >>> import voxlate
        >>> from voxlate.base.errors import DoNotTrust
        >>> issubclass(DoNotTrust, voxlate.BadInput)
        True
    """


class CannotWrite(BadInput):
    """Results of no case can be written."""


def system_code(error: BaseException) -> int | None:
    """The number of the operating system's error that an exception is, or quotes as those of other writers do."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    quoted = re.search(r"(?:\(os error |\[Errno )(\d+)[)\]]", str(error))
    return None if quoted is None or isinstance(error, BadInput) else int(quoted[1])


def cannot_write(place: object, code: int) -> CannotWrite:
    """The sentence for a place that takes no file, by the system's error."""
    return CannotWrite(
        f"{place}: expected room and right to write, found '{os.strerror(code)}'. Free some space, or choose another folder."
    )


def system_refusal(error: BaseException) -> BadInput:
    """The sentence for an error of the operating system."""
    code = system_code(error)
    place = getattr(error, "filename", None) or "system"
    if code in (*FULL, errno.EROFS):
        return cannot_write(place, code)
    why = str(error).partition("\n")[0] if code is None else os.strerror(code)
    return BadInput(
        f"{place}: expected a path that can be read and written, found '{why}'. Check its name, its rights and the disk."
    )


class Stopped(Exception):
    """A long run has stopped on request and has saved its state (exit code 130)."""


def first_of(names: Sequence[object], most: int = MOST_NAMED, separator: str = ", ") -> str:
    """The first of many names for a sentence, such as "a, b, …"."""
    return separator.join([*map(str, names[:most]), *(["…"] if len(names) > most else [])])


def as_list(values: Any) -> list[Any]:
    """Several values, or one text or path, as a list."""
    return [values] if isinstance(values, str | os.PathLike) else [*values]


def plural(number: int, name: str) -> str:
    """A number with a noun, such as "1 case" or "2 cases"."""
    return f"{number} {name}{'' if number == 1 else 's'}"


def did_you_mean(name: str, known: Iterable[str], most: int = 3) -> str:
    """A suggestion of similar names, such as "Did you mean 't1'?"; '' if there are none."""
    near = nearest(name, known)[:most]
    return f"Did you mean {' or '.join(repr(candidate) for candidate in near)}?" if near else ""


def known_name(where: object, expected: str, name: str, known: Iterable[str]) -> str:
    """A name that is known; raises BadInput for another one, with similar ones or all."""
    if name in known:
        return name
    hint = did_you_mean(name, known) or f"They are {', '.join(dict.fromkeys(known))}."
    raise BadInput(f"{where}: expected {expected}, found '{name}'. {hint}")


def nearest(name: str, known: Iterable[str]) -> list[str]:
    """The known names with similar spelling, the most similar first, then those that have the name as a word."""
    by_spelling = {_spelling(one): one for one in sorted({*known})}
    asked = _spelling(name[:LONGEST])
    near = difflib.get_close_matches(asked, by_spelling, MOST_NAMED, NEAR)
    near += [one for one in by_spelling if asked in one.split("_")]
    return [by_spelling[one] for one in dict.fromkeys(near)]


def _spelling(name: str) -> str:
    """Letters and digits of a name in any case, with one sign between its words."""
    return re.sub(r"[\W_]+", "_", name.casefold())
