"""Write src/voxlate/__init__.pyi: the commands as editors and mypy know them, with each option as a typed keyword.

python release/stub.py
The names are those of src/voxlate/names.pyi; types, defaults and help are those of the functions and their options.
tests/test_doors.py fails while the stub is not up to date.
"""

import inspect
import types
from collections.abc import Callable, Iterator
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from textwrap import indent
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import voxlate
from voxlate.base.options.option import option_of, without_notes
from voxlate.base.options.table import field_types
from voxlate.training.recipe.settings import Synthesis

STUB = Path(voxlate.__file__).with_suffix(".pyi")
HEAD = '''"""Written by release/stub.py: the commands, with each option as a typed keyword."""

'''
PLAIN = (bool, int, float, str, tuple, type(None))  # defaults that are shown as they are
imported = dict[str, str]()  # the home of each class that the stub names


def text() -> str:
    """The contents of the stub."""
    names = [name for name in vars(voxlate)["__all__"] if name != "__version__"]
    parts = [_definition(name, getattr(voxlate, name)) for name in names]
    imports = [
        f"from {home} import {name}" + (f" as {name}" if name in names else "")
        for name, home in imported.items()
    ]
    return HEAD + "\n".join([*sorted(imports), "", "__version__: str", *filter(None, parts)])


def _definition(name: str, value: Any) -> str:
    """A function with its keywords; a class is imported."""
    if inspect.isclass(value):
        imported[name] = value.__module__
        return ""
    hints = get_type_hints(value, include_extras=True)
    parameters, marked = list[str](), False
    for parameter in inspect.signature(value).parameters.values():
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            continue
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY and not marked:
            parameters.append("*")
            marked = True
        parameters.append(_parameter(parameter.name, hints[parameter.name], parameter.default))
    tables: list[Any] = [kind for kind in get_args(hints.get("options")) if is_dataclass(kind)]
    if tables:
        parameters += ([] if marked else ["*"]) + [*_keywords(tables[0])]
    if name.startswith("synthesi"):  # takes all keys of a recipe's synth table
        known = field_types(tables[0])
        parameters += [f"{key}: Any = ..." for key in field_types(Synthesis) if key not in known]
    lines = "".join(f"    {parameter},\n" for parameter in parameters)
    doc = indent(inspect.cleandoc(value.__doc__).replace("\\", "\\\\"), "    ").strip()
    head = f"def {name}(\n{lines}) -> {_source(hints['return'])}:"
    return f'\n{head}\n    """{doc}\n    """\n'


def _keywords(table: Any) -> Iterator[str]:
    defaults = {field.name: field.default for field in fields(table)}
    for name, hint in field_types(table).items():
        default = defaults[name]
        yield _parameter(name, hint, ... if default is MISSING else default)


def _parameter(name: str, hint: Any, default: Any) -> str:
    """A parameter with the types that it takes: its own, that of the command line, and texts for paths."""
    own = without_notes(hint)
    parts = get_args(own) if get_origin(own) in (Union, types.UnionType) else (own,)
    members = [_source(part) for part in parts]
    option = option_of(hint)
    if option is not None and option.takes is not None and get_origin(option.takes) is not list:
        members.insert(0, _source(option.takes))
    if "Path" in members:
        members.insert(0, "str")
    typed = f"{name}: {'Any' if 'Any' in members else ' | '.join(dict.fromkeys(members))}"
    if default is inspect.Parameter.empty:
        return typed
    return f"{typed} = {_value(default) if isinstance(default, PLAIN) else '...'}"


def _value(value: Any) -> str:
    """A value as source."""
    return f'"{value}"' if isinstance(value, str) else repr(value)


def _source(kind: Any) -> str:
    """A type as source, which is the same on every version of Python."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return _source(inner[0])
    if origin in (Union, types.UnionType):
        return " | ".join(dict.fromkeys(map(_source, inner)))
    if kind in (None, type(None)):
        return "None"
    named = kind if kind is Any else origin or kind
    if named.__module__ != "builtins":
        home = "pathlib" if named.__module__.startswith("pathlib") else named.__module__
        imported[named.__name__] = "typing" if kind is Any or origin is Literal else home
    if origin is Literal:
        return f"Literal[{', '.join(map(_value, inner))}]"
    if origin is get_origin(Callable[..., Any]):
        return f"Callable[..., {_source(inner[1])}]"
    return f"{named.__name__}[{', '.join(map(_source, inner))}]" if inner else named.__name__


if __name__ == "__main__":
    STUB.write_text(text(), encoding="utf-8")
