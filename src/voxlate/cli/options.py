"""From options dataclasses to the command line: how typer gets the fields of `voxlate.options.option` as parameters."""

import functools
import inspect
import types
import typing
from collections.abc import Callable
from dataclasses import is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer

from voxlate.cli.app import app
from voxlate.options.option import MAIN, OUTPUT, PANELS, Option, option_of, suggestions

METAVARS = {Path: "PATH", int: "INT", float: "NUMBER", str: "TEXT", bool: ""}

To = Annotated[Path, Option("Output folder.", flag="--out", panel=MAIN)]
Json = Annotated[bool, Option("Print the result as JSON.", flag="--json", panel=OUTPUT)]
Everything = Annotated[
    bool,
    Option("Print all scores and baselines.", flag="--all", panel=OUTPUT),
]
Changes = Annotated[
    list[str] | None,
    Option(
        "Change of a key of the recipe, such as train.steps=500. Repeatable.",
        flag="--set",
        panel=MAIN,
        metavar="KEY=…",
    ),
]
Command = Callable[..., None]


def command(*examples: str, name: str | None = None) -> Callable[[Command], Command]:
    """Add a function to the command line, with examples at the end of its --help."""
    shown = [
        "Example:" if len(examples) == 1 else "Examples:",
        *(f"voxlate {one}" for one in examples),
    ]

    def add(function: Command) -> Command:
        app.command(name=name, epilog="\n".join(shown))(with_options(function))
        return function

    return add


def with_options(function: Command) -> Command:
    """The function as typer reads it: each options dataclass among its parameters is replaced by its fields.

    The parameters are sorted by panel. A dataclass is filled with the values that the command line gives.
    """
    own = inspect.signature(function).parameters
    tables: dict[str, Any] = {
        name: one.annotation for name, one in own.items() if is_dataclass(one.annotation)
    }
    fields = {name: _fields(table) for name, table in tables.items()}
    parameters = [one for name, one in own.items() if name not in tables]
    parameters += [one for some in fields.values() for one in some]
    options = {one.name: option_of(one.annotation) for one in parameters}

    @functools.wraps(function)
    def run(**values: Any) -> None:
        for name, option in options.items():
            if option is not None and option.read is not None and not _is_unset(values[name]):
                values[name] = option.read(values[name])
        filled = {}
        for name, table in tables.items():
            of_table = {one.name: values.pop(one.name) for one in fields[name]}
            filled[name] = table(
                **{key: value for key, value in of_table.items() if not _is_unset(value)}
            )
        function(**values, **filled)

    def panel(parameter: inspect.Parameter) -> int:
        option = options[parameter.name]
        return -1 if option is None else PANELS.index(option.panel)

    shown = [_for_typer(one, options[one.name]) for one in sorted(parameters, key=panel)]
    run.__signature__ = inspect.Signature(shown)  # type: ignore[attr-defined]
    return run


def _is_unset(value: Any) -> bool:
    """Whether the command line gives no value of an option; of a repeatable one it may be an empty list."""
    return value is None or value == []


def _fields(table: Any) -> list[inspect.Parameter]:
    """The fields of an options dataclass that are options of the command line."""
    hints = typing.get_type_hints(table, include_extras=True)
    named = [
        one.replace(annotation=hints[name])
        for name, one in inspect.signature(table).parameters.items()
    ]
    return [one for one in named if option_of(one.annotation) is not None]


def _for_typer(parameter: inspect.Parameter, option: Option | None) -> inspect.Parameter:
    """A parameter with typer's own annotation in place of ours."""
    if option is None:
        return parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
    kind = _first(get_args(parameter.annotation)[0]) if option.takes is None else option.takes
    flag = option.flag or (f"--{parameter.name.replace('_', '-')}" if kind is bool else "")
    default = parameter.default
    states_default = kind is not bool and default not in (inspect.Parameter.empty, None, ())
    shown = typer.Option(
        *flag.split(),
        help=f"{option.help} Default: {_text(default)}." if states_default else option.help,
        rich_help_panel=option.panel,
        metavar=option.metavar or _metavar(kind),
        min=option.least,
        max=option.most,
        autocompletion=_complete(option),
        show_default=False,
    )
    if default is None or default == ():
        kind, default = kind | None, None
    return inspect.Parameter(
        parameter.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=default,
        annotation=Annotated[kind, shown],
    )


def _complete(option: Option) -> Callable[[str], list[str]] | None:
    """What typer calls to complete a word; it takes functions alone."""

    def complete(begun: str) -> list[str]:
        return suggestions(option, begun)

    return complete if option.complete else None


def _text(default: Any) -> str:
    """A default value as it is written on the command line."""
    return " ".join(map(str, default)) if isinstance(default, tuple) else str(default)


def _first(hint: Any) -> Any:
    """The type that the command line reads: of several types the first."""
    return get_args(hint)[0] if get_origin(hint) in (Union, types.UnionType) else hint


def _metavar(kind: Any) -> str:
    """A short name of a type in --help."""
    if get_origin(kind) is list:
        return _metavar(get_args(kind)[0])
    return "NAME" if get_origin(kind) is Literal else METAVARS[kind]
