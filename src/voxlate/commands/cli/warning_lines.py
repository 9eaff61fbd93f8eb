"""Warnings of libraries as sentences."""

import functools
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from voxlate.base.messages import OwnWarning
from voxlate.commands.api.console import note

MPS_LACKS = re.compile(r"The operator '(.+?)' is not currently supported on the MPS backend")

_note_once = functools.cache(note)
_show_any = warnings.showwarning


@contextmanager
def in_sentences() -> Iterator[None]:
    """Say what libraries warn of while a command runs."""
    shown, warnings.showwarning = warnings.showwarning, show_warning
    try:
        yield
    finally:
        warnings.showwarning = shown


def show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Show a warning as usual; our own, and operations that MPS lacks, as one sentence each."""
    if lacking := MPS_LACKS.search(str(message)):
        _note_once(f"MPS has no {lacking[1]}: such operations run on the CPU, which takes longer.")
    elif issubclass(category, OwnWarning):
        note(str(message))
    else:
        _show_any(message, category, filename, lineno, file, line)
