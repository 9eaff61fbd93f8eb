"""The command line: its parameters, which typer gets from the description of a command, what it prints, and how it fails."""

import json
import os
import sys
import traceback
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from inspect import Parameter, Signature, cleandoc
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn, get_args, get_origin

import typer
from rich.markup import escape
from typer.core import TyperGroup

from voxlate import __version__
from voxlate.base import machine
from voxlate.base.errors import (
    BadInput,
    DoNotTrust,
    Stopped,
    system_code,
    system_refusal,
)
from voxlate.base.messages import Message, Say, summarise
from voxlate.base.option import (
    ARGUMENT,
    PANELS,
    Option,
    OutputOption,
    flag_of,
    help_of,
    option_in,
    options,
    parameters_of,
    text_type,
)
from voxlate.commands.api.entry import HOMES, Command, Undone, commands, plain
from voxlate.commands.api.progress import Reporter, main_process, note, say

METAVARS = {Path: "PATH", int: "INT", float: "NUMBER", bool: ""}


@options
class Printing:
    """Options of every command on the command line."""

    as_json: Annotated[bool, OutputOption("Print the result as JSON.", flag="--json")] = False
    verbose: Annotated[bool, OutputOption("Print every message.", flag="--verbose -v")] = False
    debug: Annotated[bool, Option("Show the traceback of an error.")] = False


app = typer.Typer(
    name="voxlate",
    help="Synthesise one kind of medical scan from another, and state the uncertainty of the images.\n\nResearch software, not a medical device.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
debug = False  # whether an error is shown with its traceback
BUSY_CORES, LOOK_SECONDS = 0.5, 0.3


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
        case _ if place := _own_line(error):
            _fail(f"{place}: {type(error).__name__}: {error}. Mend this code (see --debug).", 2)
        case _:
            _fail(
                f"This should not happen: {type(error).__name__}: {error}. Report what --debug prints.",
                1,
            )


def _own_line(error: BaseException) -> str:
    """The last line of the user's own code through which an error came; "" where there is none."""
    from voxlate.base.config import imported, package_of  # loads pydantic

    if isinstance(error, SyntaxError):
        return f"{error.filename}, line {error.lineno}"
    place = ""
    for frame, line in traceback.walk_tb(error.__traceback__):
        package = package_of(frame.f_globals.get("__name__", ""))
        if package in imported and package != package_of(__name__):
            place = f"{frame.f_code.co_filename}, line {line}"
    return place


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


@contextmanager
def print_messages(verbose: bool, wait: bool = True) -> Iterator[Say]:
    """Gives a function that takes messages.

    verbose: print each message at once; wait: else print them together at the end, equal ones as one.
    """
    kept = list[Message]()

    def take(said: Message) -> None:
        """Print a message, or keep it for the end."""
        if verbose:
            note(said)
        elif said.is_detail:
            return
        elif wait:
            kept.append(said)
        else:
            note(said)

    try:
        yield take
    finally:
        for said in summarise(kept):
            note(said)


def show_warning(said: Warning | str, *_: object) -> None:
    """Show a warning of a library as a note."""
    note(Message("", "note", f"{said}"))


def wait_as_the_load_asks() -> None:
    """Let threads that wait for each other sleep where cores are busy already, and spin where they are free.

    Spinning gains a quarter on a free machine; next to a busy process it makes steps ten times slower. OpenMP reads
    this when torch is imported; a value that the user gave stays. The load average looks a minute back, to commands
    that have ended: where it is high, a look at the cores decides.
    """
    if "OMP_WAIT_POLICY" not in os.environ and machine.load_average() > BUSY_CORES:
        import psutil

        if psutil.cpu_percent(LOOK_SECONDS) / 100 * (os.cpu_count() or 1) > BUSY_CORES:
            os.environ["OMP_WAIT_POLICY"] = "PASSIVE"


def command_line(words: Sequence[str] = ()) -> TyperGroup:
    """The command line with the command that these words name; with all where they name none, as --help does."""
    named = [word for word in words if not word.startswith("-")][:1]
    app.registered_commands.clear()
    for command in commands(named if {*named} & HOMES.keys() else HOMES).values():
        add(command)
    group = typer.main.get_command(app)
    assert isinstance(group, TyperGroup)  # it has an option of its own
    return group


def add(command: Command) -> None:
    """Add a command to the command line, with examples at the end of its --help."""
    examples = [f"voxlate {line}" for line in cleandoc(command.examples).splitlines()]
    epilog = "\n".join(["Example:" if len(examples) == 1 else "Examples:", *examples])
    parameters = [*command.given.values(), *parameters_of(Printing).values()]

    def run(**typed: Any) -> None:
        """Call the command, and print its result: a document, or lines; what is left undone ends it with code 3."""
        global debug
        warnings.showwarning = show_warning  # type: ignore[assignment]
        if not command.reads:
            wait_as_the_load_asks()
        debug = typed["debug"]
        given = {name: typed[name] for name in command.given if typed[name] not in (None, [])}
        with print_messages(typed["verbose"], command.waits) as take:
            result, asked = command.call(given, Reporter(say=take))
            shown = [*command.lines(result, asked)]
            for line in shown:
                if isinstance(line, Message):
                    take(line)
        if typed["as_json"] and main_process:
            print(json.dumps(plain(command.document(result))))
        for line in [] if typed["as_json"] else shown:
            if not isinstance(line, Undone | Message):
                say(line)
        end(line.sentence for line in shown if isinstance(line, Undone))

    panels = (ARGUMENT, *PANELS)
    ordered = sorted(parameters, key=lambda one: panels.index(option_in(one).panel))
    run.__signature__ = Signature([*map(_for_typer, ordered)])  # type: ignore[attr-defined]
    # Typer shows what follows the form feed in the list of commands.
    run.__doc__ = cleandoc(f"{command.described.__doc__}").partition("\f")[0]
    app.command(name=command.name, epilog=epilog)(run)


def _for_typer(parameter: Parameter) -> Parameter:
    """A parameter with typer's own annotation in place of ours; typer gives texts, paths and flags, which pydantic reads."""
    option, default = option_in(parameter), parameter.default
    kind = text_type(parameter.annotation)
    is_list = get_origin(kind) is list
    part = get_args(kind)[0] if is_list else kind
    typed: Any = part if part in (bool, Path) else str
    if get_origin(part) is tuple:
        typed = tuple[tuple(str for _ in get_args(part))]  # type: ignore[misc]
    usual = "NAME" if get_origin(part) is Literal else METAVARS.get(part, "TEXT")
    stated: dict[str, Any] = {
        "help": escape(help_of(parameter)),
        "metavar": option.metavar or usual,
        "show_default": False,
    }
    flag = flag_of(parameter.name)
    if option.panel == ARGUMENT:
        declaration = typer.Argument(**stated)
    else:
        names = [f"{flag}/--no-{flag[2:]}"] if default is True else option.flag.split() or [flag]
        declaration = typer.Option(*names, rich_help_panel=option.panel, **stated)
    typed = list[typed] if is_list else typed
    if default is not Parameter.empty and kind is not bool:
        default, typed = None, typed | None  # what is not given is not checked
    note: Any = Annotated[typed, declaration]
    return Parameter(parameter.name, Parameter.KEYWORD_ONLY, default=default, annotation=note)
