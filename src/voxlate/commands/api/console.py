"""Where commands print: results on stdout, and progress, notes and warnings on stderr."""

import os
from typing import Any

from rich.console import Console

from voxlate.base.messages import Grade, Message

# Of the processes that torchrun or accelerate started, the main one alone prints.
main_process = os.environ.get("RANK", "0") == "0"
# paths and titles may hold '[/]' or ':x:', which are no markup
out = Console(quiet=not main_process, markup=False, emoji=False)
err = Console(stderr=True, quiet=not main_process, markup=False, emoji=False)


STYLES: dict[Grade, str] = {"note": "yellow", "caution": "bold yellow", "do not trust": "bold red"}


def say(line: Any, console: Console = out, style: str | None = None) -> None:
    """Print a line unwrapped, so that paths and commands in it can be copied; a table, or a line that is cut, fits the terminal."""
    fits = not isinstance(line, str) and getattr(line, "overflow", "") is not None
    console.print(line, style=style, highlight=False, soft_wrap=not fits)


def note(said: str | Message) -> None:
    """Print a message on stderr, as loud as its grade."""
    value = Message("", "note", said) if isinstance(said, str) else said
    case = f"{value.case}: " if value.case else ""
    label = "note" if value.grade == "note" else value.grade.upper()
    say(f"{label}: {case}{value.text}", err, STYLES[value.grade])
