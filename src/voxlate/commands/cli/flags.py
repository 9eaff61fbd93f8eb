"""From the description of a command to the command line: how typer gets its parameters, and what is printed."""

import json
from collections.abc import Callable, Sequence
from inspect import Parameter, Signature, cleandoc
from pathlib import Path
from pkgutil import resolve_name
from typing import Annotated, Any, Literal, get_args, get_origin

import typer
from rich.markup import escape
from typer.core import TyperGroup

from voxlate.base.messages import Message
from voxlate.base.option import (
    ARGUMENT,
    PANELS,
    Option,
    OutputOption,
    flag_of,
    option_in,
    range_of,
    text_type,
)
from voxlate.commands.api.entry import HOMES, Aside, Command, Undone, commands, plain
from voxlate.commands.api.progress import Reporter, err, main_process, say
from voxlate.commands.cli import terminal

METAVARS = {Path: "PATH", int: "INT", float: "NUMBER", bool: ""}
DEBUG = Option("Show the traceback of an error.")
AS_JSON = OutputOption("Print the result as JSON.", flag="--json")
VERBOSE = OutputOption("Print every message.", flag="--verbose -v")


def command_line(words: Sequence[str] = ()) -> TyperGroup:
    """The command line with the command that these words name; with all where they name none, as --help does."""
    named = [word for word in words if not word.startswith("-")][:1]
    terminal.app.registered_commands.clear()
    for command in commands(named if {*named} & HOMES.keys() else HOMES).values():
        add(command)
    group = typer.main.get_command(terminal.app)
    assert isinstance(group, TyperGroup)  # it has an option of its own
    return group


def add(command: Command) -> None:
    """Add a command to the command line, with examples at the end of its --help."""
    examples = [f"voxlate {line}" for line in cleandoc(command.examples).splitlines()]
    epilog = "\n".join(["Example:" if len(examples) == 1 else "Examples:", *examples])
    switches = {"as_json": AS_JSON, "debug": DEBUG}
    if command.keeps:
        switches["verbose"] = VERBOSE
    parameters = {**command.parameters}
    for name, option in switches.items():
        note = Annotated[bool, option]
        parameters[name] = Parameter(name, Parameter.KEYWORD_ONLY, default=False, annotation=note)

    def run(**typed: Any) -> None:
        """Call the command, and print its result: a document, or lines; what is left undone ends it with code 3."""
        terminal.debug = typed.pop("debug")
        typed = {name: value for name, value in typed.items() if value not in (None, [])}
        verbose, as_json = typed.get("verbose", False), typed["as_json"]
        given = {name: typed[name] for name in command.given if name in typed}
        kept = Path(f"{given.get('out') or given.get('recipe')}") if command.keeps else None
        waits = command.keeps == "end"
        with terminal.keep_messages(kept, command.name, verbose, waits) as take:
            report = Reporter(say=take)
            result, values = command.call({**command.by_line, **given}, report)
            shown = command.show(result, {**typed, **values})
            for line in shown:
                if isinstance(line, Message):
                    take(line)
        if as_json and main_process:
            print(json.dumps(plain(command.document(result))))
        for line in [] if as_json else shown:
            if isinstance(line, Aside):
                say(line.line, err, line.style)
            elif not isinstance(line, Undone | Message):
                say(line)
        terminal.end(line.sentence for line in shown if isinstance(line, Undone))

    panels = (ARGUMENT, *PANELS)
    ordered = sorted(parameters.values(), key=lambda one: panels.index(option_in(one).panel))
    run.__signature__ = Signature([*map(_for_typer, ordered)])  # type: ignore[attr-defined]
    # Typer shows what follows the form feed in the list of commands.
    run.__doc__ = cleandoc(f"{command.described.__doc__}").partition("\f")[0]
    terminal.app.command(name=command.name, epilog=epilog)(run)


def _for_typer(parameter: Parameter) -> Parameter:
    """A parameter with typer's own annotation in place of ours; typer gives texts, paths and flags, which pydantic reads."""
    option, default = option_in(parameter), parameter.default
    kind = text_type(parameter.annotation)
    is_set = kind is not bool and default not in (None, (), Parameter.empty)
    stated: dict[str, Any] = {
        "help": _help(option, default if is_set else None),
        "metavar": option.metavar or _metavar(kind),
        "autocompletion": _complete(option, kind),
        "show_default": False,
    }
    flag = flag_of(parameter.name)
    if option.panel == ARGUMENT:
        declaration = typer.Argument(**stated)
    else:
        names = [f"{flag}/--no-{flag[2:]}"] if default is True else option.flag.split() or [flag]
        declaration = typer.Option(*names, rich_help_panel=option.panel, **stated)
    typed = _texts(kind)
    if default is not Parameter.empty and kind is not bool:
        default = None  # what is not given is not checked
    note: Any = Annotated[typed | None if default is None else typed, declaration]
    return Parameter(parameter.name, Parameter.KEYWORD_ONLY, default=default, annotation=note)


def _help(option: Option, default: Any) -> str:
    """The help of an option with its range and its default."""
    text = escape(option.help + range_of(option))
    if default is None:
        return text
    stated = " ".join(map(str, default)) if isinstance(default, tuple) else str(default)
    return f"{text} Default: {stated}."


def _texts(kind: Any) -> Any:
    """The type of a value as typer gives it: texts, paths and flags."""
    if get_origin(kind) is list:
        return list[_texts(get_args(kind)[0])]  # type: ignore[misc]
    if get_origin(kind) is tuple:
        return tuple[tuple(str for _ in get_args(kind))]  # type: ignore[misc]
    return kind if kind in (bool, Path) else str


def _complete(option: Option, kind: Any) -> Callable[[str], list[str]] | None:
    """What typer calls to complete a word; it takes functions alone."""
    known: Any = get_args(kind) if get_origin(kind) is Literal else option.complete
    if not known:
        return None

    def complete(begun: str) -> list[str]:
        """The values that begin with these letters; an empty word may become a path."""
        if option.metavar == "RUN" and not begun:
            return []
        values = resolve_name(known) if isinstance(known, str) else known
        return [
            value for value in (values() if callable(values) else values) if value.startswith(begun)
        ]

    return complete


def _metavar(kind: Any) -> str:
    """A short name of a type in --help."""
    if get_origin(kind) is list:
        return _metavar(get_args(kind)[0])
    return "NAME" if get_origin(kind) is Literal else METAVARS.get(kind, "TEXT")
