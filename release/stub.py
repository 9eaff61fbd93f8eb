"""Write src/voxlate/__init__.pyi: the commands as editors and mypy know them, with each option as a typed keyword.

python release/stub.py
The names are those of src/voxlate/names.pyi; types, defaults and help are those of the functions and their options.
tests/test_doors.py fails while the stub is not up to date.
"""

import ast
import inspect
import re
import types
from collections.abc import Callable
from pathlib import Path
from textwrap import indent
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import voxlate
from voxlate.base.option import Object

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
    signature = inspect.signature(value)
    parameters, marked = list[str](), False
    for parameter in signature.parameters.values():
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY and not marked:
            parameters.append("*")
            marked = True
        hint = value.stated.get(parameter.name, parameter).annotation
        parameters.append(_parameter(parameter.name, hint, parameter.default))
    lines = "".join(f"    {parameter},\n" for parameter in parameters)
    doc = indent(inspect.cleandoc(value.__doc__).replace("\\", "\\\\"), "    ").strip()
    head = f"def {name}(\n{lines}) -> {_returned(value, signature.return_annotation)}:"
    return f'\n{head}\n    """{doc}\n    """\n'


def _returned(value: Any, kind: Any) -> str:
    """A returned type as source; a quoted one is of the imports for type checkers."""
    if not isinstance(kind, str):
        return _source(kind)
    tree = ast.parse(inspect.getsource(inspect.getmodule(inspect.unwrap(value))))  # type: ignore[arg-type]
    homes = {
        alias.asname or alias.name: (node.module, alias.name)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    for quoted in re.findall(r"\w+", kind):
        home, own = homes.get(quoted, (inspect.unwrap(value).__module__, quoted))
        imported[own] = home
        kind = re.sub(rf"\b{quoted}\b", own, kind)
    return kind


def _parameter(name: str, hint: Any, default: Any) -> str:
    """A parameter with the types that it takes, and texts for paths."""
    typed = _source(hint)
    if re.search(r"\bPath\b", typed) and not re.search(r"\bstr\b", typed):
        typed = f"str | {typed}"
    if default is inspect.Parameter.empty:
        return f"{name}: {typed}"
    return f"{name}: {typed} = {_value(default) if isinstance(default, PLAIN) else '...'}"


def _value(value: Any) -> str:
    """A value as source."""
    return f'"{value}"' if isinstance(value, str) else repr(value)


def _source(kind: Any) -> str:
    """A type as source, which is the same on every version of Python."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Annotated:
        homes = [note.home for note in inner[1:] if isinstance(note, Object)]
        if not homes:
            return _source(inner[0])
        home, _, own = homes[0].partition(":")
        imported[own] = home
        return own
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
