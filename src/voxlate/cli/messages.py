"""How commands print messages: equal ones together, few of them, and all of them in OUT/messages.jsonl."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

from voxlate.api.console import note
from voxlate.options.option import OUTPUT, Option
from voxlate.system.codes import CODES
from voxlate.system.messages import FILE, Message, Say, message, summarise, write_messages

MOST = 4  # lines of messages
Verbose = Annotated[bool, Option("Print every message.", flag="--verbose -v", panel=OUTPUT)]


@contextmanager
def keep_messages(folder: Path, command: str, verbose: bool, wait: bool = True) -> Iterator[Say]:
    """Gives a function that takes messages, all of which are written into FOLDER/messages.jsonl.

    verbose: print each message at once; wait: else print them together at the end, in MOST lines.
    """
    kept = list[Message]()

    def take(one: Message) -> None:
        kept.append(one)
        if verbose:
            note(one)
        elif not wait:
            note_briefly(one)

    try:
        yield take
    finally:
        for one in [] if verbose or not wait else shorten(kept, folder):
            note(one)
        if kept and folder.is_dir():
            write_messages(folder, command, kept)


def shorten(messages: Sequence[Message], folder: Path, most: int = MOST) -> list[Message]:
    """The messages to print: one for each code without details, the gravest first, and the number of others."""
    shown = summarise(one for one in messages if not _is_detail(one))
    if len(shown) <= most:
        return shown
    others = len(shown) - most + 1
    text = f"{others} further kinds of messages: see {folder / FILE}, or give --verbose."
    return [*shown[: most - 1], message("more", text)]


def note_briefly(one: Message) -> None:
    """Print a message at once, unless it is a detail."""
    if not _is_detail(one):
        note(one)


def _is_detail(one: Message) -> bool:
    return one.code in CODES and CODES[one.code].detail
