"""Errors that users can fix, and the stop that they asked for."""

from collections.abc import Sequence

MOST_NAMED = 6  # of many, in a sentence


class BadInput(ValueError):
    """One sentence: what was expected, what was found, where, and what to do (exit code 2)."""


class CannotWrite(BadInput):
    """The place for results takes none: other cases would fare no better."""


class Stopped(Exception):
    """A long run was asked to stop and has saved its state (exit code 130)."""


def first_of(names: Sequence[object], most: int = MOST_NAMED, separator: str = ", ") -> str:
    """The first names of many, for a sentence: "a, b, …"."""
    return separator.join([*map(str, names[:most]), *(["…"] if len(names) > most else [])])
