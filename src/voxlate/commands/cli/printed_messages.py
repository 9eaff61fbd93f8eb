"""How commands print messages: equal ones together, few of them, and all of them in OUT/messages.jsonl."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from voxlate.base.messages import FILE, Message, Say, codes, message, summarise, write_messages
from voxlate.commands.api.console import note

MOST_LINES = 4  # lines of messages, if no more of them are cautions


@contextmanager
def keep_messages(
    folder: Path | None, command: str, verbose: bool, wait: bool = True
) -> Iterator[Say]:
    """Gives a function that takes messages, all of which are written into FOLDER/messages.jsonl.

    verbose: print each message at once; wait: else print them together at the end, in MOST lines.
    """
    kept, is_done = [], False

    def take(said: Message) -> None:
        """Keep a message, and print it where it does not wait."""
        if folder is not None:  # a server says more than memory holds
            kept.append(said)
        if verbose or not (wait or _is_detail(said)):
            note(said)

    try:
        yield take
        is_done = True
    finally:
        for said in shorten(kept, folder) if wait and folder and not verbose else ():
            note(said)
        if folder is not None and kept and folder.is_dir():
            lost = write_messages(folder, command, kept, is_done)
            if lost is not None:
                note(lost)


def shorten(messages: Sequence[Message], folder: Path) -> list[Message]:
    """The messages to print: one for each code without details, the gravest first, and the number of further notes."""
    shown = summarise(said for said in messages if not _is_detail(said))
    grave = sum(said.grade != "note" for said in shown)
    kept = max(MOST_LINES - 1, grave)
    if len(shown) - kept <= 1:
        return shown
    text = f"{len(shown) - kept} further kinds of notes: see {folder / FILE}, or give --verbose."
    return [*shown[:kept], message("more", text)]


def _is_detail(said: Message) -> bool:
    return said.code in codes() and codes()[said.code].detail
