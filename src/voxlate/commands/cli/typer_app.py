"""The command line itself: its name, where it writes, how it fails."""

import sys
import threading
import traceback
from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperCommand

from voxlate import __version__
from voxlate.base.errors import (
    FULL,
    BadInput,
    DoNotTrust,
    Stopped,
    nearest,
    system_code,
    system_refusal,
)
from voxlate.base.option import RENAMED, flag_of
from voxlate.commands.api.console import main_process


class SuggestingCommand(TyperCommand):
    """A command; an option that is not there is answered with the nearest of those that are."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Its options, and --debug, which all commands have."""
        shared = ctx.parent.command.params[:1] if ctx.parent else []
        return [*super().get_params(ctx), *shared]

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the words; the error of an unknown option gets our suggestions."""
        global debug
        try:
            rest = super().parse_args(ctx, [*args])
            debug |= ctx.params.pop("show_debug", False)
            return rest
        except Exception as error:  # Typer keeps the class of that error to itself
            if hasattr(error, "possibilities") and hasattr(error, "option_name"):
                for word in args:
                    if word.startswith(error.option_name) and Path(word).exists():
                        raise BadInput(
                            f"{word}: expected an option, found the name of a file. Write ./{word}."
                        ) from error
                names = chain.from_iterable(parameter.opts for parameter in self.params)
                today = RENAMED.get(error.option_name.lstrip("-").replace("-", "_"))
                near = nearest(error.option_name, names)[:3]
                error.possibilities = [flag_of(today)] if today else near
            raise


app = typer.Typer(
    name="voxlate",
    help="Synthesise one kind of medical scan from another, and state the uncertainty of the images.\n\nResearch software, not a medical device.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
debug = False


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


def thread_failed(failure: threading.ExceptHookArgs) -> None:
    """Show the error of a thread, unless the disk is full: the main thread meets that as well, and says so."""
    error = failure.exc_value
    if error is None or system_code(error) not in FULL:
        threading.__excepthook__(failure)


def _fail(sentence: str, code: int) -> NoReturn:
    if debug:
        traceback.print_exc()
    if main_process:
        print(f"voxlate: {' '.join(sentence.splitlines())}", file=sys.stderr)
    raise SystemExit(code)


def end(undone: Iterable[str]) -> None:
    """End a command with exit code 3 where it left things undone: a sentence for each, "" for one that was said."""
    sentences = [*undone]
    for sentence in filter(None, sentences):
        print(f"voxlate: {sentence}", file=sys.stderr)
    if sentences:
        raise SystemExit(3)


def _version(wanted: bool) -> None:
    if wanted:
        print(__version__)
        raise typer.Exit


@app.callback()
def _common(
    show_debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error.")
    ] = False,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    global debug
    debug = show_debug
