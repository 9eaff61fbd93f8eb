"""From options dataclasses to the command line: how typer gets their fields as parameters."""

import functools
import inspect
from collections.abc import Callable
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import typer
from rich.markup import escape

from voxlate.base.options.option import (
    MAIN,
    OUTPUT,
    PANELS,
    Option,
    flag_of,
    option_of,
    range_of,
    suggestions,
)
from voxlate.base.options.table import field_types, text_type
from voxlate.commands.cli.app import SuggestingCommand, app

METAVARS = {Path: "PATH", int: "INT", float: "NUMBER", str: "TEXT", bool: ""}


def complete_starter(begun: str) -> list[str]:
    """The starters that a shell completes; none of an empty word, which may be a path."""
    from voxlate.training.starters.names import starters_to_run

    return [name for name in starters_to_run() if begun and name.startswith(begun)]


Run = Annotated[
    str,  # a path would lose a slash of hf://
    typer.Argument(
        metavar="RUN",
        help="Run folder, weights file, starter:NAME or hf://NAME/REPO@COMMIT.",
        autocompletion=complete_starter,
    ),
]
To = Annotated[Path, Option("Output folder.", flag="--out", panel=MAIN)]
Json = Annotated[bool, Option("Print the result as JSON.", flag="--json", panel=OUTPUT)]
Everything = Annotated[
    bool,
    Option("Print all scores and baselines.", flag="--all", panel=OUTPUT),
]
Command = Callable[..., None]


def command(*examples: str, name: str | None = None) -> Callable[[Command], Command]:
    """Add a function to the command line, with examples at the end of its --help."""
    head = "Example:" if len(examples) == 1 else "Examples:"
    epilog = "\n".join([head, *(f"voxlate {example}" for example in examples)])

    def add(function: Command) -> Command:
        """Add the function, and return it as it is called by typer."""
        app.command(name=name, epilog=epilog, cls=SuggestingCommand)(with_options(function))
        return function

    return add


def with_options(function: Command) -> Command:
    """The function as typer reads it: each options dataclass among its parameters is replaced by its fields.

    The parameters are sorted by panel. A dataclass is filled with the values that the command line gives.
    """
    hints = get_type_hints(function, include_extras=True)
    own = inspect.signature(function).parameters
    tables = {name: hint for name, hint in hints.items() if is_dataclass(hint)}
    parameters = [
        parameter.replace(annotation=hints[name])
        for name, parameter in own.items()
        if name not in tables
    ]
    for table in tables.values():
        parameters += _parameters(table)

    @functools.wraps(function)
    def run(**values: Any) -> None:
        """Fill the dataclasses, and call the function."""
        filled = {name: _fill(table, values) for name, table in tables.items()}
        function(**values, **filled)

    def panel(parameter: inspect.Parameter) -> int:
        """The place of a parameter's panel in --help; arguments come first."""
        option = option_of(parameter.annotation)
        return -1 if option is None else PANELS.index(option.panel)

    ordered = [
        _for_typer(parameter, parameter.name not in own)
        for parameter in sorted(parameters, key=panel)
    ]
    run.__signature__ = inspect.Signature(ordered)  # type: ignore[attr-defined]
    return run


def _parameters(table: Any) -> list[inspect.Parameter]:
    """The fields of an options dataclass that are options of the command line."""
    defaults = {field.name: field.default for field in fields(table)}
    return [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if defaults[name] is MISSING else defaults[name],
            annotation=hint,
        )
        for name, hint in field_types(table).items()
        if option_of(hint) is not None
    ]


def _fill(table: Any, values: dict[str, Any]) -> Any:
    """Take the values of a table's options from those of the command line, and check them."""
    from voxlate.base.options.check import read_text  # loads pydantic, which --help does not need

    given = {}
    for name, hint in field_types(table).items():
        value = values.pop(name, None)
        option = option_of(hint)
        if option is not None and value is not None and value != []:
            is_flag = isinstance(value, bool)
            given[name] = value if is_flag else read_text(flag_of(name, option), value, hint)
    return table(**given)


def _for_typer(parameter: inspect.Parameter, is_field: bool) -> inspect.Parameter:
    """A parameter with typer's own annotation in place of ours; typer gives the fields of a dataclass as texts."""
    option = option_of(parameter.annotation)
    if option is None:
        return parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
    kind = text_type(parameter.annotation)
    default = parameter.default
    is_set = default not in (inspect.Parameter.empty, None, ())
    names = option.flag.split() or [f"--{parameter.name.replace('_', '-')}"]
    declaration = typer.Option(
        *names,
        help=_help(option, default if is_set and kind is not bool else None),
        rich_help_panel=option.panel,
        metavar=option.metavar or _metavar(kind),
        autocompletion=_complete(option, kind),
        show_default=False,
    )
    typed = _texts(kind)
    if is_field and kind is not bool and default is not inspect.Parameter.empty:
        default = None  # what is not given is not checked
    if default is None:
        typed = typed | None
    return inspect.Parameter(
        parameter.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=default,
        annotation=Annotated[typed, declaration],
    )


def _help(option: Option, default: Any) -> str:
    """The help of an option with its range and its default."""
    text = escape(option.help + range_of(option))
    if default is None:
        return text
    stated = " ".join(map(str, default)) if isinstance(default, tuple) else str(default)
    return f"{text} Default: {stated}."


def _texts(kind: Any) -> Any:
    """The type of a value as typer gives it: texts, paths and flags, which are converted later."""
    if get_origin(kind) is list:
        return list[_texts(get_args(kind)[0])]  # type: ignore[misc]
    if get_origin(kind) is tuple:
        return tuple[tuple(str for _ in get_args(kind))]  # type: ignore[misc]
    return kind if kind in (bool, Path) else str


def _complete(option: Option, kind: Any) -> Callable[[str], list[str]] | None:
    """What typer calls to complete a word; it takes functions alone."""
    choices = get_args(kind) if get_origin(kind) is Literal else ()
    if not (choices or option.complete):
        return None

    def complete(begun: str) -> list[str]:
        """The values that begin with these letters."""
        return suggestions(option, begun) or [text for text in choices if text.startswith(begun)]

    return complete


def _metavar(kind: Any) -> str:
    """A short name of a type in --help."""
    if get_origin(kind) is list:
        return _metavar(get_args(kind)[0])
    return "NAME" if get_origin(kind) is Literal else METAVARS[kind]
