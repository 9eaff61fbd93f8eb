"""The command line itself: its name, what it prints of messages and warnings, and how it fails."""

import functools
import re
import sys
import threading
import traceback
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from voxlate import __version__
from voxlate.base.errors import (
    FULL,
    BadInput,
    DoNotTrust,
    Stopped,
    plural,
    system_code,
    system_refusal,
)
from voxlate.base.messages import (
    FILE,
    Message,
    OwnWarning,
    Say,
    shorten,
    write_messages,
)
from voxlate.commands.api.progress import main_process, note

MPS_LACKS = re.compile(r"The operator '(.+?)' is not currently supported on the MPS backend")
app = typer.Typer(
    name="voxlate",
    help="Synthesise one kind of medical scan from another, and state the uncertainty of the images.\n\nResearch software, not a medical device.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
debug = False  # whether an error is shown with its traceback
_note_once = functools.cache(note)
_show_any = warnings.showwarning


def _version(wanted: bool) -> None:
    if wanted:
        print(__version__)
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """What the command line has beside its commands."""


def fail(error: BaseException) -> NoReturn:
    """End the command as its error says."""
    match error:
        case SystemExit():
            raise error
        case BadInput():
            _fail(f"{error}", 3 if isinstance(error, DoNotTrust) else 2)
        case Stopped():
            _fail(f"{error}; run the same command again to resume.", 130)
        case _ if isinstance(error, OSError) or system_code(error) is not None:
            _fail(f"{system_refusal(error)}", 2)
        case _:
            _fail(
                f"This should not happen: {type(error).__name__}: {error}. Report what --debug prints.",
                1,
            )


def _fail(sentence: str, code: int) -> NoReturn:
    if debug:
        traceback.print_exc()
    if main_process:
        print(f"voxlate: {' '.join(sentence.splitlines())}", file=sys.stderr)
    raise SystemExit(code)


def thread_failed(failure: threading.ExceptHookArgs) -> None:
    """Show the error of a thread, unless the disk is full: the main thread meets that as well, and says so."""
    error = failure.exc_value
    if error is None or system_code(error) not in FULL:
        threading.__excepthook__(failure)


def end(undone: Iterable[str]) -> None:
    """End a command with exit code 3 where it left things undone: a sentence for each, "" for one that was said."""
    sentences = [*undone]
    for sentence in filter(None, sentences):
        print(f"voxlate: {sentence}", file=sys.stderr)
    if sentences:
        raise SystemExit(3)


@contextmanager
def keep_messages(
    folder: Path | None, command: str, verbose: bool, wait: bool = True
) -> Iterator[Say]:
    """Gives a function that takes messages, all of which are written into FOLDER/messages.jsonl.

    verbose: print each message at once; wait: else print them together at the end, equal ones as one, in a few lines.
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
        shown, more = shorten(kept if wait and not verbose else [])
        for said in shown:
            note(said)
        if more:
            note(f"{plural(more, 'further note')}: see {folder}/{FILE}, or give --verbose.")
        if folder is not None and kept and folder.is_dir():
            write_messages(folder, command, kept, is_done)


@contextmanager
def in_sentences() -> Iterator[None]:
    """Say what libraries warn of while a command runs."""
    with warnings.catch_warnings():  # which gives back what shows them
        warnings.showwarning = show_warning  # type: ignore[assignment]
        yield


def show_warning(said: Warning | str, category: type[Warning], *place: Any) -> None:
    """Show a warning as usual; our own, and operations that MPS lacks, as one sentence each."""
    if lacking := MPS_LACKS.search(str(said)):
        _note_once(f"MPS has no {lacking[1]}: such operations run on the CPU, which takes longer.")
    elif issubclass(category, OwnWarning):
        note(str(said))
    else:
        _show_any(said, category, *place)
