"""Warnings of libraries as sentences."""

import contextlib
import functools
import logging
import re
import warnings
from collections.abc import Iterator
from typing import TextIO

from voxlate.base.messages import OwnWarning
from voxlate.commands.api.console import note

MPS_LACKS = re.compile(r"The operator '(.+?)' is not currently supported on the MPS backend")
NO_CACHE = re.compile(r"Matplotlib created a temporary cache directory .* default path \((.+?)\)")

_note_once = functools.cache(note)
_show_any = warnings.showwarning


@contextlib.contextmanager
def in_sentences() -> Iterator[None]:
    """Say what libraries warn of while a command runs."""
    shown, logger, handler = warnings.showwarning, logging.getLogger("matplotlib"), _Log()
    warnings.showwarning = show_warning
    logger.addHandler(handler)
    try:
        yield
    finally:
        warnings.showwarning = shown
        logger.removeHandler(handler)


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


class _Log(logging.Handler):
    """Says what matplotlib logs."""

    def emit(self, record: logging.LogRecord) -> None:
        """Say a warning, and a missing cache folder in one sentence."""
        text = record.getMessage()
        if missing := NO_CACHE.search(text):
            _note_once(
                f"{missing[1]}: expected a writable cache folder, found none; every command then builds matplotlib's cache again. Set MPLCONFIGDIR to a writable folder."
            )
        elif record.levelno >= logging.WARNING and not text.startswith("mkdir -p failed"):
            note(text)
