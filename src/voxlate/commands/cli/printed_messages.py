"""How commands print messages: equal ones together, few of them, and all of them in OUT/messages.jsonl."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from voxlate.base.errors import plural
from voxlate.base.messages import FILE, Message, Say, message, shorten, write_messages
from voxlate.commands.api.console import note


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
        if verbose or not (wait or said.is_detail):
            note(said)

    try:
        yield take
        is_done = True
    finally:
        if wait and folder and not verbose:
            _print_few(kept, folder)
        if folder is not None and kept and folder.is_dir():
            lost = write_messages(folder, command, kept, is_done)
            if lost is not None:
                note(lost)


def _print_few(messages: list[Message], folder: Path) -> None:
    """Print the gravest messages, and the number of further notes."""
    shown, more = shorten(messages)
    for said in shown:
        note(said)
    if more:
        text = f"{plural(more, 'further note')}: see {folder / FILE}, or give --verbose."
        note(message("more", text))
